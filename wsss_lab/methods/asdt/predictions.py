"""All predictions of ASDT for the same images at one moment: teachers' labels, heads, their fusion.

Which of them are better, and which agree, is what the ablation of ASDT compares.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from wsss_lab import IGNORE
from wsss_lab.losses import enlarge
from wsss_lab.methods.asdt.labels import (
    present_cams,
    strongest_classes,
    teacher_a_label,
    teacher_b_label,
)
from wsss_lab.methods.asdt.losses import fused_probs
from wsss_lab.methods.asdt.method import ASDT
from wsss_lab.methods.asdt.network import Outputs

HEADS = ("head1", "head2", "fused")
"""Teacher B's head, the student (not in an arm without), both joined; none with a CRF."""
LABELS = ("label_a", "label_b")
"""Labels of teachers A and B; they need the true tags of an image."""
PAIRS = (("label_a", "label_b"), ("head2", "label_a"), ("head2", "label_b"))
"""Predictions whose agreement is reported."""


@torch.no_grad()
def predictions(
    method: ASDT, images: Float[Tensor, "b 3 h w"], tags: Float[Tensor, "b k"] | None = None
) -> dict[str, Int[Tensor, "b h w"]]:
    """Compute every prediction as mask values: background 0, class `c` is `c + 1`.

    Put the method into eval mode first: then no dropout disturbs, and no random number is drawn.

    Args:
        method: trained or in training.
        images: RGB in [0, 1].
        tags: true tags, for the teachers' labels; None leaves them out.

    Returns:
        Name in `HEADS` or `LABELS` -> labels at image size. Teacher A's has `IGNORE` where it is
        not sure, and so has teacher B's for an image without tags.
    """
    config, size = method.config, (images.shape[2], images.shape[3])
    outputs: Outputs = method.network(images)
    found = {"head1": enlarge(outputs.teacher_logits, size).max(dim=1).indices}
    other = outputs.teacher_logits
    if outputs.student_logits is not None:
        other = outputs.student_logits
        found["head2"] = enlarge(other, size).max(dim=1).indices
    found["fused"] = fused_probs(outputs.teacher_logits, other, size).max(dim=1).indices
    if tags is not None:
        cam = method.network.fused_cam(images, outputs.cam)
        index, present = strongest_classes(cam, tags, config.max_classes)
        cams = present_cams(cam, index, present, size)
        pictures = method.pictures(images)
        a = teacher_a_label(pictures, cams, index, present, config)
        b = teacher_b_label(pictures, outputs.teacher_logits, index, present, config)
        found |= {"label_a": a.label, "label_b": b.label}
    shift = int(not config.background)
    return {name: torch.where(y == IGNORE, y, y + shift) for name, y in found.items()}


def image_counts(
    pred: Int[Tensor, "b h w"], truth: Int[Tensor, "b h w"], k1: int
) -> Int[Tensor, "b k1 k2"]:
    """Count a confusion matrix per image, truth in rows; the last column holds unlabelled pixels.

    Args:
        pred: 0..k1-1, or `IGNORE`.
        truth: 0..k1-1, or `IGNORE`, which is left out.
        k1: classes with background.

    Raises:
        ValueError: other values.
    """
    for name, labels in (("pred", pred), ("truth", truth)):
        if bool(((labels != IGNORE) & ((labels < 0) | (labels >= k1))).any()):
            raise ValueError(
                f"{name}: expected 0..{k1 - 1} or {IGNORE}, got {labels.unique().tolist()}; "
                "check the number of classes"
            )
    k2 = k1 + 1
    image = torch.arange(len(truth), device=truth.device)[:, None, None]
    row = torch.where(truth == IGNORE, k1, truth)
    column = torch.where(pred == IGNORE, k1, pred)
    cell = (image * k2 + row) * k2 + column
    counts = torch.bincount(cell.flatten(), minlength=len(truth) * k2 * k2)
    return counts.view(-1, k2, k2)[:, :k1]


def agreement(
    one: Int[Tensor, "b h w"], other: Int[Tensor, "b h w"]
) -> tuple[Int[Tensor, ""], Int[Tensor, ""]]:
    """Count the pixels with the same label in two predictions, and those with a label in both."""
    both = (one != IGNORE) & (other != IGNORE)
    return ((one == other) & both).sum(), both.sum()
