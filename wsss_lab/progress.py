"""Progress of long work: one style of line, and a bar in terminals that no line collides with.

| output | what is shown |
|---|---|
| pipe, file, notebook | lines, every few seconds and at the end |
| terminal | the same lines above one bar, which goes when its stage ends |

`TQDM_DISABLE=1` in the environment switches bars off.
"""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any
from weakref import WeakSet

EVERY = 10.0
"""Seconds between two lines of one stage."""
FOREVER = 3.6e11
"""Longest time to go that is shown, s: ten thousand years."""

_OPEN: WeakSet[Any] = WeakSet()
"""Bars that are on the screen now."""


def in_terminal() -> bool:
    """Whether lines and bars go to a terminal, both of them."""
    try:
        return sys.stdout.isatty() and sys.stderr.isatty()
    except (AttributeError, ValueError):  # none, or closed
        return False


def open_bar(total: int, done: int, unit: str, what: str = "", *, shown: bool) -> Any:
    """Open a progress bar on standard error; lines printed in `above_bars` do not touch it.

    Args:
        total: amount of work.
        done: amount that is done already.
        unit: of the work, e.g. "step".
        what: name of the stage.
        shown: False makes something that behaves like a bar, unseen.

    Returns:
        A bar of tqdm; `close` removes it from a terminal.
    """
    from tqdm.auto import tqdm

    options: Any = {"file": _Steady(sys.stderr)} if shown else {"disable": True}
    bar = tqdm(
        total=total,
        initial=done,
        unit=unit,
        desc=what or None,
        leave=not in_terminal(),
        dynamic_ncols=True,
        **options,
    )
    if shown:
        _OPEN.add(bar)
    return bar


@contextlib.contextmanager
def above_bars() -> Iterator[None]:
    """Take open bars off the screen for the block, so that lines are printed above them."""
    bars = [bar for bar in _OPEN if not bar.disable and hasattr(bar, "clear")]
    for bar in bars:
        bar.clear()
    try:
        yield
    finally:
        for bar in bars:
            bar.refresh()


def close_bars() -> None:
    """Remove all bars, before the last words of a command that was interrupted."""
    for bar in list(_OPEN):
        bar.close()


def time_left(amount: float, per_second: float) -> timedelta:
    """Compute the time for an amount of work at a speed, in whole seconds."""
    return timedelta(seconds=round(min(amount / max(per_second, 1e-9), FOREVER)))


def speed_text(per_second: float) -> str:
    """Write a speed with two digits, or as a whole number from 10 up."""
    return f"{per_second:.2g}" if per_second < 10 else f"{per_second:.0f}"


class Countdown:
    """Lines, and in a terminal a bar, on work of known size: done, speed, time left.

    Args:
        what: name of the stage, first in each line.
        total: number of images.
        log: gets the lines; None for silence, without a bar, too.
        brief: no line at the end.
        clock: seconds.
    """

    def __init__(
        self,
        what: str,
        total: int,
        log: Callable[[str], None] | None,
        *,
        brief: bool = False,
        clock: Callable[[], float] = time.perf_counter,
    ):
        self.what, self.total, self.log, self.clock = what, total, log, clock
        self.done, self.brief = 0, brief
        self._start = self._last = clock()
        self._bar = open_bar(total, 0, "image", what, shown=bool(log and total) and in_terminal())

    def add(self, count: int) -> None:
        """Note that `count` further images are done."""
        self.done += count
        self._bar.update(count)
        now, last = self.clock(), self.done >= self.total
        if last:
            self._bar.close()
        due = not self.brief if last else now - self._last >= EVERY
        if self.log and due:
            self._last = now
            speed = self.done / max(now - self._start, 1e-9)
            self.log(
                f"{self.what}: {self.done}/{self.total} images  {speed_text(speed)} images/s"
                f"  {time_left(self.total - self.done, speed)} left"
            )


class Headings:
    """Numbered headings of a run's stages: what each does, and what it leaves.

    Args:
        log: gets the lines.
        total: number of stages.
    """

    def __init__(self, log: Callable[[str], None], total: int):
        self.log, self.total, self.number = log, total, 0

    def open(self, name: str, what: str, leaves: str) -> None:
        """Print the heading of the next stage.

        Args:
            name: of the stage, one word.
            what: happens in it.
            leaves: files in the run's folder.
        """
        self.number += 1
        self.log(f"\n{self.number}/{self.total} {name}: {what}\n    leaves {leaves}")


class _Steady:
    """A file whose errors are passed over: a bar that cannot be drawn ends nothing."""

    def __init__(self, file: Any):
        self.file = file

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)

    def write(self, text: str) -> int:
        """Write, if that is possible."""
        with contextlib.suppress(OSError, ValueError):
            return self.file.write(text)
        return len(text)

    def flush(self) -> None:
        """Flush, if that is possible."""
        with contextlib.suppress(OSError, ValueError):
            self.file.flush()
