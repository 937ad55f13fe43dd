"""Exercises of the book with automatic checks.

A chapter registers its exercises in `wsss_lab/exercises/<chapter>.py`, one call of `register` each.
An exercise named `cam-2` lives in the module `cam`, which `check` imports on first use.
"""

import importlib
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

REGISTRY: dict[str, "Exercise"] = {}


@dataclass(frozen=True)
class Exercise:
    """One exercise, with an answer that must pass and one that must fail."""

    name: str
    """`<chapter>-<number>`, the label of the exercise in the book."""
    accepts: Callable[[Any], bool]
    """Predicate, True for a right answer. It may raise on answers of another type; these count as
    wrong."""
    hint: str
    """One or two sentences that help after a wrong answer without giving the right one."""
    right: Callable[[], Any]
    """Function that makes an accepted answer (a function, so that importing costs nothing)."""
    wrong: Callable[[], Any]
    """Function that makes the likeliest mistake, which is rejected."""


def register(
    name: str,
    *,
    accepts: Callable[[Any], bool],
    hint: str,
    right: Callable[[], Any],
    wrong: Callable[[], Any],
) -> None:
    """Add an exercise.

    Raises:
        ValueError: the name is taken, or is not `<chapter>-<number>`.
    """
    chapter, _, number = name.rpartition("-")
    if not chapter or not number.isdigit():
        raise ValueError(f"name: expected '<chapter>-<number>' such as 'cam-2', got {name!r}")
    if name in REGISTRY:
        raise ValueError(f"name: {name!r} is registered already; number exercises without gaps")
    REGISTRY[name] = Exercise(name, accepts, hint, right, wrong)


def find(name: str) -> Exercise:
    """Return the exercise of that name, after importing its chapter.

    Raises:
        ValueError: there is no such chapter or exercise; the message lists the known ones.
    """
    chapter = name.rpartition("-")[0]
    module = f"{__name__}.{chapter.replace('-', '_')}"
    if name not in REGISTRY and importlib.util.find_spec(module):
        importlib.import_module(module)
    if name not in REGISTRY:
        known = sorted(key for key in REGISTRY if key.startswith(f"{chapter}-")) or sorted(REGISTRY)
        raise ValueError(f"name: no exercise {name!r}; known are {', '.join(known) or 'none yet'}")
    return REGISTRY[name]


def accepted(exercise: Exercise, answer: Any) -> bool:
    """Return whether an answer is right; an answer of a wrong type is wrong, not a crash."""
    try:
        return bool(exercise.accepts(answer))
    except (TypeError, ValueError, AttributeError, LookupError, RuntimeError, ArithmeticError):
        return False


def check(name: str, answer: Any) -> None:
    """Print whether an answer is right, and a hint where it is not.

    Args:
        name: label of the exercise, e.g. `"cam-2"`.
        answer: answer to the exercise: a number, an array, a function. `...` means "not yet".

    Raises:
        ValueError: there is no exercise of that name.
    """
    exercise = find(name)
    if answer is Ellipsis:
        print(f"{name}: not answered yet. Replace the ... and run the cell again.")
    elif accepted(exercise, answer):
        print(f"{name}: correct.")
    else:
        print(f"{name}: not yet. Hint: {exercise.hint}")
