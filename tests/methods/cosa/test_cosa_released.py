"""Checkpoints of CoSA's released code."""

import json
from pathlib import Path

import pytest
import torch
from tiny_cosa import make

from wsss_lab.methods.cosa.config import PRESETS
from wsss_lab.methods.cosa.network import CoSANetwork, cosa_backbone
from wsss_lab.methods.cosa.released import load_released

KEYS = Path(__file__).parents[2] / "models" / "state_keys" / "cosa.json"


def test_released_checkpoint_fits_strictly():
    """All 157 names and shapes of the released VOC file, without its 370 MB of numbers."""
    shapes = json.loads(KEYS.read_text())
    with torch.device("meta"):
        state = {name: torch.empty(shape) for name, shape in shapes.items()}
        classes = shapes["classifier.weight"][0]
        network = CoSANetwork(cosa_backbone(PRESETS["voc-released"], "random"), classes)
        load_released(network, state)
        broken = {name: value for name, value in state.items() if name != "aux_classifier.weight"}
        with pytest.raises(ValueError, match="missing"):
            load_released(network, broken)
        with pytest.raises(ValueError, match="not known"):
            load_released(network, state | {"extra": torch.empty(1)})


def test_released_checkpoint_reaches_both_networks():
    method = make()
    other = make(seed=9)
    names = {
        "backbone.net.": "encoder.",
        "seg_head.conv1": "decoder.conv6",
        "seg_head.conv2": "decoder.conv7",
        "seg_head.classify": "decoder.conv8",
        "tag_head.linear": "classifier",
        "aux_head.linear": "aux_classifier",
    }
    state = {}
    for name, value in other.online.state_dict().items():
        old = next(name.replace(new, old, 1) for new, old in names.items() if name.startswith(new))
        state[old] = value[:, :, None, None] if old.endswith("classifier.weight") else value
    method.load_released(state)
    for name, value in other.online.state_dict().items():
        assert torch.equal(method.online.state_dict()[name], value)
        assert torch.equal(method.assignment.network.state_dict()[name], value)
