"""Losses shared by the methods; each is a mean over what counts, and 0 when nothing counts."""

import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from wsss_lab import IGNORE


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
    full = F.interpolate(logits.float(), labels.shape[-2:], mode="bilinear", align_corners=False)
    total = F.cross_entropy(full, labels, ignore_index=IGNORE, reduction="sum")
    return total / (labels != IGNORE).sum().clamp(min=1)
