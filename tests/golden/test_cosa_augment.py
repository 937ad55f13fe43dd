"""Geometry, strong operations and blur against CoSA's released code, drawing order included."""

import random

import numpy as np
import pytest
import torch

from wsss_lab.data.crops import cosa_window, view, view_released
from wsss_lab.data.transform import STRONG_OPS, blur, draw_magnitude, strong, strong_released
from wsss_lab.models.backbones import build_backbone


@pytest.fixture
def recorded(golden):
    return golden("cosa")("augment.npz")


@pytest.fixture
def image(recorded):
    return torch.from_numpy(recorded["image"]).permute(2, 0, 1)


@pytest.mark.parametrize("name", STRONG_OPS)
def test_cosa_strong_operation(recorded, image, name):
    for magnitude, expected in enumerate(recorded[f"op_{name}"], 1):
        found = strong_released(image, name, magnitude).permute(1, 2, 0)
        np.testing.assert_array_equal(found, expected)
        ours = strong(image, name, magnitude).permute(1, 2, 0).int()
        assert (ours - torch.from_numpy(expected).int()).abs().max() <= 1


def test_cosa_operations_are_all_there(recorded):
    assert {key[3:] for key in recorded if key.startswith("op_")} == set(STRONG_OPS)


def test_cosa_magnitudes(recorded):
    prefix = "magnitude_draws_seed"
    (key,) = [key for key in recorded if key.startswith(prefix)]
    legacy = np.random.RandomState(int(key.removeprefix(prefix)))
    assert [draw_magnitude(legacy) for _ in recorded[key]] == recorded[key].tolist()


def test_cosa_geometry(recorded, image):
    (key,) = [key for key in recorded if key.startswith("geom_out_crop")]
    crops, boxes, sizes = recorded[key], recorded["geom_boxes"], recorded["geom_scaled_hw"]
    side = crops.shape[1]

    def windows(first_seed):  # both generators; seeds are counted up, the recording starts at 0
        seeds = range(first_seed, first_seed + len(crops))
        draws = ((random.Random(seed), np.random.RandomState(seed)) for seed in seeds)
        return [cosa_window(*image.shape[1:], side, *both) for both in draws]

    def fits(drawn):
        return all(w.box == tuple(b.tolist()) for w, b in zip(drawn, boxes, strict=True)) and all(
            (w.height, w.width) == tuple(s.tolist()) for w, s in zip(drawn, sizes, strict=True)
        )

    drawn = next(filter(fits, map(windows, range(1000))))
    for window, expected in zip(drawn, crops, strict=True):
        found = view_released(image, window).permute(1, 2, 0)
        np.testing.assert_array_equal(found, expected)
        ours = view(image, window).permute(1, 2, 0).int() - torch.from_numpy(expected).int()
        y0, y1, x0, x1 = window.box
        outside = torch.ones(ours.shape[:2], dtype=torch.bool)
        outside[y0:y1, x0:x1] = False
        assert not ours[outside].any()


@pytest.mark.parametrize("radius", [1, 2])
def test_cosa_blur(recorded, image, radius):
    np.testing.assert_array_equal(blur(image, radius).permute(1, 2, 0), recorded[f"blur_r{radius}"])


def test_cosa_normalise(recorded, image):
    found = build_backbone("toy_cnn").normalize(image[None] / 255)[0].permute(1, 2, 0)
    np.testing.assert_allclose(found, recorded["norm_val"], rtol=0, atol=1e-6)
