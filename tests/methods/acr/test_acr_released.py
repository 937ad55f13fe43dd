"""Every key of ACR's released checkpoints finds its place, with its shape."""

import json
from pathlib import Path

import pytest
import torch

from wsss_lab.methods.acr import released
from wsss_lab.methods.acr.keymap import KEYMAP
from wsss_lab.models.backbones import build_backbone
from wsss_lab.models.heads import TagHead
from wsss_lab.models.keymaps import split_checkpoint

KEYS = Path(__file__).parents[2] / "models" / "state_keys" / "acr.json"


@pytest.fixture(autouse=True)
def _on_meta():
    with torch.device("meta"):
        yield


def recorded(variant):
    shapes = json.loads(KEYS.read_text())[variant]
    return {key: torch.empty(shape) for key, shape in shapes.items()}


@pytest.mark.parametrize(
    ("variant", "name"),
    [("vitb_hybrid_nc20", "r50_vit_b16"), ("vitb_nc20", "vit_b16"), ("deit_nc20", "deit_b")],
)
def test_the_authors_networks(variant, name):
    state = recorded(variant)
    options = {}
    if name != "r50_vit_b16":  # ACR runs the plain transformers at 384 px positions or 224 px
        n = state["pretrained.model.pos_embed"].shape[1] - 1
        options["img_size"] = 16 * round(n**0.5)
    modules = {"backbone": build_backbone(name, **options), "tag_head": TagHead(768, 20, bias=True)}
    parts = split_checkpoint(state, KEYMAP)
    assert set(parts) == set(modules)
    for part, module in modules.items():
        module.load_state_dict(parts[part], strict=True)
    assert released.network_of(state) == ("vit_b16" if name == "deit_b" else name, options)


def test_the_distilled_variant_of_acr_is_refused():
    with pytest.raises(ValueError, match="dist_token"):
        split_checkpoint(recorded("deit_distilled_nc20"), KEYMAP)
