"""Tables that a reader's own file or another package can add to, without a change to this package.

| add | by | table | entry-point group |
|---|---|---|---|
| a method | `wsss_lab.register_method` | `runs.recipe.RECIPES` | `wsss_lab.methods` |
| a backbone | `wsss_lab.register_backbone` | `models.backbones.BACKBONES` | `wsss_lab.backbones` |
| a data set | `wsss_lab.register_dataset` | `data.config.DATA_SETS` | `wsss_lab.datasets` |

A value may be registered as text, ``"module:attribute"``; it is imported at its first use, so that
the command line starts quickly.
"""

import hashlib
import importlib
import importlib.util
import sys
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Generic, TypeVar

T = TypeVar("T")


class Registry(Mapping[str, T], Generic[T]):
    """A table of one kind of thing by name, filled by this package, by readers and by plug-ins.

    Args:
        kind: a singular noun for messages, e.g. "method".
        group: entry-point group in which other packages announce theirs.
        also: other forms of names, for messages, e.g. "timm:NAME".
    """

    def __init__(self, kind: str, group: str, also: str = "") -> None:
        self.kind, self.group, self.also = kind, group, also
        self._found: dict[str, T | str | metadata.EntryPoint] = {}
        self._own: frozenset[str] = frozenset()
        self._asked_packages = False

    def register(self, name: str, value: T | str) -> None:
        """Add a value; a second one of a reader's own name replaces the first (cells run twice).

        Args:
            name: one word of letters, digits, ``_ - . :``.
            value: the value, or ``"module:attribute"``, which is imported at its first use.

        Raises:
            ValueError: the name is not one word, or this package has a value of that name.
        """
        if not name or not all(c.isalnum() or c in "_-.:" for c in name):
            raise ValueError(
                f"name: expected one word of letters, digits and _ - . :, got {name!r}"
            )
        if name in self._own:
            raise ValueError(f"name: there is a {self.kind} {name!r} already; choose another name")
        self._found[name] = value

    def close(self) -> None:
        """Protect the names registered so far; called once, after this package's own."""
        self._own = frozenset(self._found)

    def _ask_packages(self) -> None:
        """Look for entry points, once: a miss must not read every package's metadata again."""
        if not self._asked_packages:
            self._asked_packages = True
            for point in metadata.entry_points(group=self.group):
                self._found.setdefault(point.name, point)

    def __getitem__(self, name: str) -> T:
        if name not in self._found:
            self._ask_packages()
        value = self._found[name]
        if isinstance(value, metadata.EntryPoint):
            value = self._found[name] = value.load()
        elif isinstance(value, str):
            module, _, attribute = value.partition(":")
            value = self._found[name] = getattr(importlib.import_module(module), attribute)
        return value  # type: ignore[return-value]

    def __iter__(self) -> Iterator[str]:
        self._ask_packages()
        return iter(dict(self._found))

    def __len__(self) -> int:
        self._ask_packages()
        return len(self._found)

    def __contains__(self, name: object) -> bool:
        if name not in self._found:
            self._ask_packages()
        return name in self._found

    def find(self, name: str) -> T:
        """Return the value of a name.

        Raises:
            ValueError: there is none; lists the names there are, and how a file adds its own.
        """
        if name not in self:
            also = f" or {self.also}" if self.also else ""
            raise ValueError(
                f"{self.kind}: expected one of {', '.join(self)}{also}, got {name!r}; one of your "
                "own file is known after `--use FILE.py` (from Python: import the file)"
            )
        return self[name]


_USED: dict[str, Path] = {}
"""Name of the module -> reader's file."""


def used_files() -> list[Path]:
    """Return the readers' files that this process has run."""
    return list(_USED.values())


def use_file(path: Path | str) -> None:
    """Run a reader's Python file, so that what it registers is known.

    Args:
        path: the file; run once per process, under a module name of its own.

    Raises:
        FileNotFoundError: no such file.
    """
    file = Path(path)
    if not file.is_file():
        raise FileNotFoundError(f"use: expected a Python file, there is no {file}")
    # the name follows from the place, so that worker processes and resumed runs agree on it
    place = hashlib.sha256(str(file.resolve()).encode()).hexdigest()[:8]
    name = f"wsss_lab_use_{file.stem}_{place}"
    if name in sys.modules:
        return
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise FileNotFoundError(f"use: expected a Python file (.py), got {file}")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    _USED[name] = file
