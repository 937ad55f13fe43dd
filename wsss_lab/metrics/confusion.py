"""Streaming confusion matrix that counts every pixel exactly once."""

import torch
from jaxtyping import Int, Integer
from torch import Tensor, nn

from wsss_lab import IGNORE
from wsss_lab.metrics.report import Unlabelled

LABELS = 256
"""Number of label values: labels are 8 bit, and each pair has a counter, so no mask is needed."""


def pair_counts(
    pred: Integer[Tensor, "*s"], truth: Integer[Tensor, "*s"]
) -> Int[Tensor, "256 256"]:
    """Count the pixels of every (truth, prediction) pair of label values.

    Args:
        pred: labels 0..255 of any integer type.
        truth: labels 0..255, same shape.

    Returns:
        int64 counts, truth in rows.

    Raises:
        ValueError: for other types, shapes that differ, or values outside 0..255.
    """
    if pred.shape != truth.shape:
        raise ValueError(
            f"pred and truth must have the same shape, got {tuple(pred.shape)} and "
            f"{tuple(truth.shape)}; resize logits to the truth's size, then take the argmax"
        )
    for name, labels in (("pred", pred), ("truth", truth)):
        if labels.is_floating_point() or labels.dtype == torch.bool or labels.is_complex():
            raise ValueError(f"{name} must hold integer labels, got {labels.dtype}; take .argmax()")
        if labels.dtype != torch.uint8 and labels.numel():
            low, high = labels.aminmax()
            if low < 0 or high >= LABELS:
                raise ValueError(
                    f"{name} must be in 0..{LABELS - 1}, got {int(low)}..{int(high)}; "
                    f"write ignored pixels as {IGNORE}"
                )
    pairs = truth.flatten().to(torch.int32, copy=True).mul_(LABELS).add_(pred.flatten())
    return torch.bincount(pairs, minlength=LABELS * LABELS).view(LABELS, LABELS)


class ConfusionMatrix(nn.Module):
    """Pixel counts of (truth, prediction), in int64, on the device the module is on.

    Args:
        num_classes: `k1`, background included, at most 255.
        ignore: truth value that is left out, and prediction value that `unlabelled` governs.
        unlabelled: how a prediction of `ignore` on a labelled pixel counts. "error" rejects it,
            "wrong" counts a miss for the true class and a false alarm for none, "ignored" leaves
            the pixel out, which flatters pseudo-labels that abstain. CoSA's pseudo scores ignore.
    """

    counts: Tensor

    def __init__(
        self, num_classes: int, *, ignore: int = IGNORE, unlabelled: Unlabelled = "error"
    ) -> None:
        super().__init__()
        if not 1 <= num_classes < LABELS:
            raise ValueError(f"num_classes must be 1..{LABELS - 1}, got {num_classes}")
        if not num_classes <= ignore < LABELS:
            raise ValueError(
                f"ignore must be between num_classes={num_classes} and {LABELS - 1}, got {ignore}"
            )
        if unlabelled not in ("error", "wrong", "ignored"):
            raise ValueError(
                f'unlabelled must be "error", "wrong" or "ignored", got {unlabelled!r}'
            )
        self.num_classes = num_classes
        self.ignore = ignore
        self.unlabelled = unlabelled
        # the last column counts labelled pixels that got no prediction
        self.register_buffer("counts", torch.zeros(num_classes, num_classes + 1, dtype=torch.int64))

    def update(
        self, pred: Integer[Tensor, "*s"], truth: Integer[Tensor, "*s"]
    ) -> "ConfusionMatrix":
        """Add the pixels of one or many images.

        Args:
            pred: labels 0..k1-1, or `ignore` where `unlabelled` allows it.
            truth: labels 0..k1-1, or `ignore`.

        Returns:
            This matrix.

        Raises:
            ValueError: values that are no labels, named in the message; nothing is counted then.
        """
        return self.update_pairs(pair_counts(pred, truth))

    def update_pairs(self, pairs: Int[Tensor, "256 256"]) -> "ConfusionMatrix":
        """Add counts made by `pair_counts`, perhaps in another thread."""
        k1, ignore = self.num_classes, self.ignore
        labelled = pairs[:k1]
        taken = int(labelled[:, :k1].sum() + labelled[:, ignore].sum() + pairs[ignore].sum())
        if taken != int(pairs.sum()):
            raise ValueError(self._invalid(pairs))
        missing = labelled[:, ignore]
        if self.unlabelled == "error" and (total := int(missing.sum())):
            raise ValueError(
                f"pred is {ignore} on {total} labelled pixels; say whether these are "
                'unlabelled="wrong" or "ignored"'
            )
        self.counts[:, :k1] += labelled[:, :k1].to(self.counts.device)
        self.counts[:, k1] += missing.to(self.counts.device)
        return self

    def _invalid(self, pairs: Tensor) -> str:
        """Return the error of the values that are neither a class nor `ignore`."""
        allowed = set(range(self.num_classes)) | {self.ignore}
        truth = [v for v in pairs.sum(1).nonzero().flatten().tolist() if v not in allowed]
        rows = [*range(self.num_classes)]
        pred = [v for v in pairs[rows].sum(0).nonzero().flatten().tolist() if v not in allowed]
        parts = [f"{n} has {v[:10]}" for n, v in (("truth", truth), ("pred", pred)) if v]
        return (
            f"labels must be 0..{self.num_classes - 1} or {self.ignore}, but {'; '.join(parts)}; "
            "check num_classes (background counts) and the label encoding"
        )

    def merge(self, other: "ConfusionMatrix") -> "ConfusionMatrix":
        """Add the counts of another matrix, from another worker or process."""
        mine = (self.num_classes, self.ignore, self.unlabelled)
        theirs = (other.num_classes, other.ignore, other.unlabelled)
        if mine != theirs:
            raise ValueError(f"other must have the same settings {mine}, got {theirs}")
        self.counts += other.counts.to(self.counts.device)
        return self

    def reset(self) -> "ConfusionMatrix":
        """Remove all counts."""
        self.counts.zero_()
        return self

    def compute(self) -> Int[Tensor, "k1 k2"]:
        """Return the counts for the scores.

        Returns:
            int64 on the CPU, truth in rows. Column `k1` holds labelled pixels without prediction:
            zero unless `unlabelled == "wrong"`.
        """
        counts = self.counts.cpu().clone()
        if self.unlabelled == "ignored":
            counts[:, -1] = 0
        return counts
