"""Rules by which every command finds pictures and reads text: endings, hidden files, encodings.

- A picture is a file with one of `readable_suffixes`; hidden files (`._x.jpg`, `.DS_Store`) are
  passed over, and so are other files, which `Pictures.skipped` names.
- Names are compared in Unicode's composed form (NFC): macOS stores `ü` as two characters.
- Text files are UTF-8, with or without a byte order mark, with any line ends.
"""

import contextlib
import functools
import os
import unicodedata
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from wsss_lab.data.errors import OnProblem, Problem, stop

IMAGE_SUFFIXES = frozenset(
    (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".webp", ".tif", ".tiff")
) | frozenset((".avif", ".heic", ".heif"))
"""Endings of photos, lower case. `readable_suffixes` are those that this installation can open."""


@functools.cache
def readable_suffixes() -> frozenset[str]:
    """Return the endings of `IMAGE_SUFFIXES` that Pillow can open here.

    `.heic` takes the package pillow-heif, `.avif` a Pillow that was built with it, as its wheels
    are.
    """
    with contextlib.suppress(ImportError):
        import pillow_heif  # type: ignore[import-not-found,unused-ignore]

        pillow_heif.register_heif_opener()
    return IMAGE_SUFFIXES & Image.registered_extensions().keys()


def composed(name: str) -> str:
    """Return a name in Unicode's composed form, in which names are compared."""
    return unicodedata.normalize("NFC", name)


def stem(name: str) -> str:
    """Strip an image ending from a file name: `a.b.jpg` -> `a.b`, `a.b` -> `a.b`."""
    cut = name[: -len(Path(name).suffix)] if Path(name).suffix.lower() in IMAGE_SUFFIXES else name
    return composed(cut)


def read_text(path: Path) -> str:
    """Read a text file in UTF-8, without its byte order mark if there is one.

    Raises:
        DataError: another encoding, or it cannot be read.
    """
    try:
        return composed(path.read_bytes().decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise Problem(
            str(path),
            f"is not UTF-8 text ({error.reason} at byte {error.start})",
            "Save it as UTF-8: names with accents would be others otherwise",
        ).error() from error
    except OSError as error:
        raise Problem(
            str(path), f"cannot be read ({error.strerror})", "Check its rights"
        ).error() from error


def existing(path: Path) -> Path:
    """Return the file of this name, also where its folder spells it in another Unicode form."""
    if path.is_file():
        return path
    for form in ("NFC", "NFD"):
        other = path.with_name(unicodedata.normalize(form, path.name))
        if other.is_file():
            return other
    return path


@dataclass(frozen=True)
class Pictures:
    """Pictures of a folder."""

    files: dict[str, Path]
    """Path by name without ending, sorted by file name."""
    skipped: tuple[str, ...]
    """Names of files that are no pictures, or of a kind that cannot be opened here."""

    def skipped_note(self, shown: int = 5) -> str:
        """Return one line that counts and names what was skipped; "" if nothing was."""
        if not self.skipped:
            return ""
        names = ", ".join(self.skipped[:shown])
        if len(self.skipped) > shown:
            names += f" and {len(self.skipped) - shown} more"
        unknown = sorted({Path(n).suffix.lower() for n in self.skipped} & IMAGE_SUFFIXES)
        why = f"; {', '.join(unknown)} cannot be opened by this installation" if unknown else ""
        some = "file" if len(self.skipped) == 1 else "files"
        return f"skipped {len(self.skipped)} {some} that are no readable image: {names}{why}"


def list_pictures(folder: str | Path, on_problem: OnProblem = stop) -> Pictures:
    """List the pictures of a folder, not those of folders inside it.

    Args:
        folder: the folder.
        on_problem: called for each of two pictures whose names differ in the ending only.

    Raises:
        DataError: no such folder, or the first problem.
    """
    folder = Path(folder)
    if not folder.is_dir():
        remedy = "Put the images there, or name the right folder"
        raise Problem(str(folder), "this folder is not there", remedy, missing=True).error()
    found: dict[str, Path] = {}
    skipped = []
    with os.scandir(folder) as entries:
        names = sorted(e.name for e in entries if not e.name.startswith(".") and e.is_file())
    for name in names:
        if Path(name).suffix.lower() not in readable_suffixes():
            skipped.append(name)
            continue
        if stem(name) in found:
            what = f"has the same name as {found[stem(name)].name} up to its ending"
            on_problem(Problem(str(folder / name), what, "Rename one of the two"))
        found.setdefault(stem(name), folder / name)
    return Pictures(found, tuple(skipped))
