"""ASDT's losses and its fused prediction, as pure functions.

The dense energy, the fourth loss, is `wsss_lab.refine.DenseEnergyLoss`.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from wsss_lab import IGNORE
from wsss_lab.losses import enlarge, pixel_loss


def first_part(k1: int, background: bool, things: int = 80) -> Bool[Tensor, " k1"]:
    """Mark the classes averaged first: background, or without background all things."""
    count = 1 if background else things
    return torch.arange(k1) < count


def two_part_ce(
    logits: Float[Tensor, "b k1 gh gw"],
    labels: Int[Tensor, "b h w"],
    first: Bool[Tensor, " k1"],
    nan_on_empty: bool = False,
) -> Float[Tensor, ""]:
    """Add the mean cross-entropy over pixels of one group of classes and that over the others'.

    *In the released code* the groups are background and all foreground classes. *Here* without
    background they are things and stuff (**ours**).

    Args:
        logits: at any resolution; brought to the labels' size bilinearly.
        labels: 0..k1-1, 255 ignored in both means.
        first: classes of the first group.
        nan_on_empty: an empty group makes the loss NaN, as in the released code under today's
            PyTorch; otherwise it counts 0.
    """
    full = enlarge(logits, (labels.shape[1], labels.shape[2]))
    each = F.cross_entropy(full, labels, ignore_index=IGNORE, reduction="none")
    labelled = labels != IGNORE
    in_first = first[labels.masked_fill(~labelled, 0)] & labelled
    means = []
    # two means, so that a small object weighs as much as a large background
    for group in (in_first, labelled & ~in_first):
        count = group.sum()
        means.append((each * group).sum() / (count if nan_on_empty else count.clamp(min=1)))
    return means[0] + means[1]


def hard_distillation(
    logits: Float[Tensor, "b k1 gh gw"],
    label: Int[Tensor, "b h w"],
    confidence: Float[Tensor, "b h w"] | None = None,
    least: float = 0.8,
) -> Float[Tensor, ""]:
    """Average the cross-entropy of the student against teacher B's label, without weight.

    *In the released code* this is the one line that would use teacher B, times 0.1, over all
    pixels. It is commented out. *Here* pixels with 255 do not count, nor, if `confidence` is given,
    those below `least`.

    Args:
        logits: of the student, at any resolution.
        label: 0..k1-1, or 255.
        confidence: of each pixel's label, [0, 1].
        least: confidence from which a pixel counts.
    """
    if confidence is not None:
        label = label.masked_fill(confidence < least, IGNORE)
    return pixel_loss(logits, label)


def soft_distillation(
    logits: Float[Tensor, "b k1 gh gw"],
    probs: Float[Tensor, "b m h w"],
    classes: Int[Tensor, "b m"],
    mask: Bool[Tensor, "b h w"],
    temperature: float = 1.0,
) -> Float[Tensor, ""]:
    """Average KL(teacher || softmax(student / tau)) over the pixels of a mask, times tau^2.

    **A reconstruction**: the paper speaks of knowledge distillation, the released code has hard
    labels only, no temperature, and no probabilities from the teachers.

    Args:
        logits: of the student.
        probs: of the teacher, one channel per entry of `classes`; no gradient flows into them.
        classes: label value of each channel. Classes not listed have probability 0; those listed
            twice must have it in one place only.
        mask: pixels that count.
        temperature: tau, above 0; its square keeps the size of gradients (Hinton et al., 2015).
    """
    full = enlarge(logits, (probs.shape[2], probs.shape[3]))
    log_student = (full / temperature).log_softmax(1)
    log_student = log_student.gather(1, classes[:, :, None, None].expand_as(probs))
    q = probs.detach().float()
    each = (torch.xlogy(q, q) - q * log_student).sum(1)  # xlogy: absent classes have q = 0
    return temperature**2 * (each * mask).sum() / mask.sum().clamp(min=1)


def fused_probs(
    teacher_logits: Float[Tensor, "b k1 gh gw"],
    student_logits: Float[Tensor, "b k1 gh gw"],
    size: tuple[int, int],
) -> Float[Tensor, "b k1 h w"]:
    """Take the larger of both heads' probabilities for every class; the sum is at least 1.

    *In the released code* this goes into the CRF as it is (`CRFS["seg"]` takes scores whose sum is
    not 1) and the argmax of the result is the pseudo-label of the second stage.

    Args:
        teacher_logits: of teacher B's head.
        student_logits: of the student.
        size: (h, w) of the result, px.
    """
    one, other = (enlarge(z, size).softmax(1) for z in (teacher_logits, student_logits))
    return torch.maximum(one, other)
