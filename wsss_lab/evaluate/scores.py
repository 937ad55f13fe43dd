"""Counts of one evaluation: streamed on the device, added up over processes, then reported."""

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
import torch.distributed as dist
from jaxtyping import Bool, Float, Int
from torch import Tensor

from wsss_lab import IGNORE
from wsss_lab.evaluate.regions import RegionCounts
from wsss_lab.evaluate.tables import tables
from wsss_lab.metrics import (
    ConfusionMatrix,
    Protocol,
    Report,
    SweepResult,
    ThresholdSweep,
    average_precision,
    tag_map,
)

ORACLE = "+true tags"
"""Ending of the names of all scores for which the true tags were used."""


def shows_nothing(truth: Int[Tensor, "b h w"]) -> Bool[Tensor, "b"]:
    """Find the images that show no class at all, but background and pixels left out."""
    return ~((truth > 0) & (truth != IGNORE)).flatten(1).any(1)


class Scores:
    """All counts of one evaluation, each kind on the device of what was counted.

    Args:
        num_classes: `k1`, background included.
        thresholds: background scores of the sweep, ascending.
    """

    def __init__(self, num_classes: int, thresholds: Sequence[float]) -> None:
        self.num_classes = num_classes
        self.grid = list(thresholds)
        self.labels: dict[str, ConfusionMatrix] = {}
        self.sweeps: dict[str, ThresholdSweep] = {}
        self.regions: dict[str, RegionCounts] = defaultdict(RegionCounts)
        self.alarms: dict[str, Tensor] = {}
        self.images = 0
        self.tag_rows: list[tuple[Tensor, Tensor]] = []

    def add_labels(
        self, kind: str, pred: Int[Tensor, "b h w"], truth: Int[Tensor, "b h w"]
    ) -> None:
        """Count label images of one kind ("seg", ...)."""
        if kind not in self.labels:
            self.labels[kind] = ConfusionMatrix(self.num_classes).to(pred.device)
        self.labels[kind].update(pred, truth)

    def add_alarms(
        self, kind: str, pred: Int[Tensor, "b h w"], truth: Int[Tensor, "b h w"]
    ) -> None:
        """Count predicted objects in images whose truth shows no class; 255 is left out."""
        seen, empty = truth != IGNORE, shows_nothing(truth)
        found = ((pred > 0) & seen).flatten(1)[empty].sum(1)
        counts = torch.stack([empty.sum(), (found > 0).sum(), found.sum(), seen[empty].sum()])
        self.alarms[kind] = self.alarms.get(kind, 0) + counts.cpu()

    def add_cam(
        self,
        kind: str,
        cam: Float[Tensor, "b k h w"],
        tags: Float[Tensor, "b k"] | None,
        truth: Int[Tensor, "b h w"],
    ) -> None:
        """Count class maps of one kind at every threshold."""
        if kind not in self.sweeps:
            self.sweeps[kind] = ThresholdSweep(self.num_classes, self.grid).to(cam.device)
        self.sweeps[kind].update(cam, tags, truth)

    def add_tags(self, logits: Float[Tensor, "b k"], tags: Float[Tensor, "b k"]) -> None:
        """Keep the tag logits of some images; tag scores need them all at the end."""
        self.tag_rows.append((logits.float().cpu(), tags.cpu()))

    def merge(self, other: "Scores") -> "Scores":
        """Add the counts of another part of the images."""
        for kind, matrix in other.labels.items():
            self.labels.setdefault(kind, ConfusionMatrix(self.num_classes)).merge(matrix)
        for kind, sweep in other.sweeps.items():
            self.sweeps.setdefault(kind, ThresholdSweep(self.num_classes, self.grid)).merge(sweep)
        for kind, counts in other.regions.items():
            self.regions[kind].merge(counts)
        for kind, numbers in other.alarms.items():
            self.alarms[kind] = self.alarms.get(kind, 0) + numbers
        self.images += other.images
        self.tag_rows += other.tag_rows
        return self

    def gather(self) -> "Scores":
        """Add up the counts of all processes; every process returns the same sums.

        A process may have had no image at all, so the kinds are agreed on first.
        """
        if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
            return self
        parts: list[Any] = [None] * dist.get_world_size()
        on_cpu = Scores(self.num_classes, self.grid).merge(self)
        dist.all_gather_object(parts, on_cpu)
        total = Scores(self.num_classes, self.grid)
        for part in parts:
            total.merge(part)
        return total


