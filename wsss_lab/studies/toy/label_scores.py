"""Scores of label maps on the toy world: mIoU, contours, halos, planted contexts."""

from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from wsss_lab import IGNORE
from wsss_lab.data.catalog import TOY_CLASSES, TOY_CONTEXTS
from wsss_lab.data.toy import ToyTensors
from wsss_lab.metrics import BoundaryScore, context_activation, distance_bands, mean_iou


def confusion_per_scene(pred: Tensor, truth: Tensor) -> Int[Tensor, "b k1 k1"]:
    """Count every scene separately; ignored pixels are left out."""
    k1 = len(TOY_CLASSES) + 1
    scene = torch.arange(len(truth))[:, None, None].expand_as(truth)
    kept = truth != IGNORE
    code = (scene * k1 + truth)[kept] * k1 + pred[kept]
    return torch.bincount(code, minlength=len(truth) * k1 * k1).view(-1, k1, k1)


def score(pred: Tensor, world: ToyTensors) -> dict[str, Any]:
    """Score label maps; areas are shares of the objects' area."""
    truth = world["mask"].long()
    boundary = BoundaryScore(len(TOY_CLASSES) + 1)
    for one, true in zip(pred, truth, strict=True):
        boundary.update(one, true)
    objects = world["instance"] > 0
    area = ((truth > 0) & (truth != IGNORE)).sum()
    wrong = (pred > 0) & (truth == 0)
    bands = torch.bincount(distance_bands(objects, (4, 8))[wrong], minlength=4)
    missed = (pred == 0) & (truth > 0) & (truth != IGNORE)
    found: dict[str, Any] = {
        "miou": float(mean_iou(confusion_per_scene(pred, truth).sum(0))[1]),
        "boundary_f": boundary.compute()[1],
        "halo": float(bands[:3].sum() / area),
        "far_alarms": float(bands[3] / area),
        "missed": float(missed.sum() / area),
    }
    for name, (_, value) in TOY_CONTEXTS.items():
        c = TOY_CLASSES.index(name)
        has = world["tags"][:, c] > 0
        claimed = (pred[has] == c + 1).float()
        sums = context_activation(claimed, objects[has], world["context"][has] == value)
        near, middle, far = sums.context.tolist()
        found[f"{name}_on_context"] = {"0-8": near, "8-16": middle, "16+": far}
    return found


def gains(
    pred: Tensor, plain: Tensor, world: ToyTensors, resamples: int
) -> tuple[float, float, float]:
    """Compute the gain in mIoU over the plain labels, and the middle 95 % of a paired bootstrap."""
    truth = world["mask"].long()
    counts = [confusion_per_scene(p, truth).double().flatten(1) for p in (pred, plain)]
    n, k1 = len(truth), len(TOY_CLASSES) + 1
    picks = torch.randint(n, (resamples, n), generator=torch.Generator().manual_seed(0))
    weight = torch.zeros(resamples, n, dtype=torch.float64)
    weight.scatter_add_(1, picks, torch.ones_like(weight))
    new, old = (mean_iou((weight @ c).view(-1, k1, k1))[1] for c in counts)
    new_all, old_all = (mean_iou(c.sum(0).view(k1, k1))[1] for c in counts)
    low, high = torch.quantile(new - old, torch.tensor([0.025, 0.975], dtype=torch.float64))
    return float(new_all - old_all), float(low), float(high)
