"""A teacher that is never wrong, to measure what the alternation would carry if that were so.

Ours: an upper bound for experiments, with pixel truth that weak supervision does not have. Only the
student's lesson is replaced; teacher B's head and the dense energy keep the labels of the method.
"""

from dataclasses import replace
from typing import NamedTuple

from jaxtyping import Int
from torch import Tensor

from wsss_lab import IGNORE
from wsss_lab.methods.asdt.config import Oracle
from wsss_lab.methods.asdt.labels import TeacherLabel
from wsss_lab.methods.common.base import Batch


class Lesson(NamedTuple):
    """Labels from which the student learns."""

    a: TeacherLabel
    b: TeacherLabel | None
    """None in steps that do not need teacher B."""


def oracle_lesson(
    oracle: Oracle, lesson: Lesson, masks: Int[Tensor, "b h w"], background: bool = True
) -> Lesson:
    """Replace one teacher's label by the truth.

    Args:
        oracle: which one.
        lesson: both labels of the method.
        masks: the truth as mask values, 255 where there is none.
        background: whether label 0 is background; without it label c is class c.

    Returns:
        The lesson with new labels; probabilities stay those of the teacher.
    """
    truth = masks.to(lesson.a.label.device).long()
    if not background:
        truth = (truth - 1).masked_fill((truth == IGNORE) | (truth == 0), IGNORE)
    silent = lesson.a.label == IGNORE
    if oracle == "a":
        return lesson._replace(a=replace(lesson.a, label=truth.masked_fill(silent, IGNORE)))
    if oracle == "none" or lesson.b is None:
        return lesson
    b_label = truth.masked_fill(~silent, IGNORE) if oracle == "silence" else truth
    return lesson._replace(b=replace(lesson.b, label=b_label))


def masks_of(batch: Batch) -> Int[Tensor, "b h w"]:
    """Return the truth that an oracle needs.

    Raises:
        ValueError: the batch has none.
    """
    if "masks" not in batch:
        raise ValueError(
            "masks: expected pixel truth in the batch for method.oracle, got none; train on data "
            "with masks, or set method.oracle to none"
        )
    return batch["masks"]
