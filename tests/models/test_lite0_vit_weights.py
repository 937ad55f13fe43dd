"""The packaged transformer of lite0_vit: what is in the file, and that it still foretells Lite0."""

import json

import pytest
import safetensors.torch
import torch
import torch.nn.functional as F

from wsss_lab.data.open_photos import open_photos
from wsss_lab.models.backbones import build_backbone
from wsss_lab.models.base import count_parameters
from wsss_lab.models.lite0_vit import HEADS_PREFIX, PACKAGED, STEM_PREFIX
from wsss_lab.models.weights import pretrained_backbone
from wsss_lab.studies.photos.foretell import Foreteller, build_pair
from wsss_lab.studies.photos.score import load_tensors


@pytest.fixture(scope="module")
def images():
    """Middle squares of the packaged photos, in [-1, 1]; none was in pre-training."""
    squares = []
    for photo in open_photos():
        image = photo.image()[None]
        s = min(image.shape[2:])
        y, x = (image.shape[2] - s) // 2, (image.shape[3] - s) // 2
        square = image[:, :, y : y + s, x : x + s]
        squares.append(F.interpolate(square, (224, 224), mode="bicubic", antialias=True))
    return torch.cat(squares).clamp(0, 1) * 2 - 1


@torch.no_grad()
def agreement(student: Foreteller, teacher, images):
    """Share of photos whose class by Lite0 is among the token's first five; cosine of maps."""
    targets = teacher(images)
    told, logits = student.eval()(targets.stem.clone())
    top = targets.log_probs.argmax(1)
    among = (logits.topk(5).indices == top[:, None]).any(1).float().mean().item()
    return among, F.cosine_similarity(F.relu6(told), F.relu6(targets.last), dim=2).mean().item()


def test_file_holds_only_what_was_trained_and_is_small():
    state = safetensors.torch.load_file(PACKAGED)
    assert PACKAGED.stat().st_size <= 8_000_000
    assert {value.dtype for value in state.values()} == {torch.float16}
    assert not any(name.startswith(STEM_PREFIX) for name in state)
    own = build_backbone("lite0_vit").net.state_dict()
    kept = {name for name in state if not name.startswith(HEADS_PREFIX)}
    assert kept == {name for name in own if not name.startswith(STEM_PREFIX)}


def test_card_describes_the_file():
    card = json.loads(PACKAGED.with_suffix(".json").read_text())
    state = safetensors.torch.load_file(PACKAGED)
    assert card["parameters_in_this_file"] == sum(value.numel() for value in state.values())
    assert card["parameters"] == count_parameters(build_backbone("lite0_vit"))
    assert {"data", "terms", "recipe", "limits", "scores", "training"} < set(card)
    assert "/" not in card["config"]["photos"]


@pytest.mark.parametrize("source", ["imagenet", "pip:efficientnet-lite0"])
def test_backbone_gets_the_stem_of_the_package_and_the_packaged_blocks(source):
    backbone = pretrained_backbone("lite0_vit", source)
    cnn = pretrained_backbone("lite0")
    stem = backbone.net.patch_embed.backbone
    assert torch.equal(stem.blocks[4][2].conv_pwl.weight, cnn.net.blocks[4][2].conv_pwl.weight)
    packed = safetensors.torch.load_file(PACKAGED)["blocks.5.mlp.fc2.weight"]
    assert torch.equal(backbone.net.blocks[5].mlp.fc2.weight, packed.float())
    assert backbone.weight_tag == "pip:efficientnet-lite0"


def test_other_shapes_are_refused():
    with pytest.raises(ValueError, match=r"packaged weights lite0_vit.safetensors does not fit"):
        pretrained_backbone("lite0_vit", depth=7)


def test_it_foretells_lite0_on_photos_it_has_never_seen(images):
    torch.manual_seed(0)
    student, teacher = build_pair()
    before = agreement(student, teacher, images)
    load_tensors(student, safetensors.torch.load_file(PACKAGED))
    after = agreement(student, teacher, images)
    assert after[0] >= before[0] + 0.4
    assert after[1] >= before[1] + 0.2
