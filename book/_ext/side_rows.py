"""What the page `side_by_side` reads: finished runs, and what is measured in each of them."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import numpy as np

from wsss_lab.records import RECORDS, load_record
from wsss_lab.studies.student_t import t_quantile, t_tail

CONFIDENCE = 0.95
SPACE = "\N{NO-BREAK SPACE}"
NONE = "–"
"""Cell of what a method does not have, or its record does not hold."""
LOST = 0.01
"""A class counts as lost below this IoU."""
OUTPUTS = {"cam": "maps", "seg": "segmentation"}

Results = Mapping[str, Any]
Seeds = Mapping[int, float]
Read = Callable[[Results], float | None]
"""Results of a run -> number, 0..1 unless its name says otherwise; None where there is none."""


def find(results: Results, path: str) -> Any:
    """A part of nested results by its dotted path; None where there is no such part."""
    here: Any = results
    for key in path.split("."):
        if not isinstance(here, Mapping) or here.get(key) is None:
            return None
        here = here[key]
    return here


def at(*paths: str) -> Read:
    """Read the first of some paths that a run's results have."""

    def read(results: Results) -> float | None:
        found = (find(results, path) for path in paths)
        return next((float(value) for value in found if value is not None), None)

    return read


def mean_of(*paths: str) -> Read:
    """Read the mean of some numbers; None unless all of them are there."""

    def read(results: Results) -> float | None:
        found = [find(results, path) for path in paths]
        return None if None in found else fmean(found)

    return read


def pooled(output: str, key: str) -> Read:
    """Read a share of every class, such as `over_activation`, pooled over all object pixels."""

    def read(results: Results) -> float | None:
        scores = find(results, f"val.{output}")
        if scores is None or key not in scores:
            return None
        pixels, shares = scores["pixels"][1:], scores[key][1:]
        return sum(p * s for p, s in zip(pixels, shares, strict=True)) / sum(pixels)

    return read


def lost(output: str) -> Read:
    """Read how many of the classes have next to no pixel right: a number, not a share."""

    def read(results: Results) -> float | None:
        iou = find(results, f"val.{output}.iou")
        return None if iou is None else float(sum(value < LOST for value in iou[1:]))

    return read


@dataclass(frozen=True)
class Measure:
    """One number of a run."""

    head: str
    """Head of its column."""
    read: Read
    up: bool = True
    """Whether more of it is better."""
    scale: float = 100
    """100 for shares, 1 for counts."""


def errors_of(output: str) -> list[Measure]:
    """Measures of the errors of one output, `cam` or `seg`."""
    here = f"val.{output}"
    return [
        Measure("near", at(f"{here}.coverage.near")),
        Measure("far", at(f"{here}.coverage.far")),
        Measure("on context", contexts(output), up=False),
        Measure("elsewhere", elsewhere(output), up=False),
        Measure("excess", pooled(output, "over_activation"), up=False),
        Measure("left out", pooled(output, "under_activation"), up=False),
        Measure("classes lost", lost(output), up=False, scale=1),
    ]


def contexts(output: str) -> Read:
    """Read what boats claim of water and trains of rails."""
    return mean_of(*(f"val.{output}.context.{name}" for name in ("boat_water", "train_rails")))


def elsewhere(output: str) -> Read:
    """Read what boats and trains claim of the other background of the same scenes."""
    return mean_of(*(f"val.{output}.context.{name}" for name in ("boat_other", "train_other")))


SCORES = [
    Measure("tags", at("val.tags.map")),
    Measure("maps", at("val.cam.miou")),
    Measure("labels", at("pseudo_labels.cam+true tags.miou", "voices.train.label_b.miou")),
    Measure("segmentation", at("val.seg.miou")),
]


def runs_of(study: str, profile: str = "cpu") -> dict[str, dict[int, Any]]:
    """Finished runs of a study: arm -> seed -> the record's `run`."""
    found: dict[str, dict[int, Any]] = {}
    for file in sorted((RECORDS / "studies" / study / profile).glob("*-seed*.json")):
        record = load_record(f"studies/{study}/{profile}/{file.stem}")
        if record["status"] == "finished":
            run = with_counts(record["run"], file.with_suffix(".counts.npz"))
            found.setdefault(record["arm"], {})[record["seed"]] = run
    return found


