"""The label of ASDT's teacher A, pixel for pixel, image by image and as one batch."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from wsss_lab.methods.asdt.config import PRESETS
from wsss_lab.methods.asdt.labels import teacher_a_label

CONFIG = PRESETS["voc-released"]


def load(golden):
    arrays = golden("asdt")("teacher1_cam_refine.npz")
    cases = {}
    for letter in sorted({name.split("_")[0] for name in arrays}):
        case = {k[2:]: torch.from_numpy(v) for k, v in arrays.items() if k.startswith(letter)}
        index = case["label"].nonzero()[:, 0]
        case["index"], case["cams"] = index, case["norm_cam"][index]
        case["image"] = case["image"].permute(2, 0, 1)
        cases[letter] = case
    assert cases
    return cases


def test_asdt_teacher_a_label(golden):
    for letter, case in load(golden).items():
        index = case["index"][None]
        present = torch.ones_like(index, dtype=torch.bool)
        found = teacher_a_label(case["image"][None], case["cams"][None], index, present, CONFIG)
        assert torch.equal(found.label[0], case["seg_label"].long()), letter
        soft = torch.cat([case["crf_a32"][:1], case["crf_a4"][1:]])
        torch.testing.assert_close(found.probs[0], soft / soft.sum(0), atol=2e-4, rtol=1e-3)


@pytest.mark.parametrize("extra", [0, 3])
def test_asdt_teacher_a_batch(golden, extra):
    """Images with different classes, cut to one size, with padding channels."""
    cases = list(load(golden).values())
    h = min(case["image"].shape[1] for case in cases)
    w = min(case["image"].shape[2] for case in cases)
    m = max(len(case["index"]) for case in cases) + extra
    images = torch.stack([case["image"][:, :h, :w] for case in cases])
    cams = torch.stack(
        [F.pad(c["cams"][:, :h, :w], (0, 0, 0, 0, 0, m - len(c["index"]))) for c in cases]
    )
    index = torch.stack([F.pad(case["index"], (0, m - len(case["index"]))) for case in cases])
    sizes = torch.tensor([len(case["index"]) for case in cases])
    present = torch.arange(m) < sizes[:, None]
    for config in (CONFIG, replace(CONFIG, background=False)):
        batch = teacher_a_label(images, cams, index, present, config)
        for i, count in enumerate(sizes):
            alone = teacher_a_label(
                images[i : i + 1],
                cams[i : i + 1, :count],
                index[i : i + 1, :count],
                present[i : i + 1, :count],
                config,
            )
            assert torch.equal(batch.label[i], alone.label[0])
            some = alone.probs.shape[1]
            torch.testing.assert_close(batch.probs[i, :some], alone.probs[0], atol=1e-6, rtol=0)
            assert not batch.probs[i, some:].any()
