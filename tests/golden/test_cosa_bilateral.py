"""The lattice against CoSA's compiled bilateral filter."""

import torch

from wsss_lab.refine import Lattice, bilateral_features


def test_cosa_bilateral_filter(golden):
    """Widths of the energy at half resolution: 50 px and 15."""
    z = {k: torch.from_numpy(v) for k, v in golden("cosa")("bilateral_filter.npz").items()}
    out = Lattice(bilateral_features(z["images"], 50, 15)).filter(z["ins"])
    torch.testing.assert_close(out, z["outs"], rtol=1e-4, atol=1e-5 * z["outs"].max().item())
