"""Upsampling, tag mask and maximum normalisation of the original code."""

import torch
import torch.nn.functional as F

from wsss_lab.cam import normalize_cam
from wsss_lab.methods.asdt.values import NORMALIZATION


def test_asdt_cam_up(golden):
    z = {k: torch.from_numpy(v) for k, v in golden("asdt")("cam_up.npz").items()}
    size = tuple(z["cam_up"].shape[-2:])
    up = F.interpolate(z["cam"], size, mode="bilinear") * z["label"][:, :, None, None]
    torch.testing.assert_close(up, z["cam_up"], atol=1e-6, rtol=0)
    torch.testing.assert_close(normalize_cam(up, NORMALIZATION), z["norm_cam"], atol=1e-6, rtol=0)