@dataclass(frozen=True)
class Evaluation:
    """Results of an evaluation, by kind; see `wsss_lab.evaluate.evaluate.evaluate`."""

    reports: dict[str, Report] = field(default_factory=dict)
    """Scores of label images and of maps at the fixed threshold."""
    sweeps: dict[str, SweepResult] = field(default_factory=dict)
    """Maps at every threshold. Their best threshold is chosen on the truth."""
    tags: dict[str, float] = field(default_factory=dict)
    """`map`: mean over classes of the average precision; `map_samples`: over images (CoSA)."""
    regions: dict[str, dict[str, Any]] = field(default_factory=dict)
    """`context` and `coverage` of toy scenes, see `wsss_lab.evaluate.regions`."""
    alarms: dict[str, dict[str, float]] = field(default_factory=dict)
    """False alarms in images whose truth shows no class: their number (`images`), the share of
    them in which something is predicted, and the share of their pixels."""

    def table(self) -> str:
        """Every report, with a warning above those that used the true tags; protocol at the end."""
        return tables([("", self)])

    def as_dict(self) -> dict[str, Any]:
        """Plain numbers for `metrics.json`; NaN becomes None."""
        found: dict[str, Any] = {k: json.loads(r.to_json()) for k, r in self.reports.items()}
        for kind, sweep in self.sweeps.items():
            found[kind] = found.get(kind, {}) | {
                "best_threshold_on_truth": sweep.best_threshold,
                "best_miou_on_truth": sweep.best_miou,
            }
        for kind, numbers in self.regions.items():
            found[kind] = found.get(kind, {}) | numbers
        for kind, shares in self.alarms.items():
            found[kind] = found.get(kind, {}) | {"false_alarms": shares}
        return found | ({"tags": self.tags} if self.tags else {})


def summarise(
    scores: Scores,
    protocol: Protocol,
    class_names: Sequence[str] | None,
    cam_threshold: float | None,
    refined: str = "",
) -> Evaluation:
    """Turn counts into reports, each with its own protocol.

    Args:
        scores: all counts.
        protocol: what holds for every report; images, tags, thresholds and CRF are filled in.
        class_names: `k1` names, background first.
        cam_threshold: fixed background score at which maps get a report; one of the grid's.
        refined: what the maps have passed before it.
    """
    protocol, after = replace(protocol, images=scores.images), f", after {refined}"
    reports = {}
    for kind, matrix in scores.labels.items():
        crf = protocol.crf if "+crf" in kind else "none"
        stated = replace(protocol, tags_at_test=kind.endswith(ORACLE), thresholds="none", crf=crf)
        reports[kind] = Report.from_confusion(matrix.compute(), stated, class_names)
    sweeps = {kind: sweep.compute(protocol.absent_classes) for kind, sweep in scores.sweeps.items()}
    if cam_threshold is not None:
        for kind, result in sweeps.items():
            at = int((result.thresholds - cam_threshold).abs().argmin())
            stated = replace(
                protocol,
                tags_at_test=kind.endswith(ORACLE),
                thresholds=f"fixed at {cam_threshold:g}{after if refined else ''}",
                crf="none",
            )
            reports[kind] = Report.from_confusion(result.confusion[at], stated, class_names)
    regions = {kind: counts.as_dict() for kind, counts in scores.regions.items()}
    return Evaluation(reports, sweeps, _tag_scores(scores), regions, _alarms(scores))


def _alarms(scores: Scores) -> dict[str, dict[str, float]]:
    """Shares of false alarms by kind; nothing where every image shows a class."""
    found = {}
    for kind, counts in scores.alarms.items():
        images, alarmed, wrong, pixels = counts.tolist()
        if images:
            shares = {"share": alarmed / images, "pixel_share": wrong / max(1, pixels)}
            found[kind] = {"images": images, **shares}
    return found


def _tag_scores(scores: Scores) -> dict[str, float]:
    if not scores.tag_rows:
        return {}
    logits, tags = (torch.cat(rows) for rows in zip(*scores.tag_rows, strict=True))
    if not bool((tags > 0).any()):
        return {}  # a data set without tags
    samples = average_precision(logits.T, tags.T).nanmean()
    return {"map": float(tag_map(logits, tags)), "map_samples": float(samples)}


def side_by_side(found: Evaluation) -> str:
    """MIoU of every kind, without the true tags and with them, one row each.

    Args:
        found: of `evaluate` with `tags_at_test=True`; a missing column shows dashes.
    """
    cells: dict[str, list[str]] = {}
    for kind, report in found.reports.items():
        name = kind.removesuffix(ORACLE)
        if report.protocol.thresholds.startswith("fixed"):
            name += f", threshold {report.protocol.thresholds}"
        cells.setdefault(name, ["-", "-"])[kind.endswith(ORACLE)] = f"{100 * report.miou:.2f}"
    for kind, sweep in found.sweeps.items():
        name = f"{kind.removesuffix(ORACLE)}, best threshold (an oracle, too)"
        told = kind.endswith(ORACLE)
        best = f"{100 * sweep.best_miou:.2f} at {sweep.best_threshold:.2f}"
        cells.setdefault(name, ["-", "-"])[told] = best
    wide = max((len(name) for name in cells), default=0)
    head = f"{'mIoU in %':<{wide}}  {'no true tags':>16}  {'true tags (oracle)':>18}"
    rows = [f"{name:<{wide}}  {plain:>16}  {told:>18}" for name, (plain, told) in cells.items()]
    return "\n".join([head, *rows])
