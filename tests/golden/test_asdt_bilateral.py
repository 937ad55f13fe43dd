"""The lattice against ASDT's compiled filter, and its ratio to the exact sum."""

import torch

from wsss_lab.refine import Lattice, bilateral_features, exact_filter


def test_asdt_bilateral_filter(golden):
    z = {k: torch.from_numpy(v) for k, v in golden("asdt")("bilateral.npz").items()}
    features = bilateral_features(z["image"], float(z["sigma_xy"]), float(z["sigma_rgb"]))
    out = Lattice(features).filter(z["values"])
    torch.testing.assert_close(out, z["out"], rtol=1e-4, atol=1e-5 * z["out"].max().item())


def test_asdt_exact_filter(golden):
    z = {k: torch.from_numpy(v) for k, v in golden("asdt")("bilateral.npz").items()}
    features = bilateral_features(z["image"], float(z["sigma_xy"]), float(z["sigma_rgb"]))
    out = exact_filter(features.flatten(2), z["values"].flatten(2))
    torch.testing.assert_close(out, z["bruteforce"].flatten(2), rtol=1e-4, atol=1e-4)
