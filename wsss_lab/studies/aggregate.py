"""Aggregation of a study's records: the same records always give the same file, byte for byte."""

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from wsss_lab.config import write_json
from wsss_lab.studies.declare import REDUCED_NOTE, TEXTS, Declaration
from wsss_lab.studies.plan import PlannedRun, plan, read_json, require_none_foreign
from wsss_lab.studies.results import FORMAT
from wsss_lab.studies.rules import FinishedRun, find_rule


def t_quantile(confidence: float, df: int) -> float:
    """Return the half-width, in standard errors, of a two-sided interval of Student's t.

    Args:
        confidence: 0..1, e.g. 0.95.
        df: degrees of freedom, from 1.
    """
    if df < 1 or not 0 < confidence < 1:
        raise ValueError(f"expected df from 1 and 0 < confidence < 1, got {df}, {confidence}")
    low, high = 0.0, 1.0
    while _t_mass(high, df) < confidence:
        high *= 2
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if _t_mass(middle, df) < confidence else (low, middle)
    return (low + high) / 2


def _t_mass(t: float, df: int) -> float:
    """Probability of [-t, t]: finite series for whole df (Abramowitz and Stegun 26.7.3, 26.7.4)."""
    angle = math.atan(t / math.sqrt(df))
    cos2 = math.cos(angle) ** 2
    total, term = 0.0, 1.0
    for k in range(2 + df % 2, df + 1, 2):
        total += term
        term *= (k - 1) / k * cos2
    if df % 2:
        return 2 / math.pi * (angle + math.sin(angle) * math.cos(angle) * total)
    return math.sin(angle) * total


def summarise(per_seed: Mapping[int, float]) -> dict[str, Any]:
    """Return mean and standard deviation of a sample; None where they are undefined."""
    values = [per_seed[seed] for seed in sorted(per_seed)]
    return {
        "mean": fmean(values) if values else None,
        "sd": stdev(values) if len(values) > 1 else None,
        "n": len(values),
        "per_seed": {str(seed): per_seed[seed] for seed in sorted(per_seed)},
    }


def paired(
    arm: Mapping[int, float], baseline: Mapping[int, float], confidence: float
) -> dict[str, Any]:
    """Compare arm and baseline on their common seeds, with a t interval of the mean difference."""
    found = summarise({seed: arm[seed] - baseline[seed] for seed in arm if seed in baseline})
    low = high = None
    if found["n"] > 1:
        half = t_quantile(confidence, found["n"] - 1) * found["sd"] / math.sqrt(found["n"])
        low, high = found["mean"] - half, found["mean"] + half
    return {**found, "low": low, "high": high}


def judge(
    difference: Mapping[str, Any], margin: float, higher_is_better: bool, complete: bool
) -> str:
    """Return the verdict on an arm.

    Args:
        difference: result of `paired`.
        margin: differences below it are negligible; 0 excludes a null result.
        higher_is_better: direction of the metric.
        complete: all declared runs of arm and baseline exist; before that there is no verdict.

    Returns:
        "incomplete"; else "null" if the interval lies within the margin; else "better" or "worse"
        if it excludes zero; else "undecided", as with a single seed.
    """
    low, high = difference["low"], difference["high"]
    if not complete:
        return "incomplete"
    if low is None:
        return "undecided"
    if -margin < low and high < margin:
        return "null"
    if low > 0 or high < 0:
        return "better" if (low > 0) == higher_is_better else "worse"
    return "undecided"


def describe_interval(confidence: float, margin: float, percent: bool) -> str:
    """Describe the intervals in words."""
    shown = f"{100 * margin:g} points" if percent else f"{margin:g}"
    return (
        f"Intervals are two-sided {100 * confidence:g} % t intervals of the mean paired "
        "difference, n - 1 degrees of freedom, over the seeds that arm and baseline share; they "
        "cover the spread of training on one data set, not that of other data, and are not widened "
        f"for the number of arms. Null: the whole interval lies within ±{shown}."
    )


def aggregate(declaration: Declaration, profile: str, *, work: Path, records: Path) -> Path:
    """Write `RECORDS/STUDY/PROFILE.json` from the records of the runs.

    Args:
        declaration: declaration of the study.
        profile: "full" or "cpu".
        work: folder of the runs; read only to detect foreign ones.
        records: folder of the records of all studies.

    Returns:
        The file.

    Raises:
        ValueError: runs of another declaration are among them, or a record is damaged.
    """
    runs = plan(declaration, profile, work, records)
    require_none_foreign(runs)
    target = records / declaration.name / f"{profile}.json"
    write_json(target, summary_of(declaration, profile, runs))
    return target


