"""TSCD: encoder, classifier, decoder and attention logits against recorded outputs."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from weight_fill import checksum, fill

from wsss_lab.methods.tscd.keymap import KEYMAP as TSCD_KEYMAP
from wsss_lab.models import keymaps
from wsss_lab.models.attention import pool_queries, record_attention
from wsss_lab.models.backbones import build_backbone
from wsss_lab.models.heads import SegFormerHead, TagHead

KEYS = Path(__file__).parent.parent / "models" / "state_keys"


class Network(nn.Module):
    """The parts of TSCD's network, put together as the released code does."""

    def __init__(self, backbone, parts):
        super().__init__()
        self.backbone = backbone
        classify = parts["seg_head"]["classify.weight"]
        self.seg_head = SegFormerHead(backbone.widths, *classify.shape[:2])
        self.tag_head = TagHead(*reversed(parts["tag_head"]["linear.weight"].shape), pool="gmp")
        self.affinity_head = nn.Conv2d(parts["affinity_head"]["weight"].shape[1], 1, 1)
        for name, state in parts.items():
            result = getattr(self, name).load_state_dict(state, strict=False)
            assert not result.unexpected_keys
            assert all(key.endswith("num_batches_tracked") for key in result.missing_keys)

    def forward(self, image):
        with record_attention(self.backbone, what="logits") as record:
            features = self.backbone(image)
        affinity = self.affinity_head(torch.cat(record.maps[-2:], dim=1)).sigmoid()[:, 0]
        return {
            "features": features,
            "logits": record.maps,
            "cls": self.tag_head(features.last),
            "seg": self.seg_head(features.pyramid),
            "attn_pred": affinity,
            "cam": self.tag_head.cam(features.last),
        }


def mit_b1_network():
    shapes = json.loads((KEYS / "tscd.json").read_text())
    state = fill(shapes)
    network = Network(build_backbone("mit_b1"), keymaps.split_checkpoint(state, TSCD_KEYMAP)).eval()
    return state, network


def tiny_network(arrays):
    state = {
        key.removeprefix("w."): torch.from_numpy(value)
        for key, value in arrays.items()
        if key.startswith("w.")
    }
    stages = range(1, 5)

    def shape(stage, key):
        return state[f"encoder.block{stage}.0.{key}"].shape

    depths = [
        1 + max(int(k.split(".")[2]) for k in state if k.startswith(f"encoder.block{s}."))
        for s in stages
    ]
    reductions = [
        shape(s, "attn.sr.weight")[-1] if f"encoder.block{s}.0.attn.sr.weight" in state else 1
        for s in stages
    ]
    backbone = build_backbone(
        "mit_b1",
        embed_dims=[shape(s, "norm1.weight")[0] for s in stages],
        depths=depths,
        num_heads=(1, 2, 5, 8),  # MiT's; not visible in the shapes
        sr_ratios=reductions,
        mlp_ratios=[shape(s, "mlp.fc1.weight")[0] / shape(s, "mlp.fc1.weight")[1] for s in stages],
        drop_path=0.0,
    )
    return state, Network(backbone, keymaps.split_checkpoint(state, TSCD_KEYMAP)).eval()


def compare(outputs, arrays, atol):
    for key in ("cls", "seg", "attn_pred", "cam"):
        np.testing.assert_allclose(
            outputs[key].numpy(), arrays[key], atol=atol, rtol=1e-4, err_msg=key
        )
    for i, feature_map in enumerate(outputs["features"].pyramid, 1):
        if f"f{i}" in arrays:
            np.testing.assert_allclose(feature_map.numpy(), arrays[f"f{i}"], atol=atol, rtol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("name", ["tscd_b1_forward.npz", "tscd_b1_forward_odd.npz"])
def test_tscd_b1(golden, name):
    arrays = golden("tscd")(name)
    state, network = mit_b1_network()
    if "fill_check_f64" in arrays:
        np.testing.assert_allclose(checksum(state), arrays["fill_check_f64"], rtol=1e-9)
    outputs = network(torch.from_numpy(arrays["x"]))
    compare(outputs, arrays, atol=3e-5)


@torch.no_grad()
def test_tscd_raw_attention(golden):
    arrays = golden("tscd")("tscd_b1_forward.npz")
    outputs = mit_b1_network()[1](torch.from_numpy(arrays["x"]))
    logits, pyramid = outputs["logits"], outputs["features"].pyramid
    pooled = {
        "attn_raw_b1_0": pool_queries(logits[0], tuple(pyramid[0].shape[2:]), 8),
        "attn_raw_b3_1": pool_queries(logits[5], tuple(pyramid[2].shape[2:]), 2),
        "attn_raw_b4_0": logits[6],
        "attn_raw_b4_1": logits[7],
    }
    for key, value in pooled.items():
        np.testing.assert_allclose(value.numpy(), arrays[key], atol=1e-4, rtol=1e-5, err_msg=key)


@torch.no_grad()
def test_tscd_tiny(golden):
    arrays = golden("tscd")("tscd_tiny_forward.npz")
    state, network = tiny_network(arrays)
    rule = fill({key: tuple(value.shape) for key, value in state.items()})
    for key, value in state.items():
        np.testing.assert_array_equal(rule[key].numpy(), value.numpy(), err_msg=key)
    compare(network(torch.from_numpy(arrays["x"])), arrays, atol=1e-5)


@torch.no_grad()
def test_tscd_decoder(golden):
    arrays = golden("tscd")("decoder_small.npz")
    state = {
        f"decoder.{key.removeprefix('w.')}": torch.from_numpy(np.asarray(value))
        for key, value in arrays.items()
        if key.startswith("w.")
    }
    part = keymaps.split_checkpoint(state, TSCD_KEYMAP)["seg_head"]
    maps = [torch.from_numpy(arrays[f"f{i}"]) for i in range(1, 5)]
    classes, hidden = part["classify.weight"].shape[:2]
    head = SegFormerHead([m.shape[1] for m in maps], classes, hidden, dropout=0.0)
    head.load_state_dict(part)
    np.testing.assert_allclose(head.eval()(maps).numpy(), arrays["out_eval"], atol=1e-5)
    np.testing.assert_allclose(head.train()(maps).numpy(), arrays["out_train_nodrop"], atol=1e-5)
    np.testing.assert_allclose(head.norm.running_mean, arrays["running_mean_after"], atol=1e-6)
    np.testing.assert_allclose(head.norm.running_var, arrays["running_var_after"], atol=1e-6)
