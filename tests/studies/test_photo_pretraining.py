"""Pre-training on photos without tags: crops, targets, losses, continuation, packing, probe."""

import hashlib
import json

import numpy as np
import pytest
import safetensors.torch
import torch
import torch.nn.functional as F
from PIL import Image

from wsss_lab.data.open_photos import FOLDER
from wsss_lab.models.lite0_vit import STEM_PREFIX
from wsss_lab.models.weights import pretrained_backbone
from wsss_lab.studies.photos.foretell import FLOOR, build_pair, class_axes, losses, map_losses
from wsss_lab.studies.photos.photos import (
    centre_crop,
    change_colours,
    is_held_out,
    list_names,
    random_crop,
    read_photos,
    read_tags,
    to_tensor,
    training_batch,
)
from wsss_lab.studies.photos.pretrain import PhotoPretrain, Run, learning_rate, parameter_groups
from wsss_lab.studies.photos.score import load_tensors, probe, tensors


@pytest.fixture(scope="module")
def pair():
    return build_pair()


@pytest.fixture(scope="module")
def photos():
    return read_photos(FOLDER, list_names(FOLDER, "all")[:4])


def test_one_name_in_eight_is_held_out_and_always_the_same():
    names = [f"2007_{i:06d}" for i in range(8000)]
    held = [name for name in names if is_held_out(name)]
    assert 900 < len(held) < 1100
    assert held == [name for name in names if is_held_out(name)]


def test_crops_are_inside_the_photo_and_repeatable(photos):
    white = Image.new("RGB", (320, 200), (255, 255, 255))
    rng = np.random.default_rng(0)
    crops = [np.asarray(random_crop(white, 48, rng)) for _ in range(50)]
    assert all(crop.shape == (48, 48, 3) and crop.min() == 255 for crop in crops)
    first, second = (training_batch(photos, 64, np.random.default_rng(3)) for _ in range(2))
    assert torch.equal(first, second)
    assert first.shape == (4, 3, 64, 64)
    assert first.min() >= 0
    assert first.max() <= 1


def test_colours_change_but_not_where_things_are():
    images = torch.rand(8, 3, 16, 16) * 0.5 + 0.2
    changed = change_colours(images, np.random.default_rng(0))
    for before, after in zip(images.mean(1), changed.mean(1), strict=True):
        assert torch.corrcoef(torch.stack([before.flatten(), after.flatten()]))[0, 1] > 0.99
    assert (changed - images).abs().mean() > 0.02


def test_tags_are_read_for_scores(tmp_path):
    (tmp_path / "image_tags.json").write_text(json.dumps({"a": [0, 19], "b": [3]}))
    assert read_tags(tmp_path, ["b", "a"]).nonzero().tolist() == [[0, 3], [1, 0], [1, 19]]


def test_teacher_is_lite0(pair, photos):
    _, teacher = pair
    images = to_tensor([centre_crop(photo, 224) for photo in photos]) * 2 - 1
    targets = teacher(images)
    fine = pretrained_backbone("lite0", output_stride=16).eval()
    coarse = pretrained_backbone("lite0", output_stride=32).eval()
    with torch.no_grad():
        last = fine(images).last.flatten(2).mT
        logits = teacher.classifier(coarse(images).last.mean(dim=(2, 3)))
    assert torch.allclose(F.relu6(targets.last), last, atol=1e-4)
    assert torch.allclose(targets.log_probs, logits.log_softmax(1), atol=1e-4)


def test_only_transformer_and_heads_are_trained(pair):
    student, teacher = pair
    groups = parameter_groups(student, 0.05)
    own = {id(p) for group in groups for p in group["params"]}
    stem = {id(p) for p in student.backbone.net.patch_embed.backbone.parameters()}
    assert own == {id(p) for p in student.parameters()} - stem
    assert not own & {id(p) for p in teacher.parameters()}
    assert all(p.ndim > 1 for p in groups[0]["params"])


