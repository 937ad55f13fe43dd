"""Random numbers of the toy world: splitmix64, so that a scene is the same on every machine.

A scene owns one short table of numbers, cut into windows. Every aspect of the scene (layout, each
object, backdrop, contexts, clutter, light) reads its own window, so a knob that needs more or
fewer numbers in one aspect never shifts the draws of another.
"""

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

T = TypeVar("T")
Colour = tuple[float, float, float]
"""RGB, 0..1."""

WINDOW = 64
"""Numbers in one window of a scene's table."""

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_A, _B = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_S27, _S30, _S31, _S11 = (np.uint64(n) for n in (27, 30, 31, 11))


def _mix(z: np.ndarray) -> np.ndarray:
    """The output function of splitmix64 on a uint64 array (wraps modulo 2^64)."""
    z = (z ^ (z >> _S30)) * _A
    z = (z ^ (z >> _S27)) * _B
    return z ^ (z >> _S31)


def uniform(keys: Sequence[int], count: int) -> np.ndarray:
    """Return uniform numbers that depend on the keys alone.

    Args:
        keys: integers in 0 .. 2^64 - 1; their order matters.
        count: number of values.

    Returns:
        float64 array (count,) in [0, 1), multiples of 2^-53.
    """
    state = np.zeros(1, dtype=np.uint64)
    for key in keys:
        state = _mix((state ^ np.array([key], dtype=np.uint64)) + _GOLDEN)
    z = _mix(np.arange(1, count + 1, dtype=np.uint64) * _GOLDEN + state)
    return (z >> _S11).astype(np.float64) * (1.0 / 9007199254740992.0)


class Stream:
    """Read position in a table of uniform numbers; wraps around at the end of its span."""

    def __init__(self, table: list[float], window: int, windows: int = 1) -> None:
        self._table = table
        self._start = window * WINDOW
        self._span = windows * WINDOW
        self.used = 0

    def unit(self) -> float:
        """Return the next number in [0, 1)."""
        used = self.used
        self.used = used + 1
        return self._table[self._start + used % self._span]

    def between(self, low: float, high: float) -> float:
        """Draw a number in [low, high)."""
        used = self.used
        self.used = used + 1
        return low + (high - low) * self._table[self._start + used % self._span]

    def below(self, count: int) -> int:
        """Draw an integer in 0 .. count - 1."""
        return int(self.unit() * count)

    def pick(self, options: Sequence[T]) -> T:
        """Draw one of the options."""
        return options[int(self.unit() * len(options))]

    def bell(self) -> float:
        """Draw a number in [-1, 1) with a bell-shaped density, standard deviation 1/3."""
        return (self.unit() + self.unit() + self.unit()) * (2 / 3) - 1

    def chance(self, probability: float) -> bool:
        """Return True with this probability."""
        return self.unit() < probability

    def tint(self, colour: Colour, spread: float = 0.06) -> Colour:
        """Return the colour with a random shift, half in brightness and half in every channel."""
        unit, fine = self.unit, 1.2 * spread
        level = 2 * spread * unit() - 1.6 * spread
        r, g, b = colour
        r, g, b = r + level + fine * unit(), g + level + fine * unit(), b + level + fine * unit()
        return (
            0.04 if r < 0.04 else 0.97 if r > 0.97 else r,
            0.04 if g < 0.04 else 0.97 if g > 0.97 else g,
            0.04 if b < 0.04 else 0.97 if b > 0.97 else b,
        )
