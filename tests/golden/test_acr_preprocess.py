"""Scaling, mirror, normalisation and crop against ACR's released code."""

import numpy as np
import pytest
import torch

from wsss_lab.data.crops import Window, long_side_size, view_plain
from wsss_lab.data.transforms import denormalise_u8, normalise


def draws_of(recorded):
    names = [str(name) for name in recorded["train_draw_names"]]
    return [
        {name: int(value) for name, value in zip(names, row, strict=True)}
        for row in recorded["train_draws"]
    ]


def test_acr_training_crops(golden):
    recorded = golden("acr")("preprocess.npz")
    image = torch.from_numpy(recorded["rgb"]).permute(2, 0, 1)
    side = int(recorded["crop_size"])
    for draw, expected in zip(draws_of(recorded), recorded["train_inputs"], strict=True):
        size = long_side_size(*image.shape[1:], draw["target_long"])
        assert size == (draw["new_h"], draw["new_w"])
        window = Window(
            *size,
            draw["src_top"] - draw["dst_top"],
            draw["src_left"] - draw["dst_left"],
            side,
            flip=draw["hflip"] == 1,
        )
        found = view_plain(normalise(image), window)
        np.testing.assert_allclose(found, expected, rtol=0, atol=2e-5)


def test_acr_crop_either_pads_or_cuts(golden):
    for draw in draws_of(golden("acr")("preprocess.npz")):
        assert draw["src_top"] * draw["dst_top"] == draw["src_left"] * draw["dst_left"] == 0


def test_acr_validation_input(golden):
    recorded = golden("acr")("preprocess.npz")
    image = torch.from_numpy(recorded["rgb"]).permute(2, 0, 1)
    side = int(recorded["crop_size"])
    if recorded["val_input"].shape[-2:] != (side, side):
        pytest.fail("val_input is not of the crop's size")
    squashed = torch.nn.functional.interpolate(image[None].float(), (side, side), mode="bilinear")
    np.testing.assert_allclose(normalise(squashed), recorded["val_input"], rtol=0, atol=2e-5)
    found = denormalise_u8(torch.from_numpy(recorded["val_input"]))
    # cut off, not rounded: the last bit of a float decides where a value is whole
    assert np.abs(found.numpy().astype(int) - recorded["val_ori"]).max() <= 1
    assert (found.numpy() != recorded["val_ori"]).mean() < 0.02
