"""Settings that are checked when made: type, range and order, stated where they are declared.

A dataclass of settings derives from `Settings` and annotates every number with its `Range`::

    @dataclass(frozen=True)
    class Example(Settings):
        share: Annotated[float, Range("[0, 1]")] = 0.5

Rules that connect several fields go into `Settings.require`.
"""

import dataclasses
import math
import numbers
import os
import types
import typing
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

LARGEST = 2**31 - 1
"""Largest whole number where a range has no upper end: more overflows in one place or another."""
LARGEST_FLOAT = 1e30
"""Largest number where a range has no upper end; float32, the arithmetic, ends at 3.4e38."""
TECHNICAL = 4096
"""Upper ends from here on are those of machines and formats, not of a setting's meaning."""
_LATER: ContextVar[bool] = ContextVar("checks come later", default=False)
C = TypeVar("C")


class Range:
    """Interval of a numeric setting; of a tuple, for every entry.

    Args:
        interval: in mathematical notation, e.g. `"[0, 1)"` or `"(0, inf)"`. An end at `inf` admits
            any finite number up to `LARGEST` or `LARGEST_FLOAT`.
        rising: of a tuple, no entry is smaller than the one before.
        hint: what to do instead, at the end of the message.
    """

    def __init__(self, interval: str, *, rising: bool = False, hint: str = ""):
        low, high = interval[1:-1].split(",")
        self.low, self.high = float(low), float(high)
        self.opens, self.closes = interval[0] == "[", interval[-1] == "]"
        self.interval, self.rising, self.hint = interval, rising, hint

    def expected(self, value: Any) -> str | None:
        """What was expected instead of a number, or None if it is in the interval."""
        endless = LARGEST if isinstance(value, numbers.Integral) else LARGEST_FLOAT
        low, high = max(self.low, -endless), min(self.high, endless)
        over_low = value >= low if self.opens or math.isinf(self.low) else value > low
        under_high = value <= high if self.closes or math.isinf(self.high) else value < high
        if over_low and under_high:  # both are false for nan
            return None
        if math.isinf(self.low) and math.isinf(self.high):
            return "a finite number"
        if self.high < TECHNICAL:
            return f"a number in {self.interval}"
        if over_low:
            return f"at most {high:.0f}" if high <= LARGEST else f"at most {high:g}"
        return f"{'at least' if self.opens else 'above'} {self.low:g}"


Share = Annotated[float, Range("[0, 1]")]
"""A share, probability, score or momentum that may be 0 and 1."""
Factor = Annotated[float, Range("[0, inf)")]
"""A weight, rate or factor."""
Positive = Annotated[float, Range("(0, inf)")]
"""A width, temperature or exponent."""
Count = Annotated[int, Range("[1, inf)")]
"""A number of things, at least one."""
Whole = Annotated[int, Range("[0, inf)")]
"""A number of things, where 0 has a meaning."""
Seed = Annotated[int, Range("[0, 4294967295]")]
"""A seed of random numbers, 32 bits."""
Pixels = Annotated[int, Range("[1, 65535]")]
"""A side in px; no format for images has longer ones."""
Scales = Annotated[tuple[float, ...], Range("(0, 16]")]
"""Sizes relative to an image."""
MOST_PIXELS = 1 << 20
"""Usual value of `MostPixels`: photos of VOC (500 x 500) and COCO (640 x 640) have fewer."""
MostPixels = Annotated[int, Range("[65536, inf)")]
"""Pixels at which a photo is looked at, at most."""
Batch = Annotated[int, Range("[1, 1048576]")]
"""Images at a time."""


class SettingError(ValueError):
    """A setting that does not fit.

    Args:
        names: of the fields that are at fault.
        text: what was expected, what came, and the remedy.
    """

    def __init__(self, names: Sequence[str], text: str):
        super().__init__(f"{', '.join(names)}: {text}")
        self.names, self.text = tuple(names), text


class Settings:
    """Base of frozen dataclasses of settings: all fields are checked on construction."""

    def __post_init__(self) -> None:
        if not _LATER.get():
            check(self)

    def require(self) -> None:
        """Refuse combinations of fields; for children to override.

        Raises:
            SettingError: fields contradict one another.
        """


@contextmanager
def checks_later() -> Iterator[None]:
    """Make settings without checks, to `check` the whole afterwards with the names of all parts."""
    token = _LATER.set(True)
    try:
        yield
    finally:
        _LATER.reset(token)


