"""Imitation of toy_cnn: pasted rectangles, the loss, what is trained."""

import pytest
import torch

from wsss_lab.data.toy import ToyWorld
from wsss_lab.models.backbones import build_backbone
from wsss_lab.models.toynets import toy_mit2, toy_vit2
from wsss_lab.models.weights import load_backbone_weights
from wsss_lab.studies.toy import pretrain
from wsss_lab.studies.toy.imitation import LEVELS, LevelImitation, paste_rectangles, unexplained


def test_a_rectangle_of_the_other_image_and_nothing_else_changes():
    torch.manual_seed(0)
    pasted = paste_rectangles(torch.zeros(40, 3, 48, 36), torch.ones(40, 3, 48, 36))
    assert (pasted == pasted[:, :1]).all()
    rows, columns = pasted[:, 0].amax(2), pasted[:, 0].amax(1)
    torch.testing.assert_close(pasted[:, 0], rows[:, :, None] * columns[:, None, :])
    for line, side in ((rows, 48), (columns, 36)):
        assert ((line.diff() != 0).sum(1) <= 2).all()
        length = line.sum(1)
        assert (length >= side / 3 - 1).all()
        assert (length <= 2 * side / 3 + 1).all()
        assert len(length.unique()) > 5


def test_unexplained_is_1_for_the_mean_and_0_for_the_truth():
    target = 5 + 3 * torch.randn(8, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    standard = (target - target.mean((0, 2, 3), True)) / target.std((0, 2, 3), False, True)
    assert unexplained(torch.zeros_like(target), target).item() == pytest.approx(1, abs=1e-4)
    assert unexplained(standard, target).item() == pytest.approx(0, abs=1e-4)
    half = standard.clone()
    half[:, :2] = 0
    assert unexplained(half, target).item() == pytest.approx(0.5, abs=1e-3)


@pytest.mark.parametrize("build", [toy_mit2, toy_vit2])
def test_the_loss_falls_and_the_teacher_stays(build):
    torch.manual_seed(0)
    method = LevelImitation(build(), 10)
    teacher = method._teacher[0]
    before = {k: v.clone() for k, v in teacher.state_dict().items()}
    assert not any(p is q for p in method.parameters() for q in teacher.parameters())
    groups = method.param_groups(1e-3, 1e-3, 0.05)
    assert {id(p) for group in groups for p in group["params"]} == {
        id(p) for p in method.parameters()
    }
    optimiser = torch.optim.AdamW(groups)
    batch = {"images": torch.rand(6, 3, 64, 64), "tags": torch.eye(10)[:6]}
    losses = []
    for step in range(12):
        torch.manual_seed(1)  # the same rectangles in every step
        loss = method.training_step(batch, step).loss
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]
    assert all(torch.equal(v, before[k]) for k, v in teacher.state_dict().items())


def test_levels_agree_in_stride():
    teacher = build_backbone("toy_cnn")
    builders = {"toy_mit2": toy_mit2, "toy_vit2": toy_vit2}
    for name, pairs in LEVELS.items():
        student = builders[name]() if name in builders else build_backbone(name)
        assert all(student.strides[own] == teacher.strides[other] for own, other in pairs)
        assert pairs[-1] == (len(student.widths) - 1, 2)


def test_other_backbones_are_refused():
    with pytest.raises(ValueError, match=r"toy_mit2.*got toy_cnn"):
        LevelImitation(build_backbone("toy_cnn"), 10)


@pytest.mark.parametrize("build", [toy_mit2, toy_vit2])
def test_the_convolutions_start_from_toy_cnn(build):
    backbone = build()
    pretrain.start_stem_from_cnn(backbone)
    cnn = load_backbone_weights(build_backbone("toy_cnn"), "toy").net
    net = backbone.net
    if build is toy_vit2:
        pairs = zip(net.patch_embed.backbone, (cnn.stem, cnn.stage1, cnn.stage2), strict=True)
    else:
        own = (net.patch_embed.stem, net.patch_embed.block, net.stages[1].downsample.block)
        pairs = zip(own, (cnn.stem, cnn.stage1[0], cnn.stage2[0]), strict=True)
    for ours, trained in pairs:
        for name, value in ours.state_dict().items():
            assert torch.equal(value, trained.state_dict()[name]), name


def left_unexplained(student, images):
    """Share of toy_cnn's last map that a linear fit on half of the images misses on the rest."""
    teacher = load_backbone_weights(build_backbone("toy_cnn"), "toy").eval()
    with torch.no_grad():
        target = teacher(teacher.normalize(images)).last
        own = student.eval()(student.normalize(images)).last
    target = (target - target.mean((0, 2, 3), True)) / target.std((0, 2, 3), keepdim=True)
    own, target = (x.permute(0, 2, 3, 1).flatten(0, 2) for x in (own, target))
    own = torch.cat([own, torch.ones(len(own), 1)], 1)
    half = len(own) // 2
    fit = torch.linalg.lstsq(own[:half], target[:half]).solution
    return (own[half:] @ fit - target[half:]).square().mean().item()


@pytest.mark.parametrize(("build", "most"), [(toy_mit2, 0.35), (toy_vit2, 0.2)])
def test_packaged_weights_show_what_toy_cnn_shows_in_scenes_they_never_saw(build, most):
    images = ToyWorld("train", 40).tensors(workers=1)["image"].float() / 255
    trained = load_backbone_weights(build(), "toy")
    assert trained.weight_tag == "toy"
    assert left_unexplained(trained, images) < most
    torch.manual_seed(0)
    assert left_unexplained(build(), images) > 0.7
