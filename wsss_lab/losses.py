"""Losses shared by the methods; each is a mean over what counts, and 0 when nothing counts."""

import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from wsss_lab import IGNORE


def enlarge(
    logits: Float[Tensor, "b c gh gw"], size: tuple[int, int], *, align_corners: bool = False
) -> Float[Tensor, "b c h w"]:
    """Resize logits bilinearly, in float32; logits of that size already are only cast.

    Args:
        logits: scores on any grid.
        size: (h, w) of the result, px.
        align_corners: whether corner pixels coincide by their centres (TSCD) or pixels by their
            edges (the others).
    """
    logits = logits.float()
    if logits.shape[-2:] == size:
        return logits
    return F.interpolate(logits, size, mode="bilinear", align_corners=align_corners)


def tag_loss(logits: Float[Tensor, "b k"], tags: Float[Tensor, "b k"]) -> Float[Tensor, ""]:
    """Multi-label soft margin loss: sigmoid cross-entropy, averaged over images and classes.

    Args:
        logits: one score per image and class.
        tags: 0 or 1.

    Source: the classification loss of all four papers.
    """
    return F.binary_cross_entropy_with_logits(logits.float(), tags.float())


def pixel_loss(
    logits: Float[Tensor, "b k1 gh gw"], labels: Int[Tensor, "b h w"]
) -> Float[Tensor, ""]:
    """Cross-entropy per labelled pixel; pixels labelled 255 do not count.

    Args:
        logits: scores at any resolution; brought to the labels' size bilinearly.
        labels: 0..k, 255 ignored.

    Returns:
        Mean over labelled pixels of the batch; 0, with a zero gradient, if there are none.
    """
    full = enlarge(logits, (labels.shape[1], labels.shape[2]))
    total = F.cross_entropy(full, labels, ignore_index=IGNORE, reduction="sum")
    return total / (labels != IGNORE).sum().clamp(min=1)


def balanced_pixel_loss(
    logits: Float[Tensor, "b k1 gh gw"],
    labels: Int[Tensor, "b h w"],
    weight_fg: float = 0.5,
    *,
    align_corners: bool = False,
) -> Float[Tensor, ""]:
    """Cross-entropy in which background and foreground count for themselves, however many pixels.

    (1 - a) times the mean over background pixels plus a times the mean over all others. A batch
    without one of the two keeps the other's share; one without labels has loss 0 and no gradient.
    TSCD's released code gives NaN for both.

    Args:
        logits: scores at any resolution; brought to the labels' size bilinearly.
        labels: 0..k, 255 ignored.
        weight_fg: a, in [0, 1].
        align_corners: how `logits` are enlarged: TSCD True, CoSA False.

    Raises:
        ValueError: if `weight_fg` is outside [0, 1].

    Source: released codes of TSCD and CoSA (a = 0.5); ASDT adds the two means without halving.
    """
    if not 0 <= weight_fg <= 1:
        raise ValueError(f"weight_fg: expected a share in [0, 1], got {weight_fg}")
    full = enlarge(logits, (labels.shape[1], labels.shape[2]), align_corners=align_corners)
    each = F.cross_entropy(full, labels, ignore_index=IGNORE, reduction="none")
    background = labels == 0
    foreground = ~background & (labels != IGNORE)
    return (1 - weight_fg) * _mean_over(each, background) + weight_fg * _mean_over(each, foreground)


def _mean_over(values: Float[Tensor, "b h w"], valid: Bool[Tensor, "b h w"]) -> Float[Tensor, ""]:
    return (values * valid).sum() / valid.sum().clamp(min=1)