def test_axes_keep_distances_of_centred_logits(pair):
    _, teacher = pair
    a, b = torch.rand(2, 5, 1280)
    logits = teacher.classifier(a) - teacher.classifier(b)
    centred = (logits - logits.mean(1, keepdim=True)).square().sum(1)
    along = ((a - b) @ class_axes(teacher.classifier, 1000)).square().sum(1)
    assert torch.allclose(along, centred, rtol=1e-3)
    fewer = ((a - b) @ class_axes(teacher.classifier)).square().sum(1)
    assert (fewer < along).all()


def test_losses_are_zero_for_the_truth_and_for_what_the_activation_hides(pair):
    target = torch.randn(2, 9, 1280) * 3
    axes = class_axes(pair[1].classifier)
    right = map_losses(target.clamp(max=6), target, axes)
    lower = map_losses(torch.where(target < FLOOR, target - 5, target).clamp(max=6), target, axes)
    wrong = map_losses(-target, target, axes)
    for name in ("cosine", "classes", "error"):
        assert right[name] == pytest.approx(0, abs=1e-5)
        assert lower[name] == pytest.approx(0, abs=1e-5)
        assert wrong[name] > 0.5


def test_foretold_probabilities_that_are_lite0s_cost_nothing(pair, photos):
    student, teacher = pair
    images = to_tensor([centre_crop(photo, 64) for photo in photos]) * 2 - 1
    targets = teacher(images)
    found = losses(student, targets)
    assert set(found) == {"cosine", "classes", "error", "token", "mean"}
    with torch.no_grad():
        _, logits = student(targets.stem.clone())
    truth = targets.log_probs.exp()
    expected = (truth * (targets.log_probs - logits.log_softmax(1))).sum(1).mean()
    assert found["token"].item() == pytest.approx(expected.item(), rel=1e-4)


def test_learning_rate_rises_and_falls():
    rates = [learning_rate(p, 1.0) for p in np.linspace(0, 1, 201)]
    assert rates[0] == 0
    assert max(rates) == pytest.approx(1, abs=1e-3)
    assert int(np.argmax(rates)) == 6
    assert rates[-1] == pytest.approx(0, abs=1e-9)


def test_a_run_goes_on_where_it_stopped(tmp_path, photos):
    def settings(name):
        return PhotoPretrain(FOLDER, steps=40, batch=2, side=32, half=False, state=tmp_path / name)

    whole = Run(settings("whole.pth"))
    for _ in range(4):
        whole.update(photos)
    half = Run(settings("half.pth"))
    for _ in range(2):
        half.update(photos)
    half.save()
    rest = Run(settings("half.pth"))
    assert (rest.step, rest.crops) == (2, 4)
    for _ in range(2):
        rest.update(photos)
    for a, b in zip(whole.student.parameters(), rest.student.parameters(), strict=True):
        assert torch.equal(a, b)


def test_what_is_packed_is_what_was_trained_and_comes_back(pair):
    student, _ = pair
    state = tensors(student)
    assert not [name for name in state if name.startswith(STEM_PREFIX)]
    assert {value.dtype for value in state.values()} == {torch.float16}
    other, _ = build_pair()
    load_tensors(other, state)
    for name, value in other.state_dict().items():
        assert torch.allclose(value.float(), student.state_dict()[name].float(), atol=1e-2), name
    assert torch.equal(other.translate.weight, student.translate.weight.half().float())


def test_another_round_begins_with_packed_tensors_and_says_which(pair, tmp_path):
    state = tensors(pair[0])
    file = tmp_path / "earlier.safetensors"
    file.write_bytes(safetensors.torch.save(state))
    again = Run(PhotoPretrain(FOLDER, steps=4, start=file, state=tmp_path / "again.pth"))
    assert again.step == 0
    assert again.started_from == hashlib.sha256(file.read_bytes()).hexdigest()
    for name, value in tensors(again.student).items():
        assert torch.equal(value, state[name]), name
    again.save()
    assert Run(again.settings).started_from == again.started_from


def test_probe_finds_what_is_there_and_nothing_in_noise():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(400, 10, generator=generator)
    tags = (x[:, :3] > 0.5).float()
    assert probe(x[:200], tags[:200], x[200:], tags[200:]) > 0.98
    noise = torch.randn(400, 10, generator=generator)
    assert probe(noise[:200], tags[:200], noise[200:], tags[200:]) < 0.5
