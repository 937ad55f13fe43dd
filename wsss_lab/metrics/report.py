"""Scores of a confusion matrix, always together with their protocol."""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Literal

from jaxtyping import Int
from torch import Tensor

from wsss_lab.metrics.iou import ABSENT_POLICIES, Absent, margins, mean_iou

Unlabelled = Literal["error", "wrong", "ignored"]


UNSTATED = "not stated"


@dataclass(frozen=True)
class Protocol:
    """All switches that change an mIoU without changing the model; printed with each number."""

    split: str = UNSTATED
    """Evaluated images, for example "VOC 2012 val" or "train (1464)"."""
    images: int = 0
    """Number of images counted."""
    label_source: str = UNSTATED
    """Source of the true masks: "VOC" or the coarser "SBD"."""
    scales: tuple[float, ...] | str = UNSTATED
    """Scales merged at test time."""
    flip: bool | str = UNSTATED
    """Whether mirrored images were merged at test time."""
    crf: str = UNSTATED
    """"none", or the name and settings of the post-processing."""
    tags_at_test: bool | str = UNSTATED
    """Whether the true tags were used for prediction: an oracle, no segmentation result."""
    absent_classes: Absent = "skip"
    """A key of `ABSENT_POLICIES`."""
    unlabelled: Unlabelled = "error"
    """Treatment of predictions of 255, see `ConfusionMatrix`: "error", "wrong" or "ignored"."""
    thresholds: str = UNSTATED
    """"none", one fixed value, or "best of n on this split", which is an oracle too."""
    resolution: str = UNSTATED
    """Size at which labels were compared: "original", or the squashed or cropped size in px."""

    def __post_init__(self) -> None:
        if self.absent_classes not in ABSENT_POLICIES:
            raise ValueError(
                f"absent_classes must be one of {sorted(ABSENT_POLICIES)}, "
                f"got {self.absent_classes!r}"
            )

    def lines(self) -> list[str]:
        """Format one "name: value" line per switch."""
        shown = asdict(self)
        shown["absent_classes"] += f": {ABSENT_POLICIES[self.absent_classes]}"
        for name, value in shown.items():
            if isinstance(value, bool):
                shown[name] = "yes" if value else "no"
        return [f"{name.replace('_', ' ')}: {value}" for name, value in shown.items()]


@dataclass(frozen=True)
class Report:
    """Scores 0..1 of one evaluation; NaN where a score is undefined. Made by `from_confusion`."""

    class_names: tuple[str, ...]
    """Background first."""
    pixels: tuple[int, ...]
    """True pixels per class."""
    iou: tuple[float, ...]
    precision: tuple[float, ...]
    recall: tuple[float, ...]
    over_activation: tuple[float, ...]
    """False-positive area / true area."""
    under_activation: tuple[float, ...]
    """False-negative area / true area."""
    miou: float
    """Mean IoU under `protocol.absent_classes`."""
    pixel_accuracy: float
    mean_accuracy: float
    """Mean recall over the classes in the truth."""
    protocol: Protocol

    @classmethod
    def from_confusion(
        cls,
        confusion: Int[Tensor, "k1 k2"],
        protocol: Protocol,
        class_names: Sequence[str] | None = None,
    ) -> "Report":
        """Score a matrix from `ConfusionMatrix.compute()`.

        Args:
            confusion: counts, truth in rows.
            protocol: protocol of the numbers.
            class_names: `k1` names, background first; None numbers them.

        Raises:
            ValueError: if the number of names is wrong.
        """
        k1 = confusion.shape[0]
        names = tuple(class_names or ["background", *(f"class {c}" for c in range(1, k1))])
        if len(names) != k1:
            raise ValueError(
                f"class_names must have {k1} entries, background first, got {len(names)}"
            )
        true, predicted, hit = margins(confusion)
        iou, miou = mean_iou(confusion, protocol.absent_classes)
        recall = hit / true
        return cls(
            class_names=names,
            pixels=tuple(int(n) for n in true.tolist()),
            iou=tuple(iou.tolist()),
            precision=tuple((hit / predicted).tolist()),
            recall=tuple(recall.tolist()),
            over_activation=tuple(((predicted - hit) / true).tolist()),
            under_activation=tuple(((true - hit) / true).tolist()),
            miou=float(miou),
            pixel_accuracy=float(hit.sum() / true.sum()),
            mean_accuracy=float(recall.nanmean()),
            protocol=protocol,
        )

    def table(self) -> str:
        """Format the per-class table in percent, the means, and the protocol."""
        return "\n".join(
            [self.scores(), "protocol", *(f"  {line}" for line in self.protocol.lines())]
        )

    def scores(self) -> str:
        """Format the per-class table in percent, and the means."""
        wide = max(len(name) for name in (*self.class_names, "class"))
        head = f"{'class':<{wide}}  {'IoU':>6} {'prec.':>6} {'recall':>6} {'over':>7} {'under':>7}"
        rows = [
            f"{name:<{wide}}  {_percent(iou, 6)} {_percent(precision, 6)} {_percent(recall, 6)} "
            f"{_percent(over, 7)} {_percent(under, 7)}"
            for name, iou, precision, recall, over, under in zip(
                self.class_names,
                self.iou,
                self.precision,
                self.recall,
                self.over_activation,
                self.under_activation,
                strict=True,
            )
        ]
        means = [
            f"mIoU {_percent(self.miou)} %   pixel accuracy {_percent(self.pixel_accuracy)} %   "
            f"mean accuracy {_percent(self.mean_accuracy)} %"
        ]
        return "\n".join([head, *rows, *means])

    def to_json(self) -> str:
        """Return all fields as JSON; NaN becomes null, so that any reader accepts it."""
        values = {
            field.name: getattr(self, field.name)
            for field in fields(self)
            if field.name != "protocol"
        }
        values["protocol"] = asdict(self.protocol)
        return json.dumps(_finite(values), indent=2, allow_nan=False)


def _percent(value: float, width: int = 0) -> str:
    """Format with two digits after the point, or as a dash where the score is NaN."""
    return f"{'-' if math.isnan(value) else f'{100 * value:.2f}':>{width}}"


def _finite(value: object) -> object:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [_finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
