"""Paths of images, tags and masks in each data set's layout.

Lists and tag files are read; pixels only for `tags="masks"`. Every function takes `on_problem`: the
default raises the first problem, `check` collects them all.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from wsss_lab import IGNORE
from wsss_lab.data.catalog import (
    COCO_CLASSES,
    STUFF_182_NAMES,
    STUFF_CLASSES,
    STUFF_IDS,
)
from wsss_lab.data.class_names import read_classes, require_same_classes
from wsss_lab.data.errors import OnProblem, Problem, stop
from wsss_lab.data.files import list_pictures
from wsss_lab.data.index import Index, join_entries
from wsss_lab.data.name_lists import read_list
from wsss_lab.data.tags import class_columns, read_tags
from wsss_lab.data.voc_layout import index_voc, tag_source, voc_root

__all__ = [
    "folder_classes",
    "index_coco",
    "index_folder",
    "index_stuff10k",
    "index_voc",
    "read_list",
    "stuff_recoding",
    "tag_source",
    "voc_root",
]


def index_coco(root: str | Path, split: str = "train", on_problem: OnProblem = stop) -> Index:
    """Index prepared COCO 2014; see `ImageTagDataset.coco`.

    Raises:
        DataError: not prepared, or the first problem.
    """
    root = Path(root)
    path = _prepared(root, split, ("train", "val"), "coco")
    _, tags = read_tags(path, COCO_CLASSES, on_problem=on_problem)
    images = list_pictures(root / f"{split}2014", on_problem)
    masks = (root / "masks" / f"{split}2014",)
    entries = join_entries(list(tags), images, tags, masks, path.name, on_problem)
    return Index(entries, COCO_CLASSES, len(COCO_CLASSES) + 1)


def index_stuff10k(
    root: str | Path,
    split: str = "train",
    convention: str = "171",
    on_problem: OnProblem = stop,
) -> Index:
    """Index prepared COCO-Stuff 10K; see `ImageTagDataset.stuff10k`.

    Raises:
        ValueError: unknown convention.
        DataError: not prepared, or the first problem.
    """
    recode, classes = stuff_recoding(convention)
    root = Path(root)
    path = _prepared(root, split, ("train", "test"), "stuff10k")
    _, stored = read_tags(path, STUFF_CLASSES, on_problem=on_problem)
    values = {c: int(recode[STUFF_IDS[c]]) for c in range(len(STUFF_CLASSES))}
    tags = {n: tuple(values[c] - 1 for c in cs if values[c] > 0) for n, cs in stored.items()}
    images = list_pictures(root / "images", on_problem)
    entries = join_entries(list(tags), images, tags, (root / "masks",), path.name, on_problem)
    return Index(entries, classes, 183, recode)


def stuff_recoding(convention: str) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return the table from official ids to mask values, and the classes of the mask values.

    Args:
        convention: "171", "182" or "things", see `ImageTagDataset.stuff10k`.

    Returns:
        uint8 table (256,), indexed by official id (1..182, 255 = unlabelled), and class names;
        class `c` has mask value `c + 1`.

    Raises:
        ValueError: unknown convention.
    """
    table = np.full(256, IGNORE, dtype=np.uint8)
    if convention == "182":
        table[1:183] = np.arange(1, 183)
        return table, STUFF_182_NAMES
    if convention not in ("171", "things"):
        raise ValueError(f'convention must be "171", "182" or "things", got {convention!r}')
    table[list(STUFF_IDS)] = np.arange(1, len(STUFF_IDS) + 1)
    if convention == "171":
        return table, STUFF_CLASSES
    table[list(STUFF_IDS[len(COCO_CLASSES) :])] = 0
    return table, COCO_CLASSES


def _prepared(root: Path, split: str, splits: tuple[str, ...], command: str) -> Path:
    if split not in splits:
        raise ValueError(f"split must be one of {', '.join(splits)}, got {split!r}")
    path = root / f"tags_{split}.csv"
    if not path.is_file():
        raise Problem(
            str(path),
            "this file is not there, so the data set is not prepared",
            f"Run: python -m wsss_lab data {command} --root {root}",
            missing=True,
        ).error()
    return path


def index_folder(
    images: str | Path,
    tags_csv: str | Path,
    masks_dir: str | Path | None = None,
    classes: Sequence[str] | None = None,
    allow_empty: bool | None = None,
    on_problem: OnProblem = stop,
) -> Index:
    """Index a user's own folder; see `ImageTagDataset.folder`.

    Raises:
        DataError: the first problem.
    """
    names, tags = read_tags(tags_csv, classes, allow_empty, on_problem)
    found = list_pictures(Path(images), on_problem)
    masks = () if masks_dir is None else (Path(masks_dir),)
    entries = join_entries(list(tags), found, tags, masks, str(tags_csv), on_problem)
    return Index(entries, names, len(names) + 1, own=True, drawn_on_view=True)


def folder_classes(
    root: Path, lists: Sequence[Path], notes: list[str] | None = None
) -> tuple[str, ...] | None:
    """Return the classes that all tags files of an own folder share.

    Args:
        root: folder that may hold `classes.txt`.
        lists: the tags files, that of training first; those that are missing are passed over.
        notes: gets a line for a list whose columns are in another order than those of the first.

    Returns:
        those of `classes.txt`, else the columns of the first list that has any, whose order holds
        for masks and for all lists; None where nothing names an order.

    Raises:
        DataError: there is no `classes.txt`, and the columns of two lists differ in a name.
    """
    if (root / "classes.txt").is_file():
        return read_classes(root / "classes.txt")
    known = [(path, class_columns(path)) for path in lists if path.is_file()]
    named = [(path, columns) for path, columns in known if columns is not None]
    for path, columns in named[1:]:
        first, expected = named[0]
        remedy = "classes.txt beside them, one class a line in the order of the mask values 1, 2"
        if columns != expected and sorted(columns) == sorted(expected) and notes is not None:
            notes.append(
                f"{path.name}: its columns are in another order than those of {first.name}, whose "
                f"order holds: mask value 1 is {expected[0]}. Write {remedy}."
            )
        if sorted(columns) != sorted(expected):
            owner = f"the columns of {first.name}"
            require_same_classes(expected, columns, owner, str(path), f"Write {remedy}")
    return named[0][1] if named else None
