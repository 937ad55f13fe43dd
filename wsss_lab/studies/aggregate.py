"""Aggregation of a study's records: the same records always give the same file, byte for byte.

Verdicts are those of `judge` for declarations of former times (``verdicts: interval``), and those
of `wsss_lab.studies.verdicts` for others.
"""

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
from wsss_lab.studies.scorers import COUNTS
from wsss_lab.studies.student_t import t_quantile
from wsss_lab.studies.verdicts import describe, judge_study


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
        margin: differences below it are negligible; 0 excludes that verdict.
        higher_is_better: direction of the metric.
        complete: all declared runs of arm and baseline exist; before that there is no verdict.

    Returns:
        "incomplete"; else "null", a word of former declarations, if the interval lies within the
        margin; else "better" or "worse" if it excludes zero; else "undecided", as with a single
        seed.
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
    tests = _tests(declaration, profile, values[declaration.primary], runs)
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
        "interval": _interval(declaration, tests),
        "arms": {
            arm: _arm(declaration, profile, arm, values, incomplete, tests.get(arm)) for arm in arms
        },
        "missing": [
            f"{r.name} ({'failed: ' + whys[r.name] if r.name in whys else 'not finished'})"
            for r in missing
        ],
        "complete": not missing,
        "provenance": _provenance(declaration, list(done.values())),
        **({"rule": _rule(declaration, runs, done)} if declaration.rule else {}),
    }


def _tests(
    declaration: Declaration,
    profile: str,
    values: Mapping[str, Mapping[int, float]],
    runs: list[PlannedRun],
) -> dict[str, dict[str, Any]]:
    """Judge the arms as the study declares it; empty where each is judged alone."""
    if declaration.verdicts != "blocks":
        return {}
    counts: dict[str, dict[int, Path]] = {}
    for run in runs:
        if COUNTS in run.kept:
            counts.setdefault(run.arm, {})[run.seed] = run.kept[COUNTS]
    return judge_study(
        {name: arm.baseline for name, arm in declaration.arms_of(profile).items()},
        values,
        declaration.profiles[profile].seeds,
        declaration.confidence,
        declaration.metrics[declaration.primary].higher_is_better,
        counts or None,
    )


def _interval(declaration: Declaration, tests: Mapping[str, Mapping[str, Any]]) -> str:
    if declaration.verdicts == "blocks":
        return describe(declaration.confidence, len(tests), COUNTS in declaration.keep)
    percent = declaration.metrics[declaration.primary].percent
    return describe_interval(declaration.confidence, declaration.margin, percent)


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
    test: Mapping[str, Any] | None,
) -> dict[str, Any]:
    baseline, primary = declaration.arms[arm].baseline, declaration.primary
    differences = {}
    if baseline:
        differences = {
            key: paired(values[key][arm], values[key][baseline], declaration.confidence)
            for key in declaration.metrics
        }
    verdict = test["verdict"] if test else ""
    if test and "low" in test:
        differences[primary] |= {end: test[end] for end in ("low", "high")}
    elif differences and not test:
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
        **({"test": {key: test[key] for key in test if key not in TOLD}} if test else {}),
    }


TOLD = ("verdict", "mean", "low", "high")
"""Parts of a test that stand elsewhere."""


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
