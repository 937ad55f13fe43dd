"""Image-level tags on disk: CSV files, VOC's boxes, masks.

A tags file is a CSV with a header, in one of two forms:

    name,tags                 name,cat,dog
    img1,cat;dog              img1,1,1
    img2,dog                  img2,0,1

`name` is the file name, with or without ending. Unknown classes, names that come twice and cells
other than 0 and 1 are errors: each would otherwise train a wrong model unnoticed. So is a row
without a class, unless it is asked for: an image of nothing, a negative.
"""

import csv
import io
import json
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from wsss_lab import IGNORE
from wsss_lab.config import write_text_atomically
from wsss_lab.data.class_names import (
    first_twice,
    foreground,
    is_background,
    is_ignore,
    read_classes,
    require_foreground,
)
from wsss_lab.data.errors import OnProblem, Problem, stop
from wsss_lab.data.files import composed, read_text, stem

Tags = dict[str, tuple[int, ...]]
"""Class indices (0-based, sorted) by image name."""


def read_tags(
    path: str | Path,
    classes: Sequence[str] | None = None,
    allow_empty: bool | None = False,
    on_problem: OnProblem = stop,
) -> tuple[tuple[str, ...], Tags]:
    """Read a tags file in either form.

    Args:
        path: CSV file.
        classes: class names in index order. None takes `classes.txt` beside the file if there is
            one, else the header of the 0/1 form.
        allow_empty: accept images without any class. None accepts them where it is no slip of the
            pen: a row of zeros in the 0/1 form, or an empty cell where there is one class only.
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
    rows = _read_rows(path)
    header = _header(path, rows)
    listed = header[1:] != ["tags"]
    if classes is None:
        classes = _classes_beside(path, header, rows, listed)
    else:
        require_foreground(classes, f"classes of {path}")
    if listed:
        header, rows = _without_background(header, rows, classes)
    index = {name: i for i, name in enumerate(classes)}
    if allow_empty is None:
        allow_empty = listed or len(classes) == 1
    if listed and (unknown := [name for name in header[1:] if name not in index]):
        raise _unknown(path, 1, unknown, classes).error()
    if listed and len(set(header)) < len(header):
        what = f"its header names a column twice: {first_twice(header)}"
        raise Problem(str(path), what, "Keep one column for each class").error()
    tags: Tags = {}
    for line, row in rows[1:]:
        problem = _add_row(path, line, row, header, index, tags, listed, allow_empty)
        if problem is not None:
            on_problem(problem)
    return tuple(classes), tags


def class_columns(path: str | Path) -> tuple[str, ...] | None:
    """Return the foreground classes in the header of a tags file; None in the form `name,tags`.

    Raises:
        DataError: missing, not such a CSV, or its columns are no list of foreground classes.
    """
    path = Path(path)
    header = _header(path, _read_rows(path))
    return None if header[1:] == ["tags"] else foreground(header[1:], f"{path}, line 1")


def _read_rows(path: Path) -> list[tuple[int, list[str]]]:
    """Rows that are not empty, with their line numbers."""
    return [(line, [cell.strip() for cell in row]) for line, row in _rows(path)]


def _rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    reader = csv.reader(io.StringIO(read_text(path), newline=""))
    try:
        for row in reader:
            if any(cell.strip() for cell in row):
                yield reader.line_num, row
    except csv.Error as error:
        raise Problem(
            str(path), f"is no CSV file ({error})", "Save it as CSV, UTF-8"
        ).error() from error


def _header(path: Path, rows: list[tuple[int, list[str]]]) -> list[str]:
    header = rows[0][1] if rows else []
    line = ",".join(header)
    if not line.startswith("name,") or (line.lower() == "name,tags" != line):
        small, usual = "Write name and tags in small letters", "Write a file with that header"
        raise Problem(
            str(path),
            f"its first line is {line[:80]!r}, expected name,tags or name,CLASS,...",
            small if line.lower().startswith("name,") else usual,
        ).error()
    return header


def _without_background(
    header: list[str], rows: list[tuple[int, list[str]]], classes: Sequence[str]
) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """Drop columns of background and ignored: every image has them, and no tag means them."""
    kept = [
        i
        for i, name in enumerate(header)
        if i == 0 or name in classes or not (is_background(name) or is_ignore(name))
    ]
    if len(kept) == len(header):
        return header, rows
    # a row of another length is left as it is, for the message about it
    cut = [(line, [row[i] for i in kept] if len(row) == len(header) else row) for line, row in rows]
    return [header[i] for i in kept], cut


def _classes_beside(
    path: Path, header: list[str], rows: list[tuple[int, list[str]]], listed: bool
) -> tuple[str, ...]:
    beside = path.with_name("classes.txt")
    if beside.is_file():
        return read_classes(beside)
    if listed:
        if len(set(header)) < len(header):
            what = f"its header names a column twice: {first_twice(header)}"
            raise Problem(str(path), what, "Keep one column for each class").error()
        return foreground(header[1:], f"{path}, line 1")
    found = sorted({n for _, row in rows[1:] for n in row[-1].split(";") if n.strip()})
    raise Problem(
        str(beside),
        "this class list is not there, and name,tags files do not say the order of the classes",
        f"Write it, one class a line; the tags found are {', '.join(found)[:200]}",
        missing=True,
    ).error()


def _unknown(path: Path, line: int, names: Sequence[str], classes: Sequence[str]) -> Problem:
    """Name all of them, and the classes that differ in capitals alone."""
    meant = {known.lower(): known for known in classes}
    alike = [meant[name.lower()] for name in names if name.lower() in meant]
    many = len(names) > 1
    return Problem(
        f"{path}, line {line}",
        f"unknown class{'es' * many} {', '.join(map(repr, names[:9]))}",
        f"Capitals count: write {', '.join(alike)}"
        if len(alike) == len(names)
        else f"Use one of {', '.join(classes)[:200]}, or add it to classes.txt",
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
            held = ", ".join(map(repr, dict.fromkeys(wrong)))
            return Problem(where, f"holds {held[:80]}, expected 0 or 1", "Write 0 or 1")
        found = [header[1:][i] for i, cell in enumerate(row[1:]) if cell == "1"]
    else:
        found = [part.strip() for part in row[1].split(";") if part.strip()]
        unknown = [part for part in found if part not in index]
        if unknown:
            return _unknown(path, line, unknown, tuple(index))
    tags[name] = tuple(sorted({index[part] for part in found}))
    if not found and not allow_empty:
        return Problem(
            where,
            f"the image {name!r} has no class",
            "Tag it, or drop the row; if it is a negative, write 0s in a name,CLASS,... table",
        )
    return None


def write_tags(path: str | Path, tags: Tags, classes: Sequence[str]) -> None:
    """Write the `name,tags` form, atomically."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("name", "tags"))
    writer.writerows((name, ";".join(classes[c] for c in tags[name])) for name in tags)
    write_text_atomically(path, text.getvalue())


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
    except (ET.ParseError, ValueError, OSError) as error:  # ValueError: an unknown encoding
        raise Problem(
            str(path), f"is not XML ({error})", "Prepare the data set again"
        ).error() from error
    found = set()
    for item in root.iterfind("object"):
        if not difficult and (item.findtext("difficult") or "0").strip() == "1":
            continue
        name = composed((item.findtext("name") or "").strip())
        if name not in classes:
            raise _unknown(path, 1, [name], classes).error()
        found.add(classes.index(name))
    return tuple(sorted(found))


