"""Worker processes end with the process that started them, however that one ends."""

import contextlib
import ctypes
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from typing import Any

GRACE = 20
"""Seconds that a loader worker outlives a SIGTERM: a scheduler sends it to all processes at once,
and the parent needs its batches until it has written its checkpoint."""
PARENT = "WSSS_LAB_PARENT"
"""Environment variable with the process id of a notebook that has started a command."""
_PDEATHSIG = 1  # of <sys/prctl.h>: the signal a process gets when its parent ends
_EVERY = 1.0  # seconds between two looks at the parent, where the kernel does not tell


def end_with_parent(parent: int | None = None) -> None:
    """Make this process end as soon as its parent is gone, by SIGKILL too.

    On Linux the kernel does it, so a worker that hangs in a system call or is stopped ends as well;
    the parent's *thread* that made the process must live as long as it is needed. Elsewhere a
    thread looks every second.

    Args:
        parent: process id of the parent; None for the one there is now. Given, a parent that has
            ended before this call is noticed.
    """
    parent = parent or os.getppid()
    if not (sys.platform == "linux" and _ask_kernel()):
        threading.Thread(target=_watch, args=(parent,), daemon=True).start()
    if os.getppid() != parent:  # it ended before
        os._exit(1)


def start_worker(parent: int | None = None) -> None:
    """Prepare a worker of a pool: it ends with its parent, and ignores Ctrl-C, which that handles.

    Args:
        parent: see `end_with_parent`.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # not the handler of a forked parent
    end_with_parent(parent)


@contextlib.contextmanager
def worker_pool(workers: int, context: Any) -> Iterator[ProcessPoolExecutor]:
    """Pool of processes that end with their parent, and at once where an error leaves the block.

    Args:
        workers: number of processes.
        context: of `multiprocessing`.
    """
    pool = ProcessPoolExecutor(workers, context, start_worker, (os.getpid(),))
    try:
        yield pool
    except BaseException as error:
        started = list((getattr(pool, "_processes", None) or {}).values())
        pool.shutdown(wait=False, cancel_futures=True)
        if not isinstance(error, Exception):  # Ctrl-C, SIGTERM: nobody waits for running jobs
            for process in started:
                process.kill()
        raise
    finally:
        pool.shutdown()


class LoaderWorker:
    """Start function of a `DataLoader`'s workers, made in the parent: `worker_init_fn`."""

    def __init__(self) -> None:
        self.parent = os.getpid()

    def __call__(self, _: int) -> None:
        """Prepare this process."""
        start_worker(self.parent)
        if hasattr(signal, "SIGALRM"):
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.signal(signal.SIGTERM, _end_later)


def _end_later(*_: Any) -> None:
    signal.alarm(GRACE)


def _ask_kernel() -> bool:
    try:
        return ctypes.CDLL(None).prctl(_PDEATHSIG, signal.SIGKILL, 0, 0, 0) == 0
    except (OSError, AttributeError):  # a C library without it
        return False


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_EVERY)
    os._exit(1)
