"""Joining scales and flips."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from paper_values import ALL_FUSIONS

from wsss_lab.cam import FUSIONS, Fusion, fuse_cams, multi_scale_cam, normalize_cam


def by_hand(views, size, fusion):
    """One image, one class, one scale at a time, straight from the words of the rule."""
    batch = views[0].shape[0] // (2 if fusion.flip else 1)
    images = []
    for i in range(batch):
        scales = []
        for view in views:
            pair = [view[i], view[i + batch]] if fusion.flip else [view[i]]
            if fusion.relu == "before":
                pair = [m.clamp(min=0) for m in pair]
            pair = [
                F.interpolate(m[None], size, mode="bilinear", align_corners=fusion.align_corners)[0]
                for m in pair
            ]
            if fusion.flip:
                pair[1] = torch.flip(pair[1], [2])
            stacked = torch.stack(pair)
            one = {"max": stacked.amax(0), "sum": stacked.sum(0), "mean": stacked.mean(0)}[
                fusion.fuse_flip
            ]
            scales.append(one.clamp(min=0) if fusion.relu == "after_flip" else one)
        stacked = torch.stack(scales)
        images.append(
            {
                "sum": stacked.sum(0),
                "mean": stacked.mean(0),
                "max": stacked.amax(0),
                "last": stacked[-1],
            }[fusion.fuse_scale]
        )
    return torch.stack(images)


RULES = [
    *ALL_FUSIONS.values(),
    *(
        Fusion((1.0, 0.5), flip, fuse_flip, fuse_scale, relu, corners)
        for flip, fuse_flip, fuse_scale, relu, corners in [
            (True, "mean", "max", "none", False),
            (True, "sum", "mean", "before", True),
            (False, "max", "last", "after_flip", True),
            (True, "max", "sum", "none", True),
        ]
    ),
]


@pytest.mark.parametrize("fusion", RULES)
def test_fusion_by_hand(fusion):
    views = [torch.randn(6, 3, max(2, int(6 * s)), max(2, int(5 * s))) for s in fusion.scales]
    size = (13, 11)
    torch.testing.assert_close(fuse_cams(views, size, fusion), by_hand(views, size, fusion))


def cam_fn(images):
    """Not mirror-symmetric, depends on the view: a stride-4 convolution."""
    weight = torch.linspace(-1, 1, 2 * 3 * 16).view(2, 3, 4, 4)
    return F.conv2d(images, weight, stride=4)


@pytest.mark.parametrize("name", sorted(ALL_FUSIONS))
def test_multi_scale_runs_the_views_of_the_rule(name):
    fusion = ALL_FUSIONS[name]
    images = torch.randn(2, 3, 32, 40)
    seen = []

    def spy(view):
        seen.append(tuple(view.shape))
        return cam_fn(view)

    cam = multi_scale_cam(spy, images, fusion, normalize=None)
    assert cam.shape == (2, 2, 32, 40)
    batch = 4 if fusion.flip else 2
    assert seen == [(batch, 3, int(32 * s), int(40 * s)) for s in fusion.scales]


@pytest.mark.parametrize("name", [n for n, f in ALL_FUSIONS.items() if f.flip])
def test_a_mirrored_image_gets_the_mirrored_map(name):
    images = torch.randn(2, 3, 32, 40)
    cam = multi_scale_cam(cam_fn, images, ALL_FUSIONS[name])
    mirrored = multi_scale_cam(cam_fn, images.flip(-1), ALL_FUSIONS[name])
    torch.testing.assert_close(mirrored.flip(-1), cam, atol=1e-5, rtol=1e-4)


def test_multi_scale_cam_normalises_and_resizes():
    images = torch.randn(1, 3, 32, 40)
    raw = multi_scale_cam(cam_fn, images, FUSIONS["multi_scale"], size=(16, 20), normalize=None)
    cam = multi_scale_cam(cam_fn, images, FUSIONS["multi_scale"], size=(16, 20), normalize="plain")
    assert raw.shape == (1, 2, 16, 20)
    torch.testing.assert_close(cam, normalize_cam(raw, "plain"))


def test_last_scale_only_ignores_the_others():
    fusion = replace(ALL_FUSIONS["cosa.AUX_FUSION"], scales=(1.0, 2.0))
    views = [torch.randn(2, 1, 3, 3), torch.randn(2, 1, 6, 6)]
    changed = [torch.randn(2, 1, 3, 3), views[1]]
    assert torch.equal(fuse_cams(views, (6, 6), fusion), fuse_cams(changed, (6, 6), fusion))


def test_gradients_follow_the_callers_mode():
    images = torch.randn(1, 3, 32, 32, requires_grad=True)
    assert multi_scale_cam(cam_fn, images, FUSIONS["multi_scale"]).requires_grad
    with torch.no_grad():
        assert not multi_scale_cam(cam_fn, images, FUSIONS["multi_scale"]).requires_grad


def test_bad_arguments():
    with pytest.raises(ValueError, match="one entry per scale"):
        fuse_cams([torch.randn(2, 1, 3, 3)], (6, 6), FUSIONS["multi_scale"])
    with pytest.raises(ValueError, match="flip=False"):
        fuse_cams([torch.randn(3, 1, 3, 3)], (6, 6), Fusion())
    with pytest.raises(ValueError, match="at least one pixel"):
        multi_scale_cam(cam_fn, torch.randn(1, 3, 8, 8), Fusion((0.05,)))
    with pytest.raises(ValueError, match="scales: expected at least one value"):
        Fusion(scales=())
    with pytest.raises(ValueError, match="fuse_flip: expected one of"):
        Fusion(fuse_flip="min")
