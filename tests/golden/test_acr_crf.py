"""The dense CRF on [background; CAMs] against ACR's inference script."""

import re

import pytest
import torch

from wsss_lab.methods.acr.values import CRFS


@pytest.mark.parametrize("file", ["infer_grad_noaff.npz", "infer_grad_aff.npz"])
def test_acr_crf_of_cams(golden, file):
    """Background (1 - max CAM)^alpha; alpha and the image's number are in the recorded names."""
    z = {k: torch.from_numpy(v) for k, v in golden("acr")(file).items()}
    names = [re.fullmatch(r"crf_alpha(\d+)_(\d+)", name) for name in z]
    assert any(names)
    for match in filter(None, names):
        alpha, i = int(match[1]), match[2]
        cams = z[f"cam_{i}"]
        scores = torch.cat([(1 - cams.amax(0, keepdim=True)) ** alpha, cams])
        image = z[f"rgb_{i}"].permute(2, 0, 1)[None]
        out = CRFS["cam"](image, scores[None])[0]
        difference = (out - z[match[0]]).abs()
        assert (difference > 1e-5).float().mean() < 1e-3, match[0]
        assert difference.max() < 1e-3, match[0]
