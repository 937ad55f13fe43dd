"""PAMR, which the ACR repository carries along without calling it."""

import pytest
import torch

from wsss_lab.refine import PAMR


@pytest.mark.parametrize("name", ["pamr_default.npz", "pamr_one.npz"])
def test_acr_pamr(golden, name):
    z = golden("acr")(name)
    refiner = PAMR(tuple(z["dilations"].tolist()), int(z["num_iter"]))
    images, masks = torch.from_numpy(z["x"]), torch.from_numpy(z["mask"])
    out = torch.from_numpy(z["out"])
    torch.testing.assert_close(refiner(images, masks), out, atol=1e-5, rtol=1e-5)
    if images.max() > 1:  # the scale of the colours does not matter
        torch.testing.assert_close(refiner(images / 255, masks), out, atol=1e-4, rtol=1e-4)
