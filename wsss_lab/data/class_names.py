"""Names of classes: what may be one, where they are read, and their comparison.

Class `c` (from 0) of a list of foreground classes has mask value `c + 1`. The value 0 is the
background and 255 is ignored, whatever a list calls them; a list that counted them as classes would
shift the names of all others by one.
"""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from wsss_lab.data.errors import Problem
from wsss_lab.data.files import read_text

MOST_CLASSES = 254
"""Largest number of foreground classes in masks of 8 bits: 0 is background, 255 ignored."""
BACKGROUND = "background"

_BACKGROUND = frozenset(("background", "bg", "backgrounds"))
_IGNORE = frozenset(("ignore", "ignored", "void", "unlabeled", "unlabelled"))
_NUMBERED = re.compile(r"(\d+)\s*[\s:,;=]\s*(\S.*)")
_COLOURED = re.compile(r"[^:,;]+[:,;\s]\s*\d+[,;\s]\s*\d+[,;\s]\s*\d+.*")


def is_background(name: str) -> bool:
    """Whether a name means the background: `background`, `_background_`, `Background`, ..."""
    return _bare(name) in _BACKGROUND


def is_ignore(name: str) -> bool:
    """Whether a name means pixels that do not count: `__ignore__`, `void`, ..."""
    return _bare(name) in _IGNORE


def _bare(name: str) -> str:
    return re.sub(r"[\W_]+", "", name).casefold()


def read_classes(path: str | Path) -> tuple[str, ...]:
    """Read the foreground classes of a `classes.txt`, one a line in the order of the mask values.

    Names for the ignored pixels and for the background (`__ignore__`, `_background_`) may come
    first, as labelme and CVAT write them, and are left out. Lines may be numbered by mask value,
    `0 background`, `1 cat`, ...

    Raises:
        DataError: missing, not UTF-8, empty, or no list of foreground classes.
    """
    path = Path(path)
    if not path.is_file():
        raise Problem(
            str(path), "this class list is not there", "Write one class name a line", True
        ).error()
    lines = [line.strip() for line in read_text(path).splitlines() if line.strip()]
    coloured = [line for line in lines if _COLOURED.fullmatch(line) or line.startswith("#")]
    if coloured:
        what = f"its line {coloured[0][:60]!r} is no class name but an entry of a label map"
        raise Problem(str(path), what, "Write one class name a line, nothing else").error()
    return foreground(_without_numbers(lines, path), str(path))


def _without_numbers(lines: list[str], path: Path) -> list[str]:
    """Strip mask values in front of the names, unless the numbers belong to the names."""
    found = [_NUMBERED.fullmatch(line) for line in lines]
    if not lines or not all(found):
        return lines
    numbers = [int(match[1]) for match in found if match]
    names = [match[2].strip() for match in found if match]
    in_order = numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    if in_order and (numbers[0] == 1 or (numbers[0] == 0 and is_background(names[0]))):
        return names if len(set(names)) == len(names) else lines
    if numbers[0] and not any(is_background(name) or is_ignore(name) for name in names):
        return lines  # 1 cent, 2 cent, 5 cent
    what = f"numbers its classes {', '.join(map(str, numbers[:8]))}, of which 0 is {names[0]!r}"
    if numbers[0] or is_background(names[0]):
        what = f"numbers its classes {', '.join(map(str, numbers[:8]))}, expected 0, 1, 2, ..."
    remedy = "Write one class name a line, without numbers, in the order of the mask values 1, 2"
    raise Problem(str(path), what, remedy).error()


def foreground(names: Sequence[str], where: str) -> tuple[str, ...]:
    """Return the foreground classes of a list, without background and ignored in front.

    Args:
        names: in the order of the mask values.
        where: the list's file, for messages.

    Raises:
        DataError: empty, a name twice, background or ignored further down, or more than 254.
    """
    rest = list(names)
    # `void` alone might be a class of somebody's; `__ignore__` is none, nor what stands before 0
    before_background = len(rest) > 1 and is_background(rest[1])
    if rest and is_ignore(rest[0]) and (before_background or rest[0].startswith("__")):
        del rest[0]
    if rest and is_background(rest[0]):
        del rest[0]
    require_foreground(rest, where)
    return tuple(rest)


def require_foreground(names: Sequence[str], where: str) -> None:
    """Refuse a list that is not one of foreground classes; see `foreground`.

    Raises:
        DataError: the first problem.
    """
    what = remedy = ""
    reserved = [name for name in names if is_background(name) or is_ignore(name)]
    if not names:
        what = "is empty"
        remedy = "Write each foreground class once, in the order of the mask values 1, 2, ..."
    elif len(set(names)) < len(names):
        what = f"names a class twice: {first_twice(names)}"
        remedy = "Write each foreground class once, in the order of the mask values 1, 2, ..."
    elif reserved:
        at = list(names).index(reserved[0]) + 1
        what = f"{reserved[0]!r} comes as class {at}, but background is 0 in masks and ignored 255"
        remedy = "Leave that name out, or put the background first"
    elif len(names) > MOST_CLASSES:
        what = f"names {len(names)} classes, but masks of 8 bits hold {MOST_CLASSES} at most"
        remedy = "Join or leave out classes"
    if what:
        raise Problem(where, what, remedy).error()


def first_twice(names: Iterable[str]) -> str:
    """Return the first name that has come before."""
    seen: set[str] = set()
    return next(n for n in names if n in seen or seen.add(n))  # type: ignore[func-returns-value]


def require_same_classes(
    one: Sequence[str], other: Sequence[str], what_one: str, what_other: str, remedy: str
) -> None:
    """Refuse two lists of classes that differ in a name or in the order.

    Args:
        one: class names.
        other: class names, both with background or both without.
        what_one: owner of the first list, for the message.
        what_other: owner of the second.
        remedy: a sentence without its full stop.

    Raises:
        DataError: they differ; names the first class that does.
    """
    if tuple(one) == tuple(other):
        return
    missing = [name for name in one if name not in set(other)]
    added = [name for name in other if name not in set(one)]
    if missing or added:
        parts = [f"lacks {_short(missing)}"] if missing else []
        parts += [f"adds {_short(added)}"] if added else []
        how = f"has other classes than {what_one} ({_short(one)}): {' and '.join(parts)}"
    else:
        how = f"has the same classes in another order ({_short(other)}) than {what_one}"
        how += f" ({_short(one)})"
    raise Problem(what_other, how, remedy).error()


def _short(names: Sequence[str], most: int = 6) -> str:
    shown = ", ".join(names[:most])
    return f"{shown} and {len(names) - most} more" if len(names) > most else shown
