"""Files that a finished run leaves for git beside its record, free of paths of a machine."""

from functools import partial
from typing import Any, BinaryIO

from wsss_lab.config import write_atomically
from wsss_lab.studies.plan import PlannedRun

KEEP_BYTES = 100_000
"""Largest file that is kept beside a record; records are for git."""


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


def without_roots(values: Any) -> Any:
    """Remove the folders of data sets from settings: records hold no paths of a machine."""
    if isinstance(values, dict):
        kept = {key: without_roots(value) for key, value in values.items()}
        return kept | ({"root": None} if "root" in kept else {})
    return values
