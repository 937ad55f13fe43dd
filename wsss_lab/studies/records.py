"""Files that a finished run leaves for git beside its record, free of paths of a machine."""

from functools import partial
from typing import Any, BinaryIO

from wsss_lab.config import write_atomically
from wsss_lab.studies.plan import PlannedRun, read_json
from wsss_lab.studies.scorers import SCORED

KEEP_BYTES = 100_000
"""Largest file that is kept beside a record; records are for git."""


def is_scored(run: PlannedRun) -> bool:
    """Whether a run has all its scores, those of the declared scorer included."""
    files = ["metrics.json", *([SCORED] if run.declaration.scorer else [])]
    return all((run.folder / "run" / file).is_file() for file in files)


def read_metrics(run: PlannedRun) -> dict[str, Any]:
    """Read a run's `metrics.json`; scores of the declared scorer are its `results.scored`."""
    metrics = read_json(run.folder / "run" / "metrics.json")
    if run.declaration.scorer:
        metrics["results"]["scored"] = read_json(run.folder / "run" / SCORED)
    return metrics


def keep_files(run: PlannedRun) -> None:
    """Copy the files that the declaration keeps, before the record, which marks the run as done.

    Raises:
        ValueError: the run left no such file, or one of more than `KEEP_BYTES`.
    """
    for file, target in run.kept.items():
        source = run.folder / "run" / file
        if not source.is_file():
            raise ValueError(f"keep: the run left no {file}")
        data = source.read_bytes()
        if len(data) > KEEP_BYTES:
            raise ValueError(f"keep: {file} has {len(data)} bytes, more than {KEEP_BYTES}")
        write_atomically(target, partial(_write, data))


def _write(data: bytes, file: BinaryIO) -> None:
    file.write(data)


def without_paths(values: Any, start: str = "", name: str = "") -> Any:
    """Remove the folders of data sets and of the study: records hold no paths of a machine.

    Args:
        values: a run's `metrics.json`.
        start: file of the weights that the run began with, as its settings name it.
        name: put in its place.
    """
    if isinstance(values, dict):
        kept = {key: without_paths(value, start, name) for key, value in values.items()}
        return kept | ({"root": None} if "root" in kept else {})
    if isinstance(values, list):
        return [without_paths(value, start, name) for value in values]
    return name if start and values == start else values


def start_name(run: PlannedRun) -> str:
    """Name the weights that a run began with by arm, seed and file."""
    start = run.declaration.arms[run.arm].start
    return f"{start.arm}-seed{run.seed}/{start.file}" if start else ""
