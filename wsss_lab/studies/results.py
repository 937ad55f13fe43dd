"""Results of a study for chapters: reading and tables."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wsss_lab.printable import row
from wsss_lab.records import RECORDS
from wsss_lab.studies.arm_result import ArmResult, Difference, Summary
from wsss_lab.studies.declare import DECLARED, TEXTS, Metric, read_declaration
from wsss_lab.studies.plan import read_json
from wsss_lab.viz.studies import DifferenceRow

FORMAT = 1
SIGNS = {
    "better": "better",
    "worse": "worse",
    "not shown": "not shown",
    "null": "not shown, within the margin",
    "undecided": "not shown",
    "incomplete": "incomplete: runs are missing",
}
"""Verdict -> words of the table. Declarations of former times had two words for "not shown": null,
where the whole interval lies within the margin, also if it excludes zero; else undecided."""


SMALLEST = (
    "In brackets beside a verdict: the smallest mean difference that this study would have shown, "
    "at the spread that it had."
)


def lookup(results: Any, path: str) -> float | None:
    """Look up a number in nested results; None where it is undefined in this run (NaN).

    Raises:
        ValueError: the path leads nowhere, or to no number.
    """
    here = results
    for key in path.split("."):
        if not isinstance(here, Mapping) or key not in here:
            known = sorted(here) if isinstance(here, Mapping) else "no names"
            raise ValueError(f"metric {path!r}: there is no {key!r}, but {known}")
        here = here[key]
    if here is None:
        return None
    if isinstance(here, bool) or not isinstance(here, int | float):
        raise ValueError(f"metric {path!r}: expected a number, got {here!r}")
    return float(here) if math.isfinite(here) else None


@dataclass(frozen=True)
class StudyResult:
    """Aggregate of a study; see `wsss_lab.studies.aggregate`."""

    name: str
    title: str
    question: str
    hypothesis: str
    decision: str
    budget: str
    profile: str
    reduced: bool
    """True for a reduced study, as `note` explains."""
    note: str
    baseline: str
    primary: str
    margin: float
    interval: str
    """Description of the intervals."""
    metrics: dict[str, Metric]
    arms: dict[str, ArmResult]
    missing: list[str]
    """Runs without result, with the reason."""
    complete: bool
    seeds: tuple[int, ...]
    provenance: dict[str, Any]
    """Devices, git revisions, versions, weights, protocols, sha256 of the declaration."""
    rule: dict[str, Any] = field(default_factory=dict)
    """Result of the declaration's further rule, see `wsss_lab.studies.rules`; `lines` has it in
    words, `verdicts` by claim."""

    def table(self, metrics: Sequence[str] | None = None, judged: bool = True) -> str:
        """Make a Markdown table of all arms, with the necessary remarks.

        Args:
            metrics: names of the columns; None takes all.
            judged: include differences, verdicts and all remarks. False leaves them out, for a
                second table that explains a first one.

        Raises:
            ValueError: no such metric.
        """
        chosen = list(self.metrics) if metrics is None else list(metrics)
        if unknown := [name for name in chosen if name not in self.metrics]:
            raise ValueError(f"metrics: expected some of {list(self.metrics)}, got {unknown}")
        head = ["arm", *(self.metrics[name].what for name in chosen)]
        if not judged:
            rows = [row(head), "|---" * len(head) + "|"]
            return "\n".join(rows + [row(self._scores(arm, chosen)) for arm in self.arms])
        head += ["difference to its baseline" if self._several() else "difference to the baseline"]
        head += ["verdict"]
        rows = [row(head), "|---" * len(head) + "|"]
        rows += [row(self._row(name, chosen)) for name in self.arms]
        if self.rule:
            rows += ["", *(f"- {line}" for line in self.rule["lines"])]
        return "\n".join([*rows, "", *self.remarks()])

    def _scores(self, name: str, metrics: Sequence[str]) -> list[str]:
        arm = self.arms[name]
        what = f"{name}: {arm.what}" if self._several() else arm.what
        cells = [f"{what} (baseline)" if name == self.baseline else what]
        return cells + [_shown(arm.metrics[key], self.metrics[key]) for key in metrics]

    def _row(self, name: str, metrics: Sequence[str]) -> list[str]:
        arm, cells = self.arms[name], self._scores(name, metrics)
        if not arm.baseline:
            return [*cells, "", ""]
        shown = _shown(arm.differences[self.primary], self.metrics[self.primary])
        cells.append(f"{shown} to {arm.baseline}" if self._several() else shown)
        return [*cells, self._verdict(arm)]

    def _verdict(self, arm: ArmResult) -> str:
        """Name the verdict, and beside it the smallest difference that would have been shown."""
        smallest, percent = arm.smallest(self.primary), self.metrics[self.primary].percent
        if smallest is None or arm.verdict == "incomplete":
            return SIGNS[arm.verdict]
        shown = f"{100 * smallest:.1f} points" if percent else f"{smallest:.3f}"
        return f"{SIGNS[arm.verdict]} (from {shown})"

    def rows(self, metric: str | None = None) -> list[DifferenceRow]:
        """Return the rows for `wsss_lab.viz.difference_plot`: all arms but the baseline.

        Args:
            metric: metric of the differences; None takes the primary one. Shares are in percent
                points.

        Raises:
            ValueError: no such metric.
        """
        metric = metric or self.primary
        if metric not in self.metrics:
            raise ValueError(f"metric: expected one of {list(self.metrics)}, got {metric!r}")
        scale = 100 if self.metrics[metric].percent else 1
        found = []
        for name, arm in self.arms.items():
            difference = arm.differences.get(metric)
            if difference is None or difference.mean is None:
                continue
            low, high = (
                None if end is None else scale * end for end in (difference.low, difference.high)
            )
            seeds = [scale * value for _, value in sorted(difference.per_seed.items())]
            title = f"{name} − {arm.baseline}"
            found.append(DifferenceRow(title, seeds, scale * difference.mean, low, high))
        return found

    def _several(self) -> bool:
        """Return whether the arms have different baselines."""
        return len({arm.baseline for arm in self.arms.values()} - {""}) > 1

    def remarks(self) -> list[str]:
        """Return the sentences below the table."""
        seeds = ", ".join(map(str, self.seeds))
        lines = [self.note] if self.note else []
        lines.append(f"Mean and standard deviation over seeds {seeds}.")
        primary = self.metrics[self.primary]
        lines.append(f"Differences are of “{primary.what}”, arm minus baseline. {self.interval}")
        lines.append(SMALLEST)
        lines.append(f"Run on {', '.join(self.provenance['devices']) or 'nothing yet'}.")
        if self.missing:
            lines.append(f"Missing: {'; '.join(self.missing)}.")
        return lines


def _shown(found: Summary, metric: Metric) -> str:
    """Format e.g. "51.2 ± 0.4 %"; differences with their sign and interval."""
    if found.mean is None:
        return "–"
    scale, digits, unit = (100, 1, " %") if metric.percent else (1, 3, "")
    if isinstance(found, Difference):
        unit = " points" if metric.percent else ""
        text = f"{scale * found.mean:+.{digits}f}"
        if found.low is not None and found.high is not None:
            text += f" [{scale * found.low:+.{digits}f}, {scale * found.high:+.{digits}f}]"
        return text + unit
    text = f"{scale * found.mean:.{digits}f}"
    if found.sd is not None:
        text += f" ± {scale * found.sd:.{digits}f}"
    return text + unit


def load_study(
    name: str,
    profile: str | None = None,
    *,
    records: Path | None = None,
    declared: Path = DECLARED,
) -> StudyResult:
    """Load the aggregate of a study.

    Args:
        name: name of the study.
        profile: "full" or "cpu"; None takes the full one if it exists.
        records: folder of the records of all studies; None takes those that come with the package.
        declared: folder of the declarations.

    Raises:
        FileNotFoundError: there is no aggregate; the message has the command that makes one.
        ValueError: no such study, or the aggregate is of another declaration.
    """
    declaration = read_declaration(name, declared)
    folder = (records or RECORDS / "studies") / name
    files = [folder / f"{p}.json" for p in ([profile] if profile else ("full", "cpu"))]
    found = next((file for file in files if file.is_file()), None)
    if found is None:
        raise FileNotFoundError(
            f"{files[0]}: study {name} has no results; make them with: "
            f"python -m wsss_lab.studies run {name}"
        )
    content = read_json(found)
    if content.get("format") != FORMAT or content["declaration_sha256"] != declaration.sha256:
        raise ValueError(
            f"{found}: of another declaration of {name} than the one that is there now; run the "
            "study again, or bring its declaration back"
        )
    return _typed(content)


def _typed(content: dict[str, Any]) -> StudyResult:
    arms = {
        name: ArmResult(
            what=arm["what"],
            settings=arm["settings"],
            metrics={key: Summary(**_by_seed(value)) for key, value in arm["metrics"].items()},
            differences={
                key: Difference(**_by_seed(value)) for key, value in arm["differences"].items()
            },
            verdict=arm["verdict"],
            test=arm.get("test", {}),
            baseline=arm.get(
                "baseline", "" if name == content["baseline"] else content["baseline"]
            ),
        )
        for name, arm in content["arms"].items()
    }
    metrics = {key: Metric(**value) for key, value in content["metrics"].items()}
    order = content["order"]
    same = ("profile", "reduced", "note", "margin", "interval", "missing", "complete", "provenance")
    return StudyResult(
        name=content["study"],
        metrics={key: metrics[key] for key in order["metrics"]},
        arms={key: arms[key] for key in order["arms"]},
        seeds=tuple(content["seeds"]),
        rule=content.get("rule", {}),
        **{key: content[key] for key in (*TEXTS, *same)},
    )


def _by_seed(value: dict[str, Any]) -> dict[str, Any]:
    return value | {"per_seed": {int(seed): x for seed, x in value["per_seed"].items()}}
