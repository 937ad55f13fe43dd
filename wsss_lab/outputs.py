"""Refusal of outputs that would replace an input of the same command, or any file unasked."""

import os
import unicodedata
from collections.abc import Iterable
from pathlib import Path

Key = tuple[int, int, str]
"""Device and number of a file; or of its folder, with its name as file systems that ignore case and
accents' spelling compare it."""


def guard_outputs(
    outputs: Iterable[Path], inputs: Iterable[Path] = (), *, overwrite: bool = False
) -> None:
    """Refuse to write over an input, ever, and over any other file unless `overwrite` is set.

    Files are compared as the file system does: links, `..` and other spellings lead to one file.
    Names that differ only in case count as one, because on some file systems they are.

    Args:
        outputs: files that will be written; nothing is written here.
        inputs: files that the same command reads.
        overwrite: other files may be replaced.

    Raises:
        FileExistsError: names the first such file and how many there are.
    """
    read = {key for path in inputs for key in _keys(path)}
    lost: list[Path] = []
    there: list[Path] = []
    for path in outputs:
        if not read.isdisjoint(_keys(path)):
            lost.append(path)
        elif os.path.lexists(path):
            there.append(path)
    if lost:
        raise FileExistsError(
            f"out: {_first(lost)} an input of this command, which is never replaced; choose "
            "another place for the results"
        )
    if there and not overwrite:
        raise FileExistsError(
            f"out: {_first(there, 'is there')} already; add --overwrite to replace what is there, "
            "or choose another place for the results"
        )


def _first(paths: list[Path], verb: str = "is") -> str:
    more = f" (and {len(paths) - 1} more like it)" if len(paths) > 1 else ""
    return f"{paths[0]}{more} {verb}"


def _keys(path: Path) -> set[Key]:
    """Identities of a path: its file's, if there is one, and its place in its folder."""
    keys: set[Key] = set()
    absolute = Path(os.path.abspath(path)) if path.name in ("", "..") else path
    for there, name in ((path, ""), (absolute.parent, _folded(absolute.name))):
        try:
            facts = there.stat()
        except OSError:  # not there, or a link to nothing
            continue
        keys.add((facts.st_dev, facts.st_ino, name))
    return keys


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()
