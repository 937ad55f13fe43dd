"""The lock of a study's run: one process works on it at a time."""

import contextlib
from pathlib import Path

from wsss_lab.train import lock

LOCK = "lock"
"""File of the lock of a study's run. The run itself, in `run/`, has its own, as every run has."""


def require_locks() -> None:
    """Check that the operating system has locks that end with their process.

    Raises:
        ValueError: it has none.
    """
    try:
        import fcntl  # noqa: F401
    except ImportError as error:
        raise ValueError("studies run on Linux and macOS only; use WSL on Windows") from error


def is_held(folder: Path) -> bool:
    """Return whether a living process works on the run in a folder."""
    require_locks()
    return lock.FolderLock(folder, LOCK).is_held()


def hold(folder: Path, wait: float = 10.0) -> contextlib.AbstractContextManager[bool]:
    """Lock a run's folder for this process; gives False if another one holds it after `wait` s."""
    require_locks()
    return lock.hold(folder, wait, LOCK)
