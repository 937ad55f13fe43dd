"""Image-level tags on disk: CSV files, VOC's boxes, masks.

A tags file is a CSV with a header, in one of two forms:

    name,tags                 name,cat,dog
    img1,cat;dog              img1,1,1
    img2,dog                  img2,0,1

`name` is the file name, with or without ending. Unknown classes, rows without a class, names that
come twice and cells other than 0 and 1 are errors: each would otherwise train a wrong model
unnoticed.
"""

import csv
import os
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from wsss_lab import IGNORE
from wsss_lab.data.errors import OnProblem, Problem, stop
from wsss_lab.data.images import IMAGE_SUFFIXES

Tags = dict[str, tuple[int, ...]]
"""Class indices (0-based, sorted) by image name."""


def stem(name: str) -> str:
    """Strip an image ending from a file name: `a.b.jpg` -> `a.b`, `a.b` -> `a.b`."""
    return name[: -len(Path(name).suffix)] if Path(name).suffix.lower() in IMAGE_SUFFIXES else name


def read_classes(path: str | Path) -> tuple[str, ...]:
    """Read the foreground classes of a `classes.txt`, one a line, without a first `background`.

    Raises:
        DataError: missing, empty, or with a class twice.
    """
    path = Path(path)
    if not path.is_file():
        raise Problem(
            str(path), "this class list is not there", "Write one class name a line", True
        ).error()
    names = [line.strip() for line in path.read_text("utf-8-sig").splitlines() if line.strip()]
    names = names[1:] if names[:1] == ["background"] else names
    if not names or len(set(names)) < len(names):
        raise Problem(
            str(path),
            "is empty" if not names else f"names a class twice: {_first_twice(names)}",
            "Write each foreground class once, in the order of the mask values 1, 2, ...",
        ).error()
    return tuple(names)


def _first_twice(names: Iterable[str]) -> str:
    seen: set[str] = set()
    return next(n for n in names if n in seen or seen.add(n))  # type: ignore[func-returns-value]


def read_tags(
    path: str | Path,
    classes: Sequence[str] | None = None,
    allow_empty: bool = False,
    on_problem: OnProblem = stop,
) -> tuple[tuple[str, ...], Tags]:
    """Read a tags file in either form.

    Args:
        path: CSV file.
        classes: class names in index order. None takes `classes.txt` beside the file if there is
            one, else the header of the 0/1 form.
        allow_empty: accept images without any class.
        on_problem: called for every bad row; the default raises the first.

    Returns:
        the classes, and class indices by image name in the order of the file.

    Raises:
        DataError: missing, not such a CSV, or the first bad row.
    """
    path = Path(path)
    if not path.is_file():
        raise Problem(
            str(path), "this tags file is not there", "Write a CSV with the header name,tags", True
        ).error()
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = [(line, [cell.strip() for cell in row]) for line, row in _rows(path, file)]
    header = rows[0][1] if rows else []
    if len(header) < 2 or header[0] != "name":
        raise Problem(
            str(path),
            f"its first line is {','.join(header)[:80]!r}, expected name,tags or name,CLASS,...",
            "Write a comma-separated file with that header",
        ).error()
    listed = header[1:] != ["tags"]
    if classes is None:
        classes = _classes_beside(path, header, rows, listed)
    index = {name: i for i, name in enumerate(classes)}
    unknown = [name for name in header[1:] if name not in index] if listed else []
    if unknown:
        raise _unknown(path, 1, unknown[0], classes).error()
    if listed and len(set(header)) < len(header):
        what = f"its header names a column twice: {_first_twice(header)}"
        raise Problem(str(path), what, "Keep one column for each class").error()
    tags: Tags = {}
    for line, row in rows[1:]:
        problem = _add_row(path, line, row, header, index, tags, listed, allow_empty)
        if problem is not None:
            on_problem(problem)
    return tuple(classes), tags


def _rows(path: Path, file: Iterable[str]) -> Iterator[tuple[int, list[str]]]:
    """Yield non-empty rows with their line numbers."""
    reader = csv.reader(file)
    try:
        for row in reader:
            if any(cell.strip() for cell in row):
                yield reader.line_num, row
    except (csv.Error, UnicodeDecodeError) as error:
        raise Problem(
            str(path), f"is not a UTF-8 CSV file ({error})", "Save it as CSV, UTF-8"
        ).error() from error