def tags_from_json(path: Path, k: int) -> Tags:
    """Read tags from a JSON file `{name: [mask values 1..k]}`.

    Raises:
        DataError: it cannot be read, or a value is no whole number of 1..k.
    """
    remedy = "Expected {name: [mask values 1..k]}, whole numbers"
    text = read_text(path)
    try:
        stored = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Problem(str(path), f"cannot be read ({error})", remedy).error() from error
    if not isinstance(stored, dict):
        what = f"holds a {type(stored).__name__}, not an object"
        raise Problem(str(path), what, remedy).error()
    tags: Tags = {}
    for name, values in stored.items():
        if not isinstance(values, list) or any(type(v) is not int for v in values):
            raise Problem(str(path), f"gives {name!r} {str(values)[:60]}", remedy).error()
        if any(not 1 <= v <= k for v in values):
            what = f"gives {name!r} a class id outside 1..{k}"
            raise Problem(str(path), what, "Correct the class list or the file").error()
        tags[composed(name)] = tuple(sorted({v - 1 for v in values}))
    return tags


def tags_from_mask(label: np.ndarray) -> tuple[int, ...]:
    """Return the classes that have pixels: `c` for mask value `c + 1`; none for 0 and 255."""
    values = np.flatnonzero(np.bincount(label.ravel(), minlength=256))
    return tuple(int(v) - 1 for v in values if v not in (0, IGNORE))
