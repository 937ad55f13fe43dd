"""A process that hangs is named: its partners would wait for it for ever, without a word.

Every process leaves a mark in the store of the process group when it begins a step, and a thread of
it a sign of life every few seconds. Where a process has not moved for a time limit, its thread says
which one is behind or shows no life and where that runs, and ends its own, which ends the others.
"""

import itertools
import os
import socket
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch.distributed as dist

from wsss_lab.train.fabric import Fabric

LIMIT = 1800.0
"""Seconds without a step after which a distributed training is given up."""
VARIABLE = "WSSS_LAB_HANG_SECONDS"
"""Environment variable with another limit; 0 waits for ever."""


_current: list["HangWatch"] = []


def mark(step: int) -> None:
    """Note that this process has its batch of a step, counted from 0, where a watch is on."""
    for watch in _current:
        watch.mark(step)


class HangWatch:
    """Watch over the steps of one training, as a context manager; idle with one process.

    Args:
        fabric: launched.
        give_up: called with a message when the limit has passed; ends the process.
    """

    def __init__(self, fabric: Fabric, give_up: Callable[[str], None] | None = None):
        self.fabric, self.limit = fabric, time_limit()
        self.every = min(5.0, self.limit / 4)
        self.give_up = give_up or _end
        self.on = fabric.world_size > 1 and self.limit > 0
        self.step, self.since = -1, time.monotonic()
        self._done = threading.Event()
        self._store: Any = None

    def __enter__(self) -> "HangWatch":
        if self.on:
            group = dist.distributed_c10d._get_default_store()
            self._store = dist.PrefixStore("wsss_lab_hang", group)
            where = f"{socket.gethostname()}, process id {os.getpid()}"
            self._store.set(f"where{self.fabric.global_rank}", where)
            self._store.set(f"beat{self.fabric.global_rank}", "start")
            self.mark(0)
            threading.Thread(target=self._watch, daemon=True, name="hang-watch").start()
            _current.append(self)
        return self

    def __exit__(self, *error: object) -> None:
        self._done.set()
        if self.on:
            _current.remove(self)

    def mark(self, step: int) -> None:
        """Note that this process begins a step."""
        self.step, self.since = step, time.monotonic()
        self._store.set(f"step{self.fabric.global_rank}", str(step))

    def _watch(self) -> None:
        beats = itertools.count()
        while not self._done.wait(self.every):
            self._store.set(f"beat{self.fabric.global_rank}", str(next(beats)))
            if time.monotonic() - self.since > self.limit and not self._done.is_set():
                self.give_up(self._message())
                return

    def _message(self) -> str:
        """Say who is behind; where nobody answers it is the first, which keeps the marks."""
        found: list[Mark] = []
        asking = threading.Thread(target=self._ask, args=(found,), daemon=True)
        asking.start()
        asking.join(3 * self.every + 10)
        remedy = "look at it, then go on with --resume"
        waited = f"no step for {self.limit:g} s"
        if len(found) < self.fabric.world_size:
            return f"{waited}: process 0 does not answer; {remedy}"
        least = min(mark.step for mark in found)
        silent = [mark for mark in found if not mark.alive]
        behind = [mark for mark in found if mark.step == least]
        if silent:
            return f"{waited}: {_names(silent)}, shows no sign of life since step {least}; {remedy}"
        if len(behind) < len(found):
            return f"{waited}: {_names(behind)}, waits for its batch after step {least}; {remedy}"
        return f"{waited}: all {len(found)} processes hang in step {least}; {remedy}"

    def _ask(self, found: list["Mark"]) -> None:
        """Collect all marks; signs of life are compared with those a little later."""
        ranks = range(self.fabric.world_size)
        before = [self._store.get(f"beat{rank}") for rank in ranks]
        for _ in range(3):  # this thread gives the own process's sign meanwhile
            time.sleep(self.every)
            own = f"beat{self.fabric.global_rank}"
            self._store.set(own, self._store.get(own) + b"+")
        for rank in ranks:
            where = self._store.get(f"where{rank}").decode()
            alive = self._store.get(f"beat{rank}") != before[rank]
            found.append(Mark(rank, int(self._store.get(f"step{rank}")), where, alive))


@dataclass(frozen=True)
class Mark:
    """Step and sign of life that a process has left."""

    rank: int
    step: int
    """The last one it began."""
    where: str
    alive: bool
    """Whether its thread has given a sign of life lately."""


def _names(marks: list[Mark]) -> str:
    return "; ".join(f"process {mark.rank} ({mark.where})" for mark in marks)


def time_limit() -> float:
    """Seconds that a training waits for a process.

    Raises:
        ValueError: the environment variable holds no number.
    """
    text = os.environ.get(VARIABLE, "")
    try:
        return float(text) if text else LIMIT
    except ValueError:
        raise ValueError(f"{VARIABLE}: expected seconds, got {text!r}") from None


def _end(message: str) -> None:
    print(f"error: {message}", file=sys.stderr, flush=True)
    os._exit(2)  # an exception would wait for the main thread, which hangs
