"""Normalisation and its truncating inverse against the numbers of TSCD's released code."""

import numpy as np
import torch

from wsss_lab.data.transforms import denormalise_u8, normalise


def test_tscd_normalise(golden):
    recorded = golden("tscd")("normalize.npz")
    image = torch.from_numpy(recorded["image_u8"]).permute(0, 3, 1, 2)
    found = normalise(image).numpy()
    np.testing.assert_allclose(found, recorded["normalized_nchw"], rtol=0, atol=1e-6)


def test_tscd_denormalise_cuts_off(golden):
    recorded = golden("tscd")("normalize.npz")
    found = denormalise_u8(torch.from_numpy(recorded["normalized_nchw"]))
    np.testing.assert_array_equal(found.numpy(), recorded["denorm_u8"])
    np.testing.assert_allclose(found.float() / 255, recorded["denorm2"], rtol=0, atol=1e-6)
