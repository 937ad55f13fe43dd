"""Random crop with zero padding against TSCD's released code, drawing order included."""

import random

import numpy as np
import pytest
import torch
from released_crops import tscd_box, tscd_offsets

from wsss_lab.data.crops import Window, cut


def window_of(image, side, seed):
    python, legacy = random.Random(seed), np.random.RandomState(seed)
    height, width = image.shape[:2]
    return Window(height, width, *tscd_offsets(height, width, side, python, legacy), side)


@pytest.fixture
def cases(golden):
    """Image, crop, recorded box, and the window that we draw."""
    recorded = golden("tscd")("random_crop.npz")
    cases = [
        (recorded[f"image{i}"], recorded[f"crop{i}"], tuple(recorded[f"box{i}"].tolist()))
        for i in range(sum(key.startswith("image") for key in recorded))
    ]

    def windows(first_seed):  # seeds are counted up; the authors' recording starts at 0
        return [window_of(c[0], len(c[1]), first_seed + i) for i, c in enumerate(cases)]

    boxes = [case[2] for case in cases]
    found = (w for w in map(windows, range(1000)) if [tscd_box(v) for v in w] == boxes)
    return list(zip(cases, next(found), strict=True))


def test_tscd_crop(cases):
    for (image, expected, _), window in cases:
        found = cut(torch.from_numpy(image).permute(2, 0, 1), window)
        np.testing.assert_array_equal(found.permute(1, 2, 0), expected)


def test_tscd_box_within_the_crop(cases):
    for (_, expected, box), window in cases:
        assert window.box == tuple(min(end, len(expected)) for end in box)
