"""Values of a declaration, checked one by one.

Each function takes the place of a value in the file, for messages, and the value as YAML gives it,
and raises `ValueError` if it is of another kind.
"""

import re
from typing import Any

import yaml

OWN_SETTINGS = ("run.seed", "run.accelerator")
"""Settings that follow from seeds and profiles."""


class StrictLoader(yaml.SafeLoader):
    """YAML loader that rejects repeated keys, of which the last would win unnoticed."""


def _unique(loader: StrictLoader, node: yaml.MappingNode) -> dict[Any, Any]:
    merge = "tag:yaml.org,2002:merge"  # `<<: *settings`; what stands beside it overrides
    keys = [loader.construct_object(key) for key, _ in node.value if key.tag != merge]
    if twice := sorted({str(key) for key in keys if keys.count(key) > 1}):
        raise ValueError(f"line {node.start_mark.line + 1}: {twice} stands there twice")
    loader.flatten_mapping(node)
    return loader.construct_mapping(node, deep=True)


StrictLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _unique)


def list_of_names(where: str, value: object) -> tuple[str, ...]:
    """Return a list of different names."""
    sound = isinstance(value, list) and all(isinstance(item, str) for item in value)
    names: list[str] = value if isinstance(value, list) and sound else []
    if not sound or len(set(names)) < len(names):
        raise ValueError(f"{where}: expected a list of different names, got {value!r}")
    return tuple(names)


def file_names(where: str, value: object) -> tuple[str, ...]:
    """Return a list of plain file names, without folders."""
    files = list_of_names(where, value)
    if bad := [file for file in files if not re.fullmatch(r"[a-z0-9_]+\.[a-z0-9]+", file)]:
        raise ValueError(f"{where}: expected plain file names such as per_image.npz, got {bad}")
    return files


def mapping(where: str, value: object) -> dict[str, Any]:
    """Return names with values, at least one."""
    if not isinstance(value, dict) or not value:
        raise ValueError(f"{where}: expected names with values, got {value!r}")
    return value


def keys(
    where: str, value: object, required: tuple[str, ...], optional: tuple[str, ...] = ()
) -> dict[str, Any]:
    """Return names with values: all that are required, and no others than the optional ones."""
    found = mapping(where, value)
    missing = [key for key in required if key not in found]
    unknown = [str(key) for key in found if key not in (*required, *optional)]
    if missing or unknown:
        raise ValueError(f"{where}: missing {missing}, unknown {unknown}")
    return found


def text(where: str, value: object) -> str:
    """Return text in one line."""
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{where}: expected text, got {value!r}")
    return " ".join(value.split())


def name_of(where: str, value: object) -> str:
    """Return a name of a-z, 0-9 and _, as files and arms have."""
    if not isinstance(value, str) or not re.fullmatch(r"[a-z0-9][a-z0-9_]*", value):
        raise ValueError(f"{where}: expected a name of a-z, 0-9 and _, got {value!r}")
    return value


def number(where: str, value: object) -> float:
    """Return a number; true and false are none."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{where}: expected a number, got {value!r}")
    return float(value)


def seeds_of(where: str, value: object) -> tuple[int, ...]:
    """Return different whole numbers from 0, at least one."""
    sound = isinstance(value, list) and all(type(seed) is int and seed >= 0 for seed in value)
    seeds: list[int] = value if isinstance(value, list) and sound else []
    if not seeds or len(set(seeds)) < len(seeds):
        raise ValueError(f"{where}: expected a list of different whole numbers, got {value!r}")
    return tuple(seeds)


def settings_of(where: str, value: object) -> dict[str, Any]:
    """Return settings by dotted name; seed and accelerator are not among them."""
    value = {} if value is None else value
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise ValueError(f"{where}: expected settings with values, got {value!r}")
    if taken := [key for key in OWN_SETTINGS if key in value]:
        raise ValueError(f"{where}: {taken} follow from seeds and profile; leave them out")
    return value