def summary_of(declaration: Declaration, profile: str, runs: list[PlannedRun]) -> dict[str, Any]:
    """Collect all numbers of a study; see `aggregate`."""
    found = {run.name: read_json(run.record) for run in runs if run.record.is_file()}
    done = {name: record for name, record in found.items() if record["status"] == "finished"}
    whys = {name: record.get("error", "") for name, record in found.items()}
    arms = declaration.arms_of(profile)
    values = {
        metric: {arm: _per_seed(runs, done, arm, metric) for arm in arms}
        for metric in declaration.metrics
    }
    missing = [run for run in runs if run.name not in done]
    incomplete = {run.arm for run in missing}
    reduced = declaration.profiles[profile].reduced
    return {
        "format": FORMAT,
        "study": declaration.name,
        **{key: getattr(declaration, key) for key in COPIED},
        "declaration_sha256": declaration.sha256,
        "profile": profile,
        "reduced": reduced,
        "note": REDUCED_NOTE if reduced else "",
        "what": declaration.profiles[profile].what,
        "seeds": list(declaration.profiles[profile].seeds),
        "metrics": {key: dataclasses.asdict(m) for key, m in declaration.metrics.items()},
        "order": {"arms": list(arms), "metrics": list(declaration.metrics)},
        "interval": describe_interval(
            declaration.confidence,
            declaration.margin,
            declaration.metrics[declaration.primary].percent,
        ),
        "arms": {arm: _arm(declaration, profile, arm, values, incomplete) for arm in arms},
        "missing": [
            f"{r.name} ({'failed: ' + whys[r.name] if r.name in whys else 'not finished'})"
            for r in missing
        ],
        "complete": not missing,
        "provenance": _provenance(declaration, list(done.values())),
        **({"rule": _rule(declaration, runs, done)} if declaration.rule else {}),
    }


COPIED = (*TEXTS, "margin", "confidence")
"""Parts of the declaration that are copied to the aggregate."""


def _rule(
    declaration: Declaration, runs: list[PlannedRun], done: Mapping[str, Any]
) -> dict[str, Any]:
    """Apply the declaration's further rule to the finished runs."""
    found = [(run, done[run.name]) for run in runs if run.name in done]
    finished = [
        FinishedRun(run.arm, run.seed, record["metrics"], run.kept) for run, record in found
    ]
    wanted: dict[str, set[int]] = {}
    for run in runs:
        wanted.setdefault(run.arm, set()).add(run.seed)
    return find_rule(declaration.rule)(finished, wanted)


def _per_seed(
    runs: list[PlannedRun], done: Mapping[str, Any], arm: str, metric: str
) -> dict[int, float]:
    mine = [run for run in runs if run.arm == arm and run.name in done]
    numbers = {run.seed: done[run.name]["metrics"][metric] for run in mine}
    return {seed: number for seed, number in numbers.items() if number is not None}


def _arm(
    declaration: Declaration,
    profile: str,
    arm: str,
    values: Mapping[str, Mapping[str, Mapping[int, float]]],
    incomplete: set[str],
) -> dict[str, Any]:
    baseline, primary = declaration.arms[arm].baseline, declaration.primary
    differences = {}
    if baseline:
        differences = {
            key: paired(values[key][arm], values[key][baseline], declaration.confidence)
            for key in declaration.metrics
        }
    verdict = ""
    if differences:
        verdict = judge(
            differences[primary],
            declaration.margin,
            declaration.metrics[primary].higher_is_better,
            complete=not incomplete & {arm, baseline},
        )
    return {
        "what": declaration.arms[arm].what,
        "method": declaration.arms[arm].method,
        "preset": declaration.arms[arm].preset,
        "settings": declaration.settings_of(arm, profile),
        "metrics": {key: summarise(values[key][arm]) for key in declaration.metrics},
        "baseline": baseline,
        "differences": differences,
        "verdict": verdict,
    }


def _provenance(declaration: Declaration, records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Collect the provenance of the numbers: every value that occurs among the runs."""
    protocols = {
        key: _distinct(_protocol(record["run"]["results"], metric.path) for record in records)
        for key, metric in declaration.metrics.items()
    }
    return {
        "devices": _distinct(record["run"].get("device", "unknown") for record in records),
        "git": _distinct(record["git"] for record in records),
        "declaration_committed": _distinct(r["declaration_committed"] for r in records),
        "versions": _distinct(record["run"]["versions"] for record in records),
        "weights": _distinct(record["run"].get("weights", "none") for record in records),
        "protocols": protocols,
    }


def _distinct(values: Any) -> list[Any]:
    texts = sorted({json.dumps(value, sort_keys=True) for value in values})
    return [json.loads(text) for text in texts]


def _protocol(results: Any, path: str) -> Any:
    """Find the protocol stored beside a number or beside a parent of it; None without one."""
    found, here = None, results
    for key in path.split(".")[:-1]:
        here = here[key]
        found = here.get("protocol", found)
    return found