def _classes_beside(
    path: Path, header: list[str], rows: list[tuple[int, list[str]]], listed: bool
) -> tuple[str, ...]:
    beside = path.with_name("classes.txt")
    if beside.is_file():
        return read_classes(beside)
    if listed:
        return tuple(header[1:])
    found = sorted({n for _, row in rows[1:] for n in row[-1].split(";") if n.strip()})
    raise Problem(
        str(beside),
        "this class list is not there, and name,tags files do not say the order of the classes",
        f"Write it, one a line, or pass classes=; the tags found are {', '.join(found)[:200]}",
        missing=True,
    ).error()


def _unknown(path: Path, line: int, name: str, classes: Sequence[str]) -> Problem:
    return Problem(
        f"{path}, line {line}",
        f"unknown class {name!r}",
        f"Use one of {', '.join(classes)[:200]}, or add it to classes.txt",
    )


def _add_row(
    path: Path,
    line: int,
    row: list[str],
    header: list[str],
    index: dict[str, int],
    tags: Tags,
    listed: bool,
    allow_empty: bool,
) -> Problem | None:
    """Add one row to `tags`, or return its problem."""
    where = f"{path}, line {line}"
    if len(row) != len(header):
        what = f"has {len(row)} cells, expected {len(header)}"
        return Problem(where, what, "Separate tags by ';' and columns by ','")
    name = stem(row[0])
    if not name:
        return Problem(where, "has no image name", "Write the file name in the first column")
    if name in tags:
        return Problem(where, f"the image {name!r} comes twice", "Keep one row for each image")
    if listed:
        wrong = [cell for cell in row[1:] if cell not in ("0", "1")]
        if wrong:
            return Problem(where, f"holds {wrong[0]!r}, expected 0 or 1", "Write 0 or 1")
        found = [header[1:][i] for i, cell in enumerate(row[1:]) if cell == "1"]
    else:
        found = [part.strip() for part in row[1].split(";") if part.strip()]
        unknown = [part for part in found if part not in index]
        if unknown:
            return _unknown(path, line, unknown[0], tuple(index))
    tags[name] = tuple(sorted({index[part] for part in found}))
    if not found and not allow_empty:
        return Problem(
            where,
            f"the image {name!r} has no class",
            "Tag it, or drop the row: tag-supervised training learns from present classes",
        )
    return None


def write_tags(path: str | Path, tags: Tags, classes: Sequence[str]) -> None:
    """Write the `name,tags` form, atomically."""
    path = Path(path)
    part = path.with_name(f".{path.name}.tmp")
    try:
        with part.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(("name", "tags"))
            writer.writerows((name, ";".join(classes[c] for c in tags[name])) for name in tags)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)  # left only if the disk is full or the program was stopped


def tags_from_boxes(
    path: str | Path, classes: Sequence[str], difficult: bool = True
) -> tuple[int, ...]:
    """Read the classes of the objects in one VOC annotation file.

    The field's lists (PSA, IRN, SEAM and all that reuse their `cls_labels.npy`) take the name of
    every object, also of those marked difficult, and skip names that are no class (body parts).

    Args:
        path: `Annotations/ID.xml`.
        classes: names in index order.
        difficult: False leaves out objects that VOC marks as hard to recognise.

    Raises:
        DataError: missing, not XML, or with an object of an unknown class.
    """
    path = Path(path)
    if not path.is_file():
        raise Problem(
            str(path), "this annotation is not there", "Prepare the data set again", missing=True
        ).error()
    try:
        root = ET.parse(path).getroot()
    except ET.ParseError as error:
        raise Problem(
            str(path), f"is not XML ({error})", "Prepare the data set again"
        ).error() from error
    found = set()
    for item in root.iterfind("object"):
        if not difficult and (item.findtext("difficult") or "0").strip() == "1":
            continue
        name = (item.findtext("name") or "").strip()
        if name not in classes:
            raise _unknown(path, 1, name, classes).error()
        found.add(classes.index(name))
    return tuple(sorted(found))


def tags_from_mask(label: np.ndarray) -> tuple[int, ...]:
    """Return the classes that have pixels: `c` for mask value `c + 1`; none for 0 and 255."""
    values = np.flatnonzero(np.bincount(label.ravel(), minlength=256))
    return tuple(int(v) - 1 for v in values if v not in (0, IGNORE))
