"""Time limit of a runner, and the signals that end it in order."""

import contextlib
import signal
import threading
import time
from collections.abc import Iterator
from typing import Any

WIND_DOWN = 60.0
"""Seconds before the limit, at most a tenth of it, in which running runs are stopped."""


class Clock:
    """Stop condition: after some minutes, or on a signal of the user.

    Args:
        minutes: time limit for everything; None for no limit.
    """

    def __init__(self, minutes: float | None = None):
        if minutes is not None and not minutes > 0:
            raise ValueError(f"minutes: expected more than 0, got {minutes}")
        now = time.monotonic()
        self.end = now + 60 * minutes if minutes else float("inf")
        self.wind_down = self.end - min(WIND_DOWN, 6 * minutes) if minutes else float("inf")
        self.interrupted = False

    @property
    def closing(self) -> bool:
        """True when runs stop at their next checkpoint and nothing new is started."""
        return time.monotonic() >= self.wind_down

    @property
    def over(self) -> bool:
        """True when runs stop at once, losing the steps after their last checkpoint."""
        return time.monotonic() >= self.end

    def stop(self, *_: Any) -> None:
        """Handle a signal: close; on the second one: stop at once."""
        now = time.monotonic()
        self.end = now if self.interrupted else min(self.end, now + WIND_DOWN)
        self.wind_down = min(self.wind_down, now)
        self.interrupted = True

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Close the runner in order on Ctrl-C and SIGTERM."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {sign: signal.signal(sign, self.stop) for sign in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for sign, handler in before.items():
                signal.signal(sign, handler)
