"""One folder, one owner: a lock that is held by a living process and ends with it.

The lock is `flock` on a hidden file in the folder. However a process ends, the system releases it,
so nothing has to be cleaned up after a kill. Processes that this one forks, e.g. to read images, do
not keep it: they close their copy at once.
"""

import contextlib
import errno
import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from wsss_lab.config import output_error

NAME = ".lock"
"""File of the lock of a run's folder."""
POLL = 0.1
"""Seconds between two tries."""

_UNSUPPORTED = {errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK}


class FolderLock:
    """A lock on a folder, not yet held.

    Where the file system or the operating system has no such locks, it is always granted.

    Args:
        folder: must exist.
        name: of the lock's file.
    """

    def __init__(self, folder: Path, name: str = NAME):
        self.path = folder / name
        self._file: int | None = None
        self._process = 0

    def acquire(self) -> bool:
        """Take the lock if no living process has it; returns whether it is held now.

        Raises:
            OutputError: the file of the lock cannot be written.
        """
        try:
            file = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise output_error(self.path, error) from error
        if not _flock(file) or not self._is_named(file):
            os.close(file)
            return False
        with contextlib.suppress(OSError):  # a full disk: the lock holds without a name
            os.ftruncate(file, 0)
            os.write(file, json.dumps({"pid": os.getpid(), "host": socket.gethostname()}).encode())
        self._file, self._process = file, os.getpid()
        _HELD.add(self)
        return True

    def release(self) -> None:
        """Give the lock back and remove its file; nothing if this process does not hold it."""
        if self._file is None or self._process != os.getpid():
            return
        with contextlib.suppress(OSError):
            self.path.unlink()  # while it is held: no other can have it open as its own
        self.forget()

    def forget(self) -> None:
        """Close the file; in a forked child the parent goes on holding the lock."""
        if self._file is not None:
            os.close(self._file)
            self._file = None
        _HELD.discard(self)

    def owner(self) -> dict[str, Any]:
        """Return `pid` and `host` of the process that holds the lock; empty if not known."""
        try:
            found = json.loads(self.path.read_text())
        except (OSError, ValueError, RecursionError):
            return {}
        return found if isinstance(found, dict) else {}

    def is_held(self) -> bool:
        """Return whether a living process holds the lock."""
        try:
            file = os.open(self.path, os.O_RDWR)
        except OSError:
            return False
        try:
            return not _flock(file)
        finally:
            os.close(file)

    def _is_named(self, file: int) -> bool:
        """Whether the open file still is the one in the folder: its last owner removes it."""
        try:
            return os.path.samestat(os.fstat(file), os.stat(self.path))
        except OSError:
            return False


_HELD: set[FolderLock] = set()


def _forget_all() -> None:
    for lock in list(_HELD):
        lock.forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_all)


def _flock(file: int) -> bool:
    """Lock an open file if no other process has; True where there are no such locks."""
    try:
        import fcntl
    except ImportError:  # Windows
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno in _UNSUPPORTED
    return True


@contextlib.contextmanager
def hold(folder: Path, wait: float = 10.0, name: str = NAME) -> Iterator[bool]:
    """Lock a folder while the block runs; yields False if another process has it.

    Args:
        folder: must exist.
        wait: seconds to try; a process that was just killed may need a moment to end.
        name: of the lock's file.
    """
    lock, end = FolderLock(folder, name), time.monotonic() + wait
    while not (mine := lock.acquire()) and time.monotonic() < end:
        time.sleep(POLL)
    try:
        yield mine
    finally:
        lock.release()


@contextlib.contextmanager
def own(
    out: Path,
    *,
    patient: bool = False,
    log: Callable[[str], None] | None = None,
    wait: float = 2.0,
) -> Iterator[None]:
    """Own the folder of a run while the block runs; makes it if it is not there.

    Args:
        out: the folder.
        patient: wait, however long, for the process that works on it now.
        log: gets a line if there is something to wait for.
        wait: seconds to try otherwise.

    Raises:
        FileExistsError: another living process works on it, or this one already does.
        OutputError: nothing can be written there.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise output_error(out, error) from error
    lock, start, said = FolderLock(out), time.monotonic(), False
    while not lock.acquire():
        late = time.monotonic() - start > wait
        other = lock.owner()
        own_one = other == {"pid": os.getpid(), "host": socket.gethostname()}
        who = f"process {other['pid']} on {other['host']}" if len(other) == 2 else "another process"
        if late and (own_one or not patient):
            raise FileExistsError(
                f"out: {out} is in use: {who} works on the run in it; wait for its end, or choose "
                "another folder"
            )
        if late and not said and log:
            log(f"waits: {who} works on the run in {out}; this one goes on when it has ended")
            said = True
        time.sleep(POLL)
    try:
        yield
    finally:
        lock.release()
