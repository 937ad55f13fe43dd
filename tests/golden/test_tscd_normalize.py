"""Normalisation and the colours that refinement gets, against TSCD's released code."""

import numpy as np
import torch

from wsss_lab.methods.tscd.released import truncate_colours
from wsss_lab.models.backbones import build_backbone


def recorded_images(golden):
    recorded = golden("tscd")("normalize.npz")
    return recorded, torch.from_numpy(recorded["image_u8"]).permute(0, 3, 1, 2) / 255


def test_tscd_normalise(golden):
    recorded, images = recorded_images(golden)
    found = build_backbone("toy_mit").normalize(images).numpy()
    np.testing.assert_allclose(found, recorded["normalized_nchw"], rtol=0, atol=1e-6)


def test_tscd_denormalise_cuts_off(golden):
    """There and back loses a grey level of some values; which, is the same to the last one."""
    recorded, images = recorded_images(golden)
    found = (255 * truncate_colours(images)).round().to(torch.uint8)
    np.testing.assert_array_equal(found.numpy(), recorded["denorm_u8"])
    np.testing.assert_allclose(truncate_colours(images), recorded["denorm2"], rtol=0, atol=1e-6)
    assert (recorded["denorm_u8"] != np.moveaxis(recorded["image_u8"], 3, 1)).any()
