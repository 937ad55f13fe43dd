"""Scaling, mirror, normalisation and crop against ACR's released code."""

import numpy as np
import pytest
import torch

from wsss_lab.data.crops import Window, long_side_size, view_plain
from wsss_lab.methods.acr import ACR
from wsss_lab.methods.acr.config import PRESETS
from wsss_lab.models.backbones import build_backbone


def prepare(images):
    """Normalise grey levels, 0..255, as ACR does by the released settings."""
    return ACR(build_backbone("toy_vit"), 20, PRESETS["voc-released"].config).prepare(images / 255)


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
        found = view_plain(prepare(image[None])[0], window)
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
    np.testing.assert_allclose(prepare(squashed), recorded["val_input"], rtol=0, atol=2e-5)
