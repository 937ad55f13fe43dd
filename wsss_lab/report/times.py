"""Planned and real times of the parts of a run.

The log of a training has the speed between its entries, so its time is without pauses. Labelling
and scoring keep no log; theirs is taken from the times of files.
"""

import itertools
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wsss_lab.report.gather import RunFacts
from wsss_lab.runs.contents import LABEL_FOLDERS
from wsss_lab.train.log import History

EVALUATE = "evaluate"
"""Name of the last part in plans."""
TRUSTED = 0.9
"""Share of the logged time that must lie between the first and the last file: those of a copied
folder have the times of the copy."""


@dataclass
class Part:
    """One part of a run; NaN and empty where something is not known."""

    name: str
    amount: str = ""
    planned: float = math.nan
    """Seconds."""
    planned_memory: float = math.nan
    """GB."""
    took: float = math.nan
    """Seconds."""
    memory: float = math.nan
    """GB."""
    from_files: bool = False
    """Whether `took` comes from the times of files."""


def logged_seconds(entries: History, batch: int) -> float:
    """Add up the seconds between the entries of a log.

    Args:
        entries: of the log.
        batch: images per step, over all devices.
    """
    steps = [-1.0, *(entry["step"] for entry in entries)]
    total = 0.0
    for (before, now), entry in zip(itertools.pairwise(steps), entries, strict=True):
        speed = entry.get("images_per_s", math.nan)
        total += (now - before) * batch / speed if speed > 0 else math.nan
    return total


def parts(found: RunFacts) -> list[Part]:
    """List the parts of a run in the order of its plan; without one, as they ended."""
    known: dict[str, Part] = {}
    for row in _rows(found.plan):
        part = known.setdefault(_stage_of(row), Part(_stage_of(row), planned=0.0))
        amount, seconds = _number(row.get("amount")), _number(row.get("seconds_each"))
        part.planned += amount * seconds
        part.planned_memory = _largest((part.planned_memory, _number(row.get("memory_gb"))))
        text = f"{amount:g} {row.get('unit', '')}"
        part.amount = f"{part.amount} + {text}" if part.amount else text
    for name, entries in found.logs.items():
        part = known.setdefault(name, Part(name))
        stage = found.stage_of(name)
        run = stage.run if stage else getattr(found.config, "run", None)
        part.took = logged_seconds(entries, run.batch) if run else math.nan
        part.memory = _number(found.records.get(name, {}).get("peak_memory_gb"))
        done, of = found.steps_of(name)
        part.amount = f"{done} of {of} steps" if of and done < of else f"{of or done} steps"
    for name, seconds in between_files(found).items():
        part = known.setdefault(name, Part(name))
        part.took, part.from_files = seconds, True
    if not found.plan:
        return sorted(known.values(), key=lambda part: _end(found, part.name))
    return list(known.values())


def _end(found: RunFacts, name: str) -> float:
    """Time of the last file of a part."""
    if name == EVALUATE:
        return _newest([found.folder / "metrics.json"])
    place = found.folder / name
    logs = [place / "log.csv"] if place.is_dir() else [found.folder / "log.csv"]
    return _newest([*logs, *(place.glob("*.png") if name in LABEL_FOLDERS else ())])


def _rows(plan: Mapping[str, Any] | None) -> list[Mapping[str, Any]]:
    rows = plan.get("stages") if plan else None
    return [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []


def _stage_of(row: Mapping[str, Any]) -> str:
    """Name of the stage of a row of a plan: "fit" for "fit, tags only"."""
    return str(row.get("stage", "")).partition(",")[0]


def between_files(found: RunFacts) -> dict[str, float]:
    """Seconds of labelling and scoring, each from the file before to its own last one.

    Empty if the times of the files are not those of the run.
    """
    folder = found.folder
    marks = {folder / "config.json", *folder.glob("*.safetensors"), *folder.glob("*/*.safetensors")}
    ends = {name: _newest((folder / name).glob("*.png")) for name in LABEL_FOLDERS}
    if found.metrics is not None:
        ends[EVALUATE] = _newest([folder / "metrics.json"])
    ends = {name: end for name, end in ends.items() if end}
    times = [_newest([file]) for file in marks] + list(ends.values())
    logged = sum(
        logged_seconds(entries, stage.run.batch)
        for name, entries in found.logs.items()
        if (stage := found.stage_of(name))
    )
    if not logged or max(times) - min(times) < TRUSTED * logged:
        return {}
    return {
        name: end - max((t for t in times if t < end), default=end) for name, end in ends.items()
    }


def whole(found: RunFacts) -> float:
    """Seconds from the first file of a run to its last, pauses included; NaN if not known."""
    if found.metrics is None or not between_files(found):
        return math.nan
    start, end = (_newest([found.folder / name]) for name in ("config.json", "metrics.json"))
    return end - start


def _newest(files: Iterable[Path]) -> float:
    return max((file.stat().st_mtime for file in files if file.is_file()), default=0.0)


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else math.nan


def _largest(values: Iterable[float]) -> float:
    return max((v for v in values if not math.isnan(v)), default=math.nan)


def in_words(seconds: float) -> str:
    """Format a time: seconds below two minutes, minutes below three hours, then hours."""
    if math.isnan(seconds):
        return "–"
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 10_800 else f"{seconds / 3600:.1f} h"
