"""Recorded numbers of the released codes: where they lie, and which a plain clone may lack."""

import functools
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
COMMITTED = ROOT / "tests" / "golden" / "recorded"
BESIDE = ROOT.parent / "shared" / "golden"
"""The whole set, where it lies beside the checkout."""
LIST = ROOT / "tests" / "golden" / "elsewhere.txt"


def folder_of(option: str) -> Path:
    """The folder that `--golden` means: a path, or "auto" for the whole set where it is."""
    if option != "auto":
        return Path(option)
    return BESIDE if BESIDE.is_dir() else COMMITTED


def elsewhere(text: str) -> dict[str, frozenset[str]]:
    """File -> arrays that the committed part leaves out; none named: the whole file."""
    lines = [line.split() for line in text.splitlines() if line and not line.startswith("#")]
    return {name: frozenset(arrays) for name, *arrays in lines}


@functools.lru_cache(maxsize=8)
def _read(path: Path) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as file:
        return {key: file[key] for key in file.files}


class Recordings:
    """Recorded arrays of one method.

    An absence that `elsewhere.txt` lists skips the test by name, in the committed share only. Every
    other absence fails it: a deleted file must not turn a test into a skip.
    """

    def __init__(self, folder: Path, listed: dict[str, frozenset[str]]):
        self.folder = folder
        prefix = f"{folder.name}/"
        self.listed = {k.removeprefix(prefix): v for k, v in listed.items() if k.startswith(prefix)}

    def __call__(self, name: str, *arrays: str) -> dict[str, np.ndarray] | Path:
        """Read a file, or return the path of one that is not `.npz`.

        Args:
            name: file name.
            arrays: arrays that the test needs.
        """
        path, listed = self.folder / name, self.listed.get(name)
        if not path.is_file():
            self._absent(name, expected=listed == frozenset())
        if path.suffix != ".npz":
            return path
        z = {key: array.copy() for key, array in _read(path).items()}
        missing = sorted(set(arrays) - set(z))
        if missing:
            expected = bool(listed) and set(missing) <= set(listed)
            self._absent(f"{name}: {', '.join(missing)}", expected)
        return z

    def _absent(self, what: str, expected: bool) -> None:
        what = f"recording {self.folder.name}/{what}"
        if expected:
            pytest.skip(f"{what} is not part of a plain clone")
        pytest.fail(
            f"{what} is not in {self.folder.parent}, and tests/golden/elsewhere.txt does not list "
            "it; git checkout tests/golden/recorded brings committed ones back",
            pytrace=False,
        )


def recordings(root: Path, method: str) -> Recordings:
    """Recordings of a method in a folder; only the committed share may be incomplete."""
    share = root.resolve() == COMMITTED.resolve()
    return Recordings(root / method, elsewhere(LIST.read_text()) if share else {})
