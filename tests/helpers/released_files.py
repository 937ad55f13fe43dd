"""Files named and shaped as the authors' codes write them, from tiny networks of this library."""

import dataclasses
import functools
import json
import re
from pathlib import Path

import torch
from tiny_recipes import recipe_of

from wsss_lab.data.config import DataConfig
from wsss_lab.methods.asdt import config as asdt_config
from wsss_lab.models import keymaps
from wsss_lab.models.backbones import build_backbone
from wsss_lab.runs.scoring import TestConfig

KEYS = Path(__file__).parent.parent / "models" / "state_keys"
_WRN = {new: old for old, new in keymaps._WRN_LAYERS.items()}
RULES = {
    "cosa": [
        (r"online\.backbone\.net\.(.+)", r"encoder.\1"),
        (r"online\.seg_head\.conv1\.(.+)", r"decoder.conv6.\1"),
        (r"online\.seg_head\.conv2\.(.+)", r"decoder.conv7.\1"),
        (r"online\.seg_head\.classify\.(.+)", r"decoder.conv8.\1"),
        (r"online\.tag_head\.linear\.(.+)", r"classifier.\1"),
        (r"online\.aux_head\.linear\.(.+)", r"aux_classifier.\1"),
    ],
    "acr": [
        (r"backbone\.net\.(.+)", r"pretrained.model.\1"),
        (r"head\.linear\.(.+)", r"cls_head.\1"),
    ],
    "tscd": [
        (r"network\.backbone\.net\.patch_embed\.(.+)", r"encoder.patch_embed1.\1"),
        (
            r"network\.backbone\.net\.stages\.(\d)\.downsample\.(.+)",
            lambda m: f"encoder.patch_embed{int(m[1]) + 1}.{m[2]}",
        ),
        (
            r"network\.backbone\.net\.stages\.(\d)\.blocks\.(\d+)\.mlp\.dwconv\.(.+)",
            lambda m: f"encoder.block{int(m[1]) + 1}.{m[2]}.mlp.dwconv.dwconv.{m[3]}",
        ),
        (
            r"network\.backbone\.net\.stages\.(\d)\.blocks\.(.+)",
            lambda m: f"encoder.block{int(m[1]) + 1}.{m[2]}",
        ),
        (
            r"network\.backbone\.net\.stages\.(\d)\.norm\.(.+)",
            lambda m: f"encoder.norm{int(m[1]) + 1}.{m[2]}",
        ),
        (
            r"network\.seg_head\.lateral\.(\d)\.(.+)",
            lambda m: f"decoder.linear_c{int(m[1]) + 1}.proj.{m[2]}",
        ),
        (r"network\.seg_head\.fuse\.(.+)", r"decoder.linear_fuse.conv.\1"),
        (r"network\.seg_head\.norm\.(.+)", r"decoder.linear_fuse.bn.\1"),
        (r"network\.seg_head\.classify\.(.+)", r"decoder.linear_pred.\1"),
        (r"network\.tag_head\.linear\.(.+)", r"classifier.\1"),
        (r"network\.affinity_head\.(.+)", r"attn_proj.\1"),
    ],
    "asdt": [
        (r"network\.backbone\.net\.stem\.(.+)", r"conv1a.\1"),
        (r"network\.backbone\.net\.norm\.(.+)", r"bn7.\1"),
        (
            r"network\.backbone\.net\.stages\.(\d)\.(\d+)\.(.+)\.([a-z_]+)",
            lambda m: f"b{int(m[1]) + 2}{'' if m[2] == '0' else '_' + m[2]}.{_WRN[m[3]]}.{m[4]}",
        ),
        (r"network\.tag_head\.linear\.(.+)", r"fc8.\1"),
        (r"network\.seg_head\.conv([12])\.(.+)", r"fc8_seg_conv\1.\2"),
        (
            r"network\.student_head\.conv([12])\.(.+)",
            lambda m: f"fc8_seg_conv{int(m[1]) + 2}.{m[2]}",
        ),
    ],
}
"""Our names -> theirs, by hand: the tables of `keymaps`, walked backwards."""


def tiny_presets(name, monkeypatch):
    """Make the released VOC preset a tiny network; everything else stays."""
    recipe = recipe_of(name)
    config = recipe.presets["toy"]
    if name == "asdt":
        small = functools.partial(build_backbone, width_factor=1 / 16)
        monkeypatch.setattr("wsss_lab.recipes.asdt.build_backbone", small)
        method = dataclasses.replace(asdt_config.PRESETS["voc-released"], hidden=32)
        config = dataclasses.replace(config, method=method, weights="random")
    if name == "cosa":  # the released files are of a transformer
        method = dataclasses.replace(config.method, backbone="toy_vit", aux_level=-2)
        config = dataclasses.replace(config, method=method)
    test = TestConfig(cam_threshold=0.5)
    config = dataclasses.replace(config, data=DataConfig(name="voc"), test=test)
    monkeypatch.setitem(recipe.presets, "voc-released", config)
    return config


def released_state(name, config, classes=20):
    """A tiny network's tensors under the names of the released code, and the network."""
    torch.manual_seed(3)
    method = recipe_of(name).build(config, classes, False)
    state = {}
    for key, value in method.state_dict().items():
        for pattern, new in RULES[name]:
            if match := re.fullmatch(pattern, key):
                theirs = new(match) if callable(new) else match.expand(new)
                convolution = theirs.endswith("lassifier.weight") or theirs == "fc8.weight"
                state[theirs] = value[:, :, None, None] if convolution else value
                break
    if name == "cosa":
        method.assignment.network.load_state_dict(method.online.state_dict())
    return state, method.eval()


def recorded_shapes(name, variant=None):
    """Tensors without storage, in the shapes of a real released checkpoint."""
    shapes = json.loads((KEYS / f"{name}.json").read_text())
    shapes = shapes[variant] if variant else shapes
    return {key: torch.empty(shape, device="meta") for key, shape in shapes.items()}