def check(
    config: Any, spell: Callable[[str], str] = str, prefix: str = "", unnamed: Sequence[str] = ()
) -> None:
    """Check all fields of settings, and of settings in them.

    Args:
        config: a dataclass; parts that are no `Settings` are only searched for some that are.
        spell: dotted name -> the name in messages.
        prefix: of all names.
        unnamed: fields whose own names are left out, because their parts stand for themselves.

    Raises:
        SettingError: the first field that does not fit.
    """
    for name, hint in _hints(_kind(config)).items():
        value = getattr(config, name)
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            check(value, spell, prefix + ("" if name in unnamed else f"{name}."), unnamed)
        if isinstance(config, Settings) and (text := misfit(hint, value)):
            raise SettingError([spell(prefix + name)], text)
    if isinstance(config, Settings):
        try:
            config.require()
        except SettingError as error:
            raise SettingError([spell(prefix + n) for n in error.names], error.text) from None
        except ValueError as error:
            name, colon, text = str(error).partition(": ")
            if not colon or name not in _hints(_kind(config)):
                raise
            raise SettingError([spell(prefix + name)], text) from None


def spelled(name: str) -> str:
    """A setting's name as the command line has it: `mask_optim.lr` -> `--mask-optim.lr`."""
    return f"--{name.replace('_', '-')}"


def misfit(hint: Any, value: Any) -> str | None:
    """What is wrong with a value: "expected ..., got ...", or None if it fits its type and range.

    Args:
        hint: the field's type, `Annotated` with a `Range` where it has numbers.
        value: anything.
    """
    found = _misfit(hint, value, None)
    return f"expected {found}" if found else None


def _misfit(hint: Any, value: Any, within: Range | None) -> str | None:
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        own = next((m for m in inner[1:] if isinstance(m, Range)), within)
        return _misfit(inner[0], value, own)
    if isinstance(hint, types.UnionType) or origin is typing.Union:
        if value is None and type(None) in inner:
            return None
        found = [_misfit(h, value, within) for h in alternatives(hint)]
        return None if None in found else found[0]
    if origin is Literal:
        known = value in inner if isinstance(value, str | int) else False
        return None if known else f"one of {', '.join(map(str, inner))}, got {value!r}"
    if origin is tuple:
        return _tuple_misfit(inner, value, within)
    if hint is not Any and isinstance(hint, type) and not _is_a(value, hint):
        return f"{hint.__name__}, got {_shown(value)}"
    if within and isinstance(value, numbers.Real) and (wanted := within.expected(value)):
        return f"{wanted}, got {_shown(value)}" + (f"; {within.hint}" if within.hint else "")
    return None


def alternatives(union: Any) -> list[Any]:
    """List the kinds of a union but None, choices from several lists of them as one `Literal`."""
    kinds = [kind for kind in typing.get_args(union) if kind is not type(None)]
    words = tuple(
        word for k in kinds if typing.get_origin(k) is Literal for word in typing.get_args(k)
    )
    rest = [kind for kind in kinds if typing.get_origin(kind) is not Literal]
    return [Literal[words], *rest] if words else rest  # type: ignore[list-item]


def _tuple_misfit(inner: tuple[Any, ...], value: Any, within: Range | None) -> str | None:
    if not isinstance(value, tuple | list):
        return f"several values, got {_shown(value)}"
    endless = Ellipsis in inner
    if not value or (not endless and len(value) != len(inner)):
        wanted = "at least one value" if endless else f"{len(inner)} values"
        return f"{wanted}, got {_shown(value)}"
    for number, each in enumerate(value):
        if found := _misfit(inner[0] if endless else inner[number], each, within):
            return f"{found} in {_shown(value)}" if len(value) > 1 else found
    if within and within.rising and any(a > b for a, b in pairwise(value)):
        return f"values that do not fall, got {_shown(value)}"
    return None


def _is_a(value: Any, kind: type) -> bool:
    if kind in (int, float):
        wider = numbers.Integral if kind is int else numbers.Real
        return isinstance(value, wider) and not isinstance(value, bool)
    return isinstance(value, str | os.PathLike) if kind is Path else isinstance(value, kind)


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _kind(config: Any) -> Any:
    return type(config)


@cache
def _hints(kind: Any) -> dict[str, Any]:
    """Types of a dataclass's fields, with their ranges."""
    hints = typing.get_type_hints(kind, include_extras=True)
    return {field.name: hints[field.name] for field in dataclasses.fields(kind)}  # type: ignore


def has_range(hint: Any, found: bool = False) -> bool:
    """Whether every number inside a field's type has a `Range`; True where there is none."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        return has_range(inner[0], found or any(isinstance(m, Range) for m in inner[1:]))
    if origin is Literal:
        return True
    if inner:
        return all(has_range(each, found) for each in inner)
    return found or hint not in (int, float)


def require_order(config: Any, low: str, high: str) -> None:
    """Refuse settings in which one field is larger than another.

    Raises:
        SettingError: names both.
    """
    a, b = getattr(config, low), getattr(config, high)
    if a > b:
        raise SettingError([low, high], f"expected {low} <= {high}, got {a} and {b}")
