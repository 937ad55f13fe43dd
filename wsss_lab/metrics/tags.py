"""Scores of predicted image tags, vectorised over classes or images."""

import torch
from jaxtyping import Float
from torch import Tensor


def average_precision(
    scores: Float[Tensor, "n c"], targets: Float[Tensor, "n c"]
) -> Float[Tensor, "c"]:
    """Compute the area under the precision-recall steps of every column; ties form one step.

    The same number as scikit-learn's `average_precision_score`; neither VOC 2007's 11 points nor
    VOC 2010's interpolation.

    Args:
        scores: any monotone score, larger means more likely.
        targets: 0 or 1.

    Returns:
        float64, 0..1; NaN for a column without positives.

    Raises:
        ValueError: if shapes differ, there is no row, or a score is NaN.
    """
    if scores.shape != targets.shape or scores.ndim != 2 or not len(scores):
        raise ValueError(
            f"scores and targets must be (n, c) and not empty, got {tuple(scores.shape)} and "
            f"{tuple(targets.shape)}"
        )
    if bool(scores.isnan().any()):
        raise ValueError("scores must be free of NaN; look for a diverged model")
    n = len(scores)
    ordered, order = scores.sort(dim=0, descending=True)
    positive = (targets > 0).gather(0, order)
    rank = torch.arange(n, device=scores.device)[:, None]
    step_ends = torch.ones_like(positive)
    step_ends[:-1] = ordered[:-1] != ordered[1:]
    # every row looks up precision at the end of its run of equal scores
    end = torch.where(step_ends, rank, n).flip(0).cummin(dim=0).values.flip(0)
    precision = (positive.cumsum(0).double() / (rank + 1)).gather(0, end)
    return (precision * positive).sum(0) / positive.sum(0)


def tag_map(scores: Float[Tensor, "n k"], tags: Float[Tensor, "n k"]) -> Float[Tensor, ""]:
    """Compute the mean over classes, of those with positives, of average precision over images.

    CoSA's printed "cls" score is the other way round, sample-wise: the mean over images of the
    average precision over classes, `average_precision(scores.T, tags.T).nanmean()`.

    Args:
        scores: tag logits or probabilities.
        tags: 0 or 1.
    """
    return average_precision(scores, tags).nanmean()


def tag_f1(
    logits: Float[Tensor, "n k"], tags: Float[Tensor, "n k"], *, threshold: float = 0.0
) -> Float[Tensor, ""]:
    """Compute the mean over images of F1 = 2 TP / (2 TP + FP + FN), as TSCD's released code.

    Args:
        logits: tag logits; above `threshold` counts as predicted.
        tags: 0 or 1.
        threshold: 0 for logits, 0.5 for probabilities.

    Returns:
        0..1, float64. An image with neither tags nor predictions counts 0.
    """
    if logits.shape != tags.shape or logits.ndim != 2:
        raise ValueError(
            f"logits and tags must both be (n, k), got {tuple(logits.shape)} and "
            f"{tuple(tags.shape)}"
        )
    predicted, true = logits > threshold, tags > 0
    hits = (predicted & true).sum(1).double()
    return (2 * hits / (predicted.sum(1) + true.sum(1)).clamp(min=1)).mean()
