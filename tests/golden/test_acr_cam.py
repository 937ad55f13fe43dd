"""The final maps of the original inference script from its recorded token maps."""

import torch

from wsss_lab.cam import fuse_cams, normalize_cam
from wsss_lab.methods.acr.values import CAM_FUSION, NORMALIZATION


def images(z):
    """The recorded images: index by index until one is missing."""
    i = 0
    while f"cam_{i}" in z:
        yield i
        i += 1


def fused(maps, mirrored, size):
    side = int(maps.shape[1] ** 0.5)
    views = torch.stack([maps, mirrored]).unflatten(2, (side, side))
    return normalize_cam(fuse_cams([views], size, CAM_FUSION), NORMALIZATION)[0]


def test_acr_maps_without_affinity(golden):
    z = {k: torch.from_numpy(v) for k, v in golden("acr")("infer_grad_noaff.npz").items()}
    assert list(images(z))
    for i in images(z):
        cam = fused(z[f"token_cam_{i}"], z[f"token_cam_flip_{i}"], tuple(z[f"cam_{i}"].shape[1:]))
        torch.testing.assert_close(cam, z[f"cam_{i}"], atol=1e-5, rtol=1e-5)


def test_acr_maps_with_affinity_follow_the_rule(golden):
    """Making these maps needs the model; their normalisation does not."""
    z = {k: torch.from_numpy(v) for k, v in golden("acr")("infer_grad_aff.npz").items()}
    assert list(images(z))
    for i in images(z):
        cam = z[f"cam_{i}"]
        top = cam.amax((1, 2), keepdim=True)
        assert (cam.amin((1, 2)) == 0).all()
        assert (top <= 1).all()
        again = normalize_cam(cam[None], NORMALIZATION)[0] * (top + NORMALIZATION.eps)
        torch.testing.assert_close(again, cam, atol=1e-6, rtol=0)
