"""Every key of the released checkpoints finds its place, with its shape."""

import json
import re
from pathlib import Path

import pytest
import torch
from torch import nn

from wsss_lab.methods.asdt import keymap as asdt_keymap
from wsss_lab.methods.cosa.keymap import KEYMAP
from wsss_lab.methods.tscd.keymap import KEYMAP as TSCD_KEYMAP
from wsss_lab.models import keymaps
from wsss_lab.models.backbones import build_backbone
from wsss_lab.models.heads import DilatedHead, LargeFOV, SegFormerHead, TagHead

KEYS = Path(__file__).parent / "state_keys"


@pytest.fixture(autouse=True)
def _on_meta():
    with torch.device("meta"):
        yield


def recorded(method, variant=None):
    shapes = json.loads((KEYS / f"{method}.json").read_text())
    shapes = shapes[variant] if variant else shapes
    return {key: torch.empty(shape) for key, shape in shapes.items()}


def load(modules, parts):
    assert set(modules) == set(parts)
    for name, module in modules.items():
        module.load_state_dict(parts[name], strict=True)


@pytest.mark.parametrize("prefix", ["", "module."])
def test_tscd(prefix):
    state = {prefix + key: value for key, value in recorded("tscd").items()}
    backbone = build_backbone("mit_b1")
    modules = {
        "backbone": backbone,
        "seg_head": SegFormerHead(backbone.widths, 21),
        "tag_head": TagHead(backbone.width, 20, pool="gmp"),
        "affinity_head": nn.Conv2d(16, 1, 1),
    }
    parts = keymaps.split_checkpoint(state, TSCD_KEYMAP)
    load(modules, parts)
    assert sum(len(part) for part in parts.values()) == len(state)


def test_cosa():
    backbone = build_backbone("vit_b16", levels=(-3,))
    modules = {
        "backbone": backbone,
        "seg_head": LargeFOV(768, 21),
        "tag_head": TagHead(768, 20, pool="gmp"),
        "aux_head": TagHead(768, 20, pool="gmp"),
    }
    state = recorded("cosa")
    parts = keymaps.split_checkpoint(state, KEYMAP)
    load(modules, parts)
    assert sum(len(part) for part in parts.values()) == len(state) - 2  # the ImageNet classifier


def released_wrn38():
    """Keys of PSA's file from our own network, by walking the table backwards."""
    names = {"stem": "conv1a", "norm": "bn7"}
    layers = {new: old for old, new in keymaps._WRN_LAYERS.items()}
    state = {}
    for key, value in build_backbone("wrn38").net.state_dict().items():
        match = re.fullmatch(r"stages\.(\d)\.(\d+)\.(.+)\.([a-z_]+)", key)
        if match:
            block = f"b{int(match[1]) + 2}" + (f"_{match[2]}" if match[2] != "0" else "")
            state[f"{block}.{layers[match[3]]}.{match[4]}"] = value
        else:
            first, _, rest = key.partition(".")
            state[f"{names[first]}.{rest}"] = value
    return state


def test_asdt():
    state = released_wrn38()
    assert {
        "b2.conv_branch2a.weight",
        "b4_5.bn_branch2b1.weight",
        "b7.conv_branch2b2.weight",
    } <= set(state)
    heads = {"fc8.weight": (20, 4096, 1, 1)}
    for i, (out, width) in enumerate([(512, 4096), (21, 512), (512, 4096), (21, 512)], 1):
        heads[f"fc8_seg_conv{i}.weight"] = (out, width, 3, 3)
        heads[f"fc8_seg_conv{i}.bias"] = (out,)
    state |= {key: torch.empty(shape) for key, shape in heads.items()}
    modules = {
        "backbone": build_backbone("wrn38"),
        "tag_head": TagHead(4096, 20),
        "seg_head": DilatedHead(4096, 21),
        "student_head": DilatedHead(4096, 21),
    }
    load(modules, keymaps.split_checkpoint(state, asdt_keymap.KEYMAP))


def test_psa_weights():
    state = released_wrn38() | {"fc8.weight": torch.empty(20, 4096, 1, 1)}
    build_backbone("wrn38").net.load_state_dict(keymaps.rename(state, keymaps.WRN38))


def official_mit():
    prefix = "encoder."
    return {k.removeprefix(prefix): v for k, v in recorded("tscd").items() if k.startswith(prefix)}


def test_official_mit():
    state = official_mit() | {"head.weight": torch.empty(1000, 512), "head.bias": torch.empty(1000)}
    build_backbone("mit_b1").net.load_state_dict(keymaps.rename(state, keymaps.MIT))


def hub_mit():
    """Names of the hub's files from the official ones, by the description of both."""
    rules = [
        (r"patch_embed(\d)\.proj", r"encoder.patch_embeddings.\1.proj"),
        (r"patch_embed(\d)\.norm", r"encoder.patch_embeddings.\1.layer_norm"),
        (r"^norm(\d)", r"encoder.layer_norm.\1"),
        (r"block(\d)", r"encoder.block.\1"),
        (r"\.norm1\.", ".layer_norm_1."),
        (r"\.norm2\.", ".layer_norm_2."),
        (r"attn\.q\.", "attention.self.query."),
        (r"attn\.sr\.", "attention.self.sr."),
        (r"attn\.norm\.", "attention.self.layer_norm."),
        (r"attn\.proj\.", "attention.output.dense."),
        (r"mlp\.fc(\d)", r"mlp.dense\1"),
    ]
    state = {}
    for key, value in official_mit().items():
        for old, new in rules:
            key = re.sub(old, new, key)
        key = re.sub(
            r"(patch_embeddings|encoder\.layer_norm|block)\.(\d)",
            lambda m: f"{m[1]}.{int(m[2]) - 1}",
            key,
        )
        if ".attn.kv." in key:
            half = value.shape[0] // 2
            state[key.replace("attn.kv", "attention.self.key")] = value[:half]
            state[key.replace("attn.kv", "attention.self.value")] = value[half:]
        else:
            state[key] = value
    return {f"segformer.{key}": value for key, value in state.items()}


def test_hub_mit():
    state = hub_mit()
    assert len(state) == 192
    state |= {"classifier.weight": torch.empty(1000, 512), "classifier.bias": torch.empty(1000)}
    build_backbone("mit_b1").net.load_state_dict(keymaps.mit_from_hub(state))
    incomplete = {k: v for k, v in state.items() if "block.2.1.attention.self.value.bias" not in k}
    with pytest.raises(ValueError, match=r"not stages\.2\.blocks\.1\.attn\.v\.bias"):
        keymaps.mit_from_hub(incomplete)


def test_keys_and_values_are_joined_in_that_order():
    prefix = "encoder.block.0.0.attention.self."
    with torch.device("cpu"):
        state = {f"{prefix}key.bias": torch.zeros(2), f"{prefix}value.bias": torch.ones(2)}
        joined = keymaps.mit_from_hub(state)
    assert list(joined) == ["stages.0.blocks.0.attn.kv.bias"]
    assert joined["stages.0.blocks.0.attn.kv.bias"].tolist() == [0, 0, 1, 1]


def test_unknown_and_colliding_keys_are_errors():
    with pytest.raises(ValueError, match=r"1 of 2 keys.*surprise"):
        keymaps.rename({"head.bias": torch.empty(1), "surprise": torch.empty(1)}, keymaps.MIT)
    twice = {"module.classifier.weight": torch.empty(1), "classifier.weight": torch.empty(1)}
    with pytest.raises(ValueError, match="two keys"):
        keymaps.rename(twice, TSCD_KEYMAP)