def with_counts(run: Mapping[str, Any], file: Path) -> Mapping[str, Any]:
    """Add what a study's scorer has counted, under the names of the recipes' own scores.

    Outputs that the recipe itself has scored stay as they are.

    Args:
        run: of a record.
        file: its counts; a run without them is returned as it is.
    """
    if not file.is_file():
        return run
    results, scored = run["results"], run["results"]["scored"]
    main = "seg" if scored["main"]["is"] == "segmentation" else "cam"
    val = dict(results.get("val") or {})
    with np.load(file) as counts:
        entries = {main if name == "main" else name: counts[name].sum(axis=0) for name in counts}
    for output, (hit, predicted, true) in entries.items():
        before = val.get(output) or {}
        if "miou" in before:
            continue
        iou = hit / np.maximum(predicted + true - hit, 1)
        val[output] = {
            "protocol": scored["protocol"]
            | {"thresholds": f"fixed at {scored['protocol']['map_threshold']}"},
            "pixels": true.tolist(),
            "iou": iou.tolist(),
            "miou": scored[output]["miou"],
            "over_activation": ((predicted - hit) / np.maximum(true, 1)).tolist(),
            "under_activation": ((true - hit) / np.maximum(true, 1)).tolist(),
            **before,
        }
    val[main] = {**val[main], "outline": scored["boundary"]["f"]}
    return {**run, "results": {**results, "val": val}}


def values(runs: Mapping[int, Any], read: Read) -> dict[int, float]:
    """A number by seed, of the runs that have it."""
    found = {seed: read(run["results"]) for seed, run in runs.items()}
    return {seed: value for seed, value in found.items() if value is not None}


def half_width(sample: Sequence[float]) -> float | None:
    """Half of the 95 % t interval of a sample's mean; None below two values."""
    if len(sample) < 2:
        return None
    return t_quantile(CONFIDENCE, len(sample) - 1) * stdev(sample) / math.sqrt(len(sample))


def shown(seeds: Seeds, measure: Measure) -> str:
    """Mean over seeds with the half of its interval, such as `37.7 ± 1.2`."""
    if not seeds:
        return NONE
    sample = [measure.scale * value for value in seeds.values()]
    half = half_width(sample)
    text = f"{fmean(sample):.1f}"
    return text if half is None else plus_minus(text, half)


def plus_minus(text: str, half: float) -> str:
    """A number with half of its interval."""
    return f"{text} ± {half:.1f}"


def signed(value: float) -> str:
    """A number with its sign, as it is printed; 0.0 has none."""
    text = f"{value:+.1f}".replace("-", "−")
    return text[1:] if float(f"{value:.1f}") == 0 else text


@dataclass(frozen=True)
class Effect:
    """Difference of a technique to its control in one measure, paired by seed."""

    mean: float
    half: float | None
    """Half of its interval, not corrected for the number of intervals; None below two seeds."""
    up: bool
    """Whether more is better."""
    seeds: int

    @property
    def word(self) -> str:
        """`better` or `worse` where the interval excludes zero; `not shown`; `one seed`."""
        if self.half is None:
            return "one seed"
        if abs(self.mean) <= self.half or not float(f"{self.mean:.1f}"):
            return "not shown"
        return "better" if (self.mean > 0) == self.up else "worse"

    @property
    def p(self) -> float:
        """Its p value; 1 without an interval, and where nothing differs in any seed."""
        if not self.half:
            return 1.0
        error = self.half / t_quantile(CONFIDENCE, self.seeds - 1)
        return t_tail(self.mean / error, self.seeds - 1)

    @property
    def interval(self) -> str:
        """Mean and interval, such as `+3.4 [+2.8, +4.1]`."""
        half = self.half or 0.0
        ends = f"[{signed(self.mean - half)}, {signed(self.mean + half)}]"
        return f"{signed(self.mean)} {ends}"

    def __str__(self) -> str:
        if self.half is None:
            return f"({signed(self.mean)})"
        if self.word != "not shown":
            return f"**{self.interval}**"
        return f"not shown, {self.smallest}" if self.mean or self.half else "no change"

    @property
    def smallest(self) -> str:
        """The smallest difference whose interval would have excluded zero."""
        return f"{self.half:.1f}" if self.half and self.half >= 0.05 else "below 0.1"


def effect(arm: Mapping[int, Any], control: Mapping[int, Any], measure: Measure) -> Effect | None:
    """Compare two arms on the seeds that both have; None where they share no number."""
    one, other = values(arm, measure.read), values(control, measure.read)
    sample = [measure.scale * (one[seed] - other[seed]) for seed in sorted(one) if seed in other]
    if not sample:
        return None
    return Effect(fmean(sample), half_width(sample), measure.up, len(sample))
