"""Settings of a run changed by name, as notebooks and YAML files have them."""

import dataclasses
import types
import typing
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar

from wsss_lab.config import shortened
from wsss_lab.ranges import alternatives, check, checks_later

T = TypeVar("T")


def with_changes(config: T, changes: Mapping[str, Any]) -> T:
    """A copy of a settings dataclass with other values.

    Args:
        config: a frozen dataclass, possibly of others, e.g. the `Config` of a recipe.
        changes: dotted name -> value, the names as on the command line: `{"run.steps": 20}`. Lists
            may stand for tuples, whole numbers for decimal ones, and text for paths, because YAML
            and JSON have no others.

    Raises:
        ValueError: no such setting, or a value of another type; or the settings refuse it.
    """
    with checks_later():
        changed = _changed(config, changes, "", setting_names(config))
    check(changed)
    return changed


def _changed(config: T, changes: Mapping[str, Any], prefix: str, known: Sequence[str]) -> T:
    inner: dict[str, dict[str, Any]] = {}
    values: dict[str, Any] = {}
    hints = typing.get_type_hints(type(config))
    for name, value in changes.items():
        head, _, rest = name.partition(".")
        whole = dataclasses.is_dataclass(getattr(config, head, None))
        if head not in hints or whole != bool(rest):
            wrong = prefix + name
            near = [n for n in known if n.endswith(f".{name}")] or get_close_matches(wrong, known)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(known)}"
            raise ValueError(f"settings: there is no {wrong!r}; {hint}")
        if rest:
            inner.setdefault(head, {})[rest] = value
        else:
            values[name] = fitting(hints[head], value, prefix + name)
    for head, some in inner.items():
        values[head] = _changed(getattr(config, head), some, f"{prefix}{head}.", known)
    return dataclasses.replace(config, **values)  # type: ignore[type-var]


def setting_names(config: Any, prefix: str = "") -> list[str]:
    """Dotted names of all settings, in their order."""
    names = []
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            names += setting_names(value, f"{prefix}{field.name}.")
        else:
            names.append(prefix + field.name)
    return names


def fitting(hint: Any, value: Any, name: str) -> Any:
    """A setting's value as its type; one of another type would fail hours later, or not at all.

    Args:
        hint: type of the field, without ranges.
        value: as JSON or YAML has it.
        name: for messages.

    Raises:
        ValueError: it is of another type.
    """
    origin = typing.get_origin(hint)
    choices = typing.get_args(hint)
    if isinstance(hint, types.UnionType) or origin is typing.Union:
        if value is None and type(None) in choices:
            return None
        problems = []
        for choice in alternatives(hint):
            try:
                return fitting(choice, value, name)
            except ValueError as error:
                problems.append(error)
        raise problems[-1]
    if origin is typing.Literal:
        if value in choices:
            return value
        raise ValueError(
            f"{name}: expected one of {', '.join(map(str, choices))}, got {shortened(value)}"
        )
    if origin is tuple and isinstance(value, Sequence) and not isinstance(value, str):
        if Ellipsis not in choices and len(value) != len(choices):
            raise ValueError(f"{name}: expected {len(choices)} values, got {shortened(value)}")
        return tuple(fitting(choices[0], each, name) for each in value)
    if hint is Path and isinstance(value, str | Path):
        return Path(value)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError:
            raise ValueError(f"{name}: expected float, got a far too large number") from None
    if hint in (bool, int, float, str) and type(value) is hint:
        return value
    wanted = getattr(hint, "__name__", str(hint)) if origin is None else str(hint)
    hint_text = " (YAML reads 1e-4 as text; write 1.0e-4)" if hint is float else ""
    raise ValueError(f"{name}: expected {wanted}, got {shortened(value)}{hint_text}")
