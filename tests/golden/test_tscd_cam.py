"""CAM fusion of the original code."""

from dataclasses import replace

import torch

from wsss_lab.cam import fuse_cams, normalize_cam
from wsss_lab.methods.tscd.values import CAM_FUSION, NORMALIZATION


def test_tscd_fusion(golden):
    z = {k: torch.from_numpy(v) for k, v in golden("tscd")("cam_fusion.npz").items()}
    size = tuple(z["inputs"].shape[-2:])
    views = [z["raw_scale1"], z["raw_scale05"], z["raw_scale15"]]
    cam = normalize_cam(fuse_cams(views, size, CAM_FUSION), NORMALIZATION)
    torch.testing.assert_close(cam, z["cam"], atol=1e-6, rtol=0)


def test_tscd_fusion_single_scale(golden):
    z = {k: torch.from_numpy(v) for k, v in golden("tscd")("cam_fusion.npz").items()}
    fusion = replace(CAM_FUSION, scales=(1.0,))
    cam = fuse_cams([z["raw_scale1"]], tuple(z["inputs"].shape[-2:]), fusion)
    cam = normalize_cam(cam, NORMALIZATION)
    torch.testing.assert_close(cam, z["cam_single_scale"], atol=1e-6, rtol=0)
