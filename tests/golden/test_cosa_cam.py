"""Normalisations of the original code that need no model."""

import torch
import torch.nn.functional as F

from wsss_lab.cam import normalize_cam
from wsss_lab.methods.cosa.values import IMAGE_NORMALIZATION, LOSS_NORMALIZATION, NORMALIZATION


def test_cosa_normalisation_of_the_second_cam_loss(golden):
    """CAM loss v2 is the binary cross entropy of the CAM normalised with eps 1e-4."""
    z = {k: torch.from_numpy(v) for k, v in golden("cosa")("losses.npz").items()}
    grid = z["cam"].shape[-2:]
    target = F.interpolate(z["seg_ps"][:, 1:], tuple(grid), mode="bilinear")
    loss = F.binary_cross_entropy_with_logits(normalize_cam(z["cam"], LOSS_NORMALIZATION), target)
    torch.testing.assert_close(loss, z["cam_loss_v2"], atol=1e-6, rtol=0)


def test_cosa_fused_maps_follow_the_rule(golden):
    """Minimum 0, maximum below 1 by eps; normalising once more only divides by the maximum."""
    for name, key, how in (
        ("multi_scale_cam.npz", "cam", NORMALIZATION),
        ("multi_scale_cam.npz", "cam_aux", NORMALIZATION),
        ("multi_scale_cam_eval.npz", "v4_cam", IMAGE_NORMALIZATION),
    ):
        cam = torch.from_numpy(golden("cosa")(name)[key])
        axes = (1, 2, 3) if how.over == "image" else (2, 3)
        top = cam.amax(axes, keepdim=True)
        assert (cam.amin(axes) == 0).all(), key
        assert (top <= 1).all(), key
        again = normalize_cam(cam, how) * (top + how.eps)
        torch.testing.assert_close(again, cam, atol=1e-6, rtol=0)
