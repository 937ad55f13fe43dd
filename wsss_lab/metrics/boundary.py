"""Boundary F: accuracy of the outlines, whatever the area."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int, Integer
from torch import Tensor, nn

from wsss_lab import IGNORE


def _spread(mask: Bool[Tensor, "c h w"], by: int, axis: int) -> Bool[Tensor, "c h w"]:
    """Pixels at exactly `by` px from a True pixel, to either side along one axis (-1 or -2)."""
    out = torch.zeros_like(mask)
    side = mask.shape[axis]
    if by < side:
        out.narrow(axis, by, side - by).logical_or_(mask.narrow(axis, 0, side - by))
        out.narrow(axis, 0, side - by).logical_or_(mask.narrow(axis, by, side - by))
    return out


def _outline(mask: Bool[Tensor, "c h w"]) -> Bool[Tensor, "c h w"]:
    """Return the pixels of a mask with a 4-neighbour outside; the image's edge is no outline."""
    return mask & (_spread(~mask, 1, -1) | _spread(~mask, 1, -2))


def _grow_disc(mask: Bool[Tensor, "c h w"], radius: float) -> Bool[Tensor, "c h w"]:
    """Dilate with a Euclidean disc: the union of its rows, from the narrow ends to the middle."""
    row, half = mask, 0
    grown = torch.zeros_like(mask)
    for dy in range(math.floor(radius), -1, -1):
        while (half + 1) ** 2 + dy**2 <= radius**2:
            half += 1
            row = row | _spread(mask, half, -1)
        grown |= _spread(row, dy, -2) if dy else row
    return grown


@dataclass(frozen=True)
class BoundaryCounts:
    """Outline pixels of one image, per class."""

    true_hits: Int[Tensor, "k1"]
    """True outline pixels within the tolerance of the predicted outline."""
    true: Int[Tensor, "k1"]
    predicted_hits: Int[Tensor, "k1"]
    """Predicted outline pixels within the tolerance of the true outline."""
    predicted: Int[Tensor, "k1"]


def boundary_counts(
    pred: Integer[Tensor, "h w"],
    truth: Integer[Tensor, "h w"],
    num_classes: int,
    *,
    tolerance: float = 0.0075,
    ignore: int = IGNORE,
) -> BoundaryCounts:
    """Match the outlines of every class that the truth of one image contains.

    Args:
        pred: labels 0..k1-1.
        truth: labels 0..k1-1 or `ignore`. Ignored pixels are removed from both maps, so the rim of
            an ignored band is an outline of both. VOC draws such a band round every object: there
            the score compares predictions with one another and is no absolute measure.
        num_classes: `k1`, background included.
        tolerance: accepted distance as a share of the image diagonal; 0.0075 is Csurka et al.,
            "What is a good evaluation measure for semantic segmentation?", BMVC 2013.
        ignore: truth value that is left out.

    Raises:
        ValueError: if shapes differ or the tolerance is negative.
    """
    if pred.shape != truth.shape or pred.ndim != 2:
        raise ValueError(
            f"pred and truth must be (h, w) of one image, got {tuple(pred.shape)} and "
            f"{tuple(truth.shape)}"
        )
    if tolerance < 0:
        raise ValueError(f"tolerance must be at least 0, got {tolerance}")
    classes = torch.arange(num_classes, device=truth.device)
    present = torch.stack([(truth == c).any() for c in range(num_classes)])
    chosen = classes[present][:, None, None]
    true = _outline(truth == chosen)
    predicted = _outline((pred == chosen) & (truth != ignore))
    radius = tolerance * math.hypot(*truth.shape)
    near_predicted, near_true = (_grow_disc(lines, radius) for lines in (predicted, true))
    counts = torch.zeros(4, num_classes, dtype=torch.int64, device=truth.device)
    pairs = (true & near_predicted, true, predicted & near_true, predicted)
    counts[:, present] = torch.stack([lines.sum((1, 2)) for lines in pairs])
    return BoundaryCounts(*counts.cpu())


class BoundaryScore(nn.Module):
    """Boundary F per class, averaged over the images whose truth has an outline of the class.

    Args:
        num_classes: `k1`, background included.
        tolerance: see `boundary_counts`.
        ignore: truth value that is left out.
    """

    sums: Tensor

    def __init__(
        self, num_classes: int, *, tolerance: float = 0.0075, ignore: int = IGNORE
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.tolerance = tolerance
        self.ignore = ignore
        # rows: images, sum of precision, of recall, of F
        self.register_buffer("sums", torch.zeros(4, num_classes, dtype=torch.float64))

    def update(
        self, pred: Integer[Tensor, "h w"], truth: Integer[Tensor, "h w"]
    ) -> "BoundaryScore":
        """Add one image; see `boundary_counts`."""
        counts = boundary_counts(
            pred, truth, self.num_classes, tolerance=self.tolerance, ignore=self.ignore
        )
        counted = counts.true > 0
        recall = counts.true_hits / counts.true.clamp(min=1)
        precision = counts.predicted_hits / counts.predicted.clamp(min=1)
        both = (precision + recall).clamp(min=torch.finfo(recall.dtype).tiny)
        f = 2 * precision * recall / both
        rows = torch.stack([torch.ones_like(f), precision, recall, f]).double() * counted
        self.sums += rows.to(self.sums.device)
        return self

    def merge(self, other: "BoundaryScore") -> "BoundaryScore":
        """Add the images of another score."""
        mine = (self.num_classes, self.tolerance, self.ignore)
        if mine != (other.num_classes, other.tolerance, other.ignore):
            raise ValueError("other must have the same classes, tolerance and ignore value")
        self.sums += other.sums.to(self.sums.device)
        return self

    def reset(self) -> "BoundaryScore":
        """Remove all images."""
        self.sums.zero_()
        return self

    def compute(self) -> tuple[Float[Tensor, "k1"], float]:
        """Return F per class, 0..1 (NaN for absent classes), and the mean over the others."""
        images, _, _, f = self.sums.cpu()
        per_class = f / images
        return per_class, float(per_class.nanmean())
