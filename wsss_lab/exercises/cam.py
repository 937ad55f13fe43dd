"""Exercises of the chapter on class activation maps."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from wsss_lab.cam import Fusion, cam_to_label, multi_scale_cam, normalize_cam
from wsss_lab.data.tiny import tiny_features, tiny_mask, tiny_tags, tiny_weights
from wsss_lab.exercises import register
from wsss_lab.metrics import threshold_sweep

CELLS = 16


def _noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def _near(answer: Any, expected: tuple[float, ...]) -> bool:
    """Compare numbers or sequences of numbers to three digits."""
    given = torch.as_tensor(answer, dtype=torch.float64).flatten()
    wanted = torch.tensor(expected, dtype=torch.float64)
    return given.shape == wanted.shape and bool(((given - wanted).abs() <= 5e-4).all())


def _without_water() -> tuple[float, float]:
    """Return the logit of the boat, and its best IoU, without the water."""
    weights = tiny_weights()
    weights[0, 2] = 0.0
    raw = torch.einsum("bdhw,kd->bkhw", tiny_features(), weights)
    sweep = threshold_sweep(normalize_cam(raw), tiny_tags(), tiny_mask(), [0.0, 0.125, 0.25, 0.5])
    return float(raw[0, 0].mean()), float(sweep.iou[:, 1].max())


register(
    "cam-1",
    accepts=lambda answer: _near(answer, _without_water()),
    hint="Set the last weight of the boat to 0 and redo the sixteen sums; the sea drops to 0.",
    right=_without_water,
    wrong=lambda: (1.03125, 6 / 11),  # the old weights
)


def _is_minmax(function: Callable[[Tensor], Tensor]) -> bool:
    """Check agreement with the rule of TSCD and CoSA, also on flat and on negative maps."""
    maps = torch.cat([_noise(2, 3, 5, 4), torch.zeros(1, 3, 5, 4), -1 - _noise(1, 3, 5, 4).abs()])
    return torch.allclose(function(maps.clone()), normalize_cam(maps.relu(), "min_max"), atol=1e-6)


def _minmax(raw: Tensor) -> Tensor:
    cam = raw.relu()
    cam = cam - cam.amin((2, 3), keepdim=True)
    return cam / (cam.amax((2, 3), keepdim=True) + 1e-5)


def _minmax_without_relu(raw: Tensor) -> Tensor:
    cam = raw - raw.amin((2, 3), keepdim=True)
    return cam / (cam.amax((2, 3), keepdim=True) + 1e-5)


register(
    "cam-2",
    accepts=_is_minmax,
    hint="Cut the negative values first. What should a map without one positive value become?",
    right=lambda: _minmax,
    wrong=lambda: _minmax_without_relu,
)


def _slope_of_probability() -> float:
    logit = torch.einsum("bdhw,kd->bkhw", tiny_features(), tiny_weights())[0, 0].mean()
    return float(logit.sigmoid() * (1 - logit.sigmoid()))


register(
    "cam-3",
    accepts=lambda answer: _near(answer, (_slope_of_probability(),)),
    hint="The chain rule puts one number in front of every weight; it depends on the logit alone.",
    right=_slope_of_probability,
    wrong=lambda: _slope_of_probability() / CELLS,  # the cells are in the map already
)


def _band() -> tuple[float, float]:
    """Return coverage and accuracy of the tiny boat with the band from 0.125 to 0.25."""
    raw = torch.einsum("bdhw,kd->bkhw", tiny_features(), tiny_weights())
    label = cam_to_label(normalize_cam(raw), tiny_tags(), 0.25, band=(0.125, 0.25))
    kept = label != 255
    return float(kept.float().mean()), float((label == tiny_mask())[kept].float().mean())


register(
    "cam-4",
    accepts=lambda answer: _near(answer, _band()),
    hint="Five cells score exactly 0.25 and are ignored; a value on a threshold is below it.",
    right=_band,
    wrong=lambda: (1.0, 13 / 16),  # one threshold of 0.25, nothing ignored
)


def _sweep(score: Tensor, mask: Tensor, thresholds: Tensor) -> Tensor:
    """Return the IoU of one class at all thresholds from two histograms."""
    bins = torch.bucketize(score, thresholds)
    count = len(thresholds) + 1
    inside = torch.bincount(bins[mask], minlength=count)
    outside = torch.bincount(bins[~mask], minlength=count)
    hits = inside.flip(0).cumsum(0).flip(0)[1:]
    alarms = outside.flip(0).cumsum(0).flip(0)[1:]
    return hits / (inside.sum() + alarms)


def _sweep_including(score: Tensor, mask: Tensor, thresholds: Tensor) -> Tensor:
    """Sweep as `_sweep`, but count a score on the threshold as foreground."""
    above = score[None] >= thresholds.view(-1, *[1] * score.ndim)
    return (above & mask).flatten(1).sum(1) / (above | mask).flatten(1).sum(1)


def _is_sweep(function: Callable[[Tensor, Tensor, Tensor], Tensor]) -> bool:
    thresholds = torch.linspace(0, 1, 9)[:-1]
    for seed in range(3):
        score = (_noise(40, 40, seed=seed).sigmoid() * 16).round() / 16  # many ties
        mask = _noise(40, 40, seed=seed + 10) + score > 0.8
        sweep = threshold_sweep(score[None, None], torch.ones(1, 1), mask.long()[None], thresholds)
        if not torch.allclose(function(score, mask, thresholds).double(), sweep.iou[:, 1]):
            return False
    return True


register(
    "cam-5",
    accepts=_is_sweep,
    hint="Foreground is strictly above the threshold; torch.bucketize counts what lies below.",
    right=lambda: _sweep,
    wrong=lambda: _sweep_including,
)

MapFunction = Callable[[Tensor], Tensor]


def _flip_mean(cam_fn: MapFunction, images: Tensor) -> Tensor:
    return (cam_fn(images) + cam_fn(images.flip(-1)).flip(-1)) / 2


def _flip_mean_unreturned(cam_fn: MapFunction, images: Tensor) -> Tensor:
    return (cam_fn(images) + cam_fn(images.flip(-1))) / 2


def _is_flip_mean(function: Callable[[MapFunction, Tensor], Tensor]) -> bool:
    """Check agreement with the library for a map function that does not commute with mirroring."""
    kernel = _noise(2, 3, 3, 3, seed=1)

    def cam_fn(images: Tensor) -> Tensor:
        return F.conv2d(images, kernel, padding=1)

    images = _noise(2, 3, 8, 8, seed=2)
    rule = Fusion(fuse_flip="mean", relu="none")
    expected = multi_scale_cam(cam_fn, images, rule, normalize=None)
    return torch.allclose(function(cam_fn, images), expected, atol=1e-5)


register(
    "cam-6",
    accepts=_is_flip_mean,
    hint="The map of a mirrored image is mirrored too; turn it back before you average.",
    right=lambda: _flip_mean,
    wrong=lambda: _flip_mean_unreturned,
)


register(
    "cam-7",
    accepts=lambda answer: abs(float(answer) / 9e-5 - 1) < 0.01,
    hint="Write the result as m / (m + 1e-5) and solve for m.",
    right=lambda: 9e-5,
    wrong=lambda: 1.8e-5,  # 0.9 is 1.8 times one half
)


def _smallest_r() -> int:
    """Count the largest cells whose mean is below 2."""
    cells = torch.einsum("bdhw,kd->bkhw", tiny_features(), tiny_weights())[0, 0].flatten()
    ordered = cells.sort(descending=True).values
    means = ordered.cumsum(0) / torch.arange(1, CELLS + 1)
    return 1 + int((means < 2 - 1e-6).nonzero()[0])


register(
    "cam-8",
    accepts=lambda answer: int(answer) == _smallest_r(),
    hint="Sort the sixteen values. How many ones does it take, and is 2 itself below 2?",
    right=_smallest_r,
    wrong=lambda: 7,
)
