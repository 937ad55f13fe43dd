"""Intersection over union per class and its mean, from a confusion matrix."""

from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

Absent = Literal["skip", "nanmean", "zero", "nan"]

ABSENT_POLICIES: dict[str, str] = {
    "skip": "mean over the classes that occur in the truth (TSCD, AFA; CoSA's helper)",
    "nanmean": "mean over the classes that occur in truth or prediction (NumPy's nanmean of IoU)",
    "zero": "mean over all classes, one that occurs nowhere counts 0 (ACR, IRN)",
    "nan": "mean over all classes, NaN if one occurs nowhere (CoSA's printed table)",
}
"""Treatment in the mean of a class that the evaluated images do not contain."""


def mean_iou(
    confusion: Int[Tensor, "*t k1 k2"], absent: Absent = "skip"
) -> tuple[Float[Tensor, "*t k1"], Float[Tensor, "*t"]]:
    """Compute intersection over union per class, and its mean.

    Args:
        confusion: counts, truth in rows; any leading axes. One more column than rows holds
            labelled pixels without prediction.
        absent: a key of `ABSENT_POLICIES`.

    Returns:
        IoU per class, 0..1, NaN where a class is in neither truth nor prediction (0 under "zero"),
        and the mean; both float64.

    Raises:
        ValueError: for an unknown policy.
    """
    if absent not in ABSENT_POLICIES:
        raise ValueError(f"absent must be one of {sorted(ABSENT_POLICIES)}, got {absent!r}")
    true, predicted, hit = margins(confusion)
    union = true + predicted - hit
    iou = hit / union  # 0 / 0 is NaN: the class occurs nowhere
    if absent == "zero":
        iou = iou.nan_to_num(nan=0.0)
    if absent in ("zero", "nan"):
        return iou, iou.mean(dim=-1)
    counted = true > 0 if absent == "skip" else union > 0
    total = torch.where(counted, iou, torch.zeros_like(iou)).sum(dim=-1)
    return iou, total / counted.sum(dim=-1)


def margins(confusion: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """True, predicted and correctly predicted pixels per class, float64 (exact up to 2^53)."""
    counts = confusion.cpu().double()
    square = counts[..., : counts.shape[-2]]
    return counts.sum(-1), square.sum(-2), square.diagonal(dim1=-2, dim2=-1)
