"""Settings of a run: changed by name, as notebooks do, and as plain values, as JSON has them."""

import dataclasses
import types
import typing
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar

from wsss_lab.config import shortened
from wsss_lab.ranges import alternatives, check, checks_later

FREE = ("accumulate", "accelerator", "devices", "nodes", "workers", "log_every", "save_every")
FREE_TO_CHANGE = frozenset({*FREE, "keep", "progress", "tensorboard", "root"})
"""Settings that a resumed run may change. They alter speed, not results; where devices, nodes or
accumulation do alter them, `fit` refuses (`wsss_lab.train.conditions`). `root`: data may move."""

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


def plain(value: Any) -> Any:
    """Settings as JSON has them: lists for tuples, text for paths."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, tuple | list):
        return [plain(v) for v in value]
    return str(value) if isinstance(value, Path) else value


def restore(kind: type[T], values: Any, source: Path | str = "") -> T:
    """A settings dataclass from what `plain` made of it.

    Args:
        kind: the dataclass.
        values: its fields by name, as JSON has them.
        source: the file they come from, for messages.

    Raises:
        ValueError: a setting that `kind` does not have, of another type, or outside its range.
    """
    try:
        with checks_later():
            restored = _restored(kind, values, "")
        check(restored)
    except (ValueError, TypeError, RecursionError) as error:
        if not source:
            raise ValueError(str(error)) from error
        remedy = "correct it, or begin another run in a new folder"
        raise ValueError(f"{source}: {error}; {remedy}") from error
    return restored


def _restored(kind: type[T], values: Any, prefix: str) -> T:
    if not isinstance(values, Mapping):
        name = prefix.rstrip(".") or "config"
        raise ValueError(f"{name}: expected settings by name, got {shortened(values)}")
    hints = typing.get_type_hints(kind)
    if unknown := sorted(f"{prefix}{name}" for name in set(values) - set(hints)):
        raise ValueError(
            f"{kind.__name__} has no settings {unknown[:5]}; another version wrote them"
        )
    return kind(
        **{name: _typed(hints[name], value, f"{prefix}{name}") for name, value in values.items()}
    )


def _typed(hint: Any, value: Any, name: str) -> Any:
    if dataclasses.is_dataclass(hint):
        return _restored(typing.cast(type, hint), value, f"{name}.")
    if isinstance(hint, type) and isinstance(value, Mapping) and hint.__subclasses__():
        return _restored(_kind_with(hint, value), value, f"{name}.")
    return fitting(hint, value, name)


def _kind_with(base: type, values: Mapping[str, Any]) -> type:
    """The one kind of `base`, for example of geometric view, that has these settings."""
    kinds: list[Any] = list(filter(dataclasses.is_dataclass, base.__subclasses__()))
    fits = [k for k in kinds if {f.name for f in dataclasses.fields(k)} == set(values)]
    if len(fits) != 1:
        raise ValueError(f"no kind of {base.__name__} has the settings {sorted(values)}")
    return fits[0]


def differences(one: Any, other: Any, name: str = "") -> list[str]:
    """List where two plain values differ, but for settings that are free to change."""
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return [
            line
            for key in dict.fromkeys((*one, *other))
            if key not in FREE_TO_CHANGE
            for line in differences(one.get(key), other.get(key), f"{name}.{key}".lstrip("."))
        ]
    return [] if one == other else [f"{name} is {one} there and {other} here"]
