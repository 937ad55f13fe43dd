"""ASDT's teacher B and the fused inference, from logits to labels."""

import re
from dataclasses import replace

import pytest
import torch

from wsss_lab.methods.asdt.config import PRESETS
from wsss_lab.methods.asdt.labels import teacher_b_label
from wsss_lab.methods.asdt.losses import fused_probs
from wsss_lab.methods.asdt.method import ASDT
from wsss_lab.methods.asdt.values import CRFS
from wsss_lab.models.backbones import build_backbone

CONFIG = PRESETS["voc-released"]


def load(golden):
    arrays = golden("asdt")("teacher2_and_inference.npz")
    cases = {}
    for letter in sorted({name.split("_")[0] for name in arrays}):
        case = {k[2:]: torch.from_numpy(v) for k, v in arrays.items() if k.startswith(letter)}
        case["image"] = case["image"].permute(2, 0, 1)[None]
        cases[letter] = case
    assert cases
    return cases


def nobody(logits):
    """An empty list of classes: the released teacher B does not read it."""
    b = len(logits)
    return torch.zeros(b, 1, dtype=torch.long), torch.zeros(b, 1, dtype=torch.bool)


@pytest.mark.filterwarnings("ignore:for .*num_batches_tracked")
def test_asdt_checkpoint_names(golden):
    """Every tensor of the released network finds its place, and none is missed."""
    arrays = golden("asdt")("network.npz")
    shapes = zip(arrays["names"], arrays["shapes"], strict=True)
    sizes = {str(name): [int(n) for n in re.findall(r"\d+", str(shape))] for name, shape in shapes}
    state = {name: torch.empty(size, device="meta") for name, size in sizes.items()}
    last = max(name for name in state if name.endswith("weight") and len(sizes[name]) == 4)
    classes = next(size[0] for name, size in sizes.items() if name.startswith("fc8.weight"))
    with torch.device("meta"):
        method = ASDT(build_backbone("wrn38"), classes, CONFIG)
    method.load_released(state)
    del state[last]
    with pytest.raises(ValueError, match="does not fit"):
        method.load_released(state)


def test_asdt_teacher_b_label(golden):
    for letter, case in load(golden).items():
        found = teacher_b_label(case["image"], case["logits"], *nobody(case["logits"]), CONFIG)
        assert torch.equal(found.label[0], case["label"].long()), letter
        close = (found.probs[0] - case["crf"]).abs() <= 1e-5
        assert close.float().mean() > 0.999


def test_asdt_teacher_b_among_all_classes(golden):
    """With every class present, choosing among the tags changes nothing."""
    config = replace(CONFIG, quirks=replace(CONFIG.quirks, absent_classes=False))
    for case in load(golden).values():
        k = case["logits"].shape[1] - 1
        index, present = torch.arange(k)[None], torch.ones(1, k, dtype=torch.bool)
        found = teacher_b_label(case["image"], case["logits"], index, present, config)
        assert torch.equal(found.label[0], case["label"].long())


def test_asdt_fused_inference(golden):
    for letter, case in load(golden).items():
        size = tuple(case["image"].shape[-2:])
        fused = fused_probs(case["logits"], case["logits_student"], size)
        torch.testing.assert_close(fused[0], case["fused"], atol=1e-6, rtol=0)
        label = CRFS["seg"](case["image"], fused).argmax(1)
        assert torch.equal(label[0], case["fused_crf_label"].long()), letter
