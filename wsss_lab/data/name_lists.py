"""Lists of image names in text files, one a line."""

import re
from collections.abc import Container
from pathlib import Path

from wsss_lab.data.errors import OnProblem, Problem, stop
from wsss_lab.data.files import IMAGE_SUFFIXES, read_text, stem

_ENDING = "|".join(suffix[1:] for suffix in sorted(IMAGE_SUFFIXES))
_TWO_FILES = re.compile(rf"(.+?\.(?:{_ENDING}))\s+\S.*\.(?:{_ENDING})", re.IGNORECASE)
_TWO_PATHS = re.compile(r"(\S*/\S+)\s+(\S*/\S+)")
_LABELLED = re.compile(r"(\S+)\s+(?:-1|0|1)")


def read_list(
    path: str | Path, on_problem: OnProblem = stop, have: Container[str] = ()
) -> list[str]:
    """Read the names of a split list, without folders and image endings.

    A line is a name, which may hold spaces; or an image and its mask, `/JPEGImages/ID.jpg
    /SegmentationClass/ID.png`; or a name and -1, 0 or 1, as VOC's lists of one class.

    Args:
        path: text file in UTF-8.
        on_problem: called for a name that comes twice, and for an empty list.
        have: names of images that exist: a line that is one of them is never taken apart.

    Raises:
        DataError: missing, not UTF-8, or the first problem.
    """
    path = Path(path)
    if not path.is_file():
        there = sorted(p.stem for p in path.parent.glob("*.txt") if not p.name.startswith("."))
        remedy = f"Lists in its folder: {', '.join(there) or 'none'}"
        raise Problem(str(path), "this split list is not there", remedy, True).error()
    names: dict[str, None] = {}
    for number, line in enumerate(read_text(path).splitlines(), 1):
        if not line.strip():
            continue
        name = name_of_line(line.strip(), have)
        if name in names:
            where = f"{path}, line {number}"
            on_problem(Problem(where, f"the name {name!r} comes twice", "Keep one line for each"))
        names[name] = None
    if not names:
        on_problem(Problem(str(path), "is empty", "Write one image name a line"))
    return list(names)


def name_of_line(line: str, have: Container[str] = ()) -> str:
    """Return the image name in a line of a list, see `read_list`."""
    whole = _name(line)
    if whole in have or not re.search(r"\s", line):
        return whole
    for form in (_TWO_FILES, _TWO_PATHS, _LABELLED):
        if (match := form.fullmatch(line)) is not None:
            return _name(match[1])
    return whole


def _name(field: str) -> str:
    return stem(re.split(r"[/\\]", field)[-1])
