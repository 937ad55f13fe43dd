"""Paths of images, tags and masks in each data set's layout.

Lists and tag files are read; pixels only for `tags="masks"`. Every function takes `on_problem`: the
default raises the first problem, `check` collects them all.
"""

import json
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from wsss_lab import IGNORE
from wsss_lab.data.catalog import (
    COCO_CLASSES,
    STUFF_182_NAMES,
    STUFF_CLASSES,
    STUFF_IDS,
    VOC_CLASSES,
)
from wsss_lab.data.errors import DataError, OnProblem, Problem, stop
from wsss_lab.data.images import IMAGE_SUFFIXES
from wsss_lab.data.index import Entry, Index
from wsss_lab.data.masks import read_mask
from wsss_lab.data.tags import (
    Tags,
    read_classes,
    read_tags,
    stem,
    tags_from_boxes,
    tags_from_mask,
)


def voc_root(root: str | Path) -> Path:
    """Find the folder with `JPEGImages`: `root`, `root/VOC2012` or `root/VOCdevkit/VOC2012`.

    Raises:
        DataError: none of them has it.
    """
    root = Path(root)
    for folder in (root, root / "VOC2012", root / "VOCdevkit" / "VOC2012"):
        if (folder / "JPEGImages").is_dir():
            return folder
    raise Problem(
        str(root / "JPEGImages"),
        "this folder is not there, so this is no data set in VOC layout",
        "Name the folder that holds JPEGImages, or run: python -m wsss_lab data voc --root DIR",
        missing=True,
    ).error()


def read_list(path: str | Path, on_problem: OnProblem = stop) -> list[str]:
    """Read the names of a split list, one a line (or VOC's `/JPEGImages/ID.jpg /...png`).

    Raises:
        DataError: missing, empty, or a name twice.
    """
    path = Path(path)
    if not path.is_file():
        have = ", ".join(sorted(p.stem for p in path.parent.glob("*.txt"))) or "none"
        raise Problem(
            str(path), "this split list is not there", f"Lists in its folder: {have}", True
        ).error()
    lines = [line.split() for line in path.read_text("utf-8-sig").splitlines()]
    names: dict[str, None] = {}
    for number, line in enumerate(lines, 1):
        if not line:
            continue
        name = stem(line[0].rsplit("/", 1)[-1])
        if name in names:
            where = f"{path}, line {number}"
            on_problem(Problem(where, f"the name {name!r} comes twice", "Keep one line for each"))
        names[name] = None
    if not names:
        on_problem(Problem(str(path), "is empty", "Write one image name a line"))
    return list(names)


def _listing(folder: Path, on_problem: OnProblem) -> dict[str, str]:
    """Return the image paths of one folder by name without ending."""
    if not folder.is_dir():
        remedy = "Put the images there, or name the right folder"
        raise Problem(str(folder), "this folder is not there", remedy, missing=True).error()
    found: dict[str, str] = {}
    for file in sorted(os.listdir(folder)):
        if file.startswith(".") or Path(file).suffix.lower() not in IMAGE_SUFFIXES:
            continue
        if stem(file) in found:
            what = f"has the same name as {Path(found[stem(file)]).name} up to its ending"
            on_problem(Problem(str(folder / file), what, "Rename one of the two"))
        found.setdefault(stem(file), str(folder / file))
    return found


def _entries(
    names: Sequence[str],
    images: dict[str, str],
    tags: Tags,
    masks: Sequence[Path],
    where: str,
    on_problem: OnProblem,
) -> list[Entry]:
    """Join names, image files, tags, and the mask from the first folder that has one."""
    have = [(folder, set(os.listdir(folder))) for folder in masks if folder.is_dir()]
    entries = []
    for name in names:
        if name not in images:
            what = f"lists {name!r}, but there is no such image"
            on_problem(Problem(where, what, "Copy the image or drop the name", missing=True))
        elif name not in tags:
            what = f"lists {name!r}, but the tags do not"
            on_problem(Problem(where, what, "Add its tags or drop the name"))
        else:
            mask = next((str(f / f"{name}.png") for f, s in have if f"{name}.png" in s), None)
            entries.append(Entry(name, images[name], mask, tags[name]))
    return entries


def index_voc(
    root: str | Path,
    split: str = "train_aug",
    tags: str = "auto",
    difficult: bool = True,
    on_problem: OnProblem = stop,
) -> Index:
    """Index a data set in VOC layout; see `ImageTagDataset.voc`.

    Raises:
        DataError: not in that layout, or the first problem.
    """
    folder = voc_root(root)
    names = read_list(folder / "ImageSets" / "Segmentation" / f"{split}.txt", on_problem)
    listed = folder / "classes.txt"
    classes = read_classes(listed) if listed.is_file() else VOC_CLASSES
    masks = (folder / "SegmentationClass", folder / "SegmentationClassAug")
    found = _voc_tags(folder, names, classes, tags, difficult, masks, on_problem)
    images = _listing(folder / "JPEGImages", on_problem)
    where = f"{folder.name}/ImageSets/Segmentation/{split}.txt"
    entries = _entries(names, images, found, masks, where, on_problem)
    return Index(entries, classes, len(classes) + 1, check_palette=True)


def tag_source(folder: Path) -> str | None:
    """Source of a VOC layout's tags for `tags="auto"`: "csv", "boxes", or None if it has none."""
    if (folder / "tags.csv").is_file():
        return "csv"
    return "boxes" if (folder / "Annotations").is_dir() else None


def _voc_tags(
    folder: Path,
    names: list[str],
    classes: tuple[str, ...],
    source: str,
    difficult: bool,
    masks: Sequence[Path],
    on_problem: OnProblem,
) -> Tags:
    if source == "auto":
        found = tag_source(folder)
        if found is None:
            raise Problem(
                str(folder / "tags.csv"),
                "there is neither this file nor a folder Annotations, so no tags",
                'Write it (name,tags), or pass tags="masks" to derive tags from pixel truth',
                missing=True,
            ).error()
        source = found
    if source == "csv":
        return read_tags(folder / "tags.csv", classes, None, on_problem)[1]
    if source == "none":
        return dict.fromkeys(names, ())
    if source == "json":
        return _json_tags(folder / "image_labels.json", len(classes))
    if source not in ("boxes", "masks"):
        raise ValueError(
            f"tags must be auto, csv, boxes, masks, json or none, got {source!r}; auto is usual"
        )
    tags: Tags = {}
    for name in names:
        try:
            if source == "boxes":
                path = folder / "Annotations" / f"{name}.xml"
                tags[name] = tags_from_boxes(path, classes, difficult)
            else:
                here = [m / f"{name}.png" for m in masks if (m / f"{name}.png").is_file()]
                path = here[0] if here else masks[0] / f"{name}.png"
                tags[name] = tags_from_mask(read_mask(path, len(classes) + 1))
        except DataError as error:
            on_problem(Problem.of(error))
    return tags


def _json_tags(path: Path, k: int) -> Tags:
    """Read tags from a JSON file `{name: [mask values 1..k]}`."""
    try:
        stored = json.loads(path.read_text())
        tags = {name: tuple(sorted(int(v) - 1 for v in values)) for name, values in stored.items()}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        remedy = "Expected {name: [class ids 1..k]}"
        raise Problem(str(path), f"cannot be read ({error})", remedy).error() from error
    wrong = [name for name, values in tags.items() if any(not 0 <= v < k for v in values)]
    if wrong:
        what = f"gives {wrong[0]!r} a class id outside 1..{k}"
        raise Problem(str(path), what, "Correct the class list or the file").error()
    return tags


def index_coco(root: str | Path, split: str = "train", on_problem: OnProblem = stop) -> Index:
    """Index prepared COCO 2014; see `ImageTagDataset.coco`.

    Raises:
        DataError: not prepared, or the first problem.
    """
    root = Path(root)
    path = _prepared(root, split, ("train", "val"), "coco")
    _, tags = read_tags(path, COCO_CLASSES, on_problem=on_problem)
    images = _listing(root / f"{split}2014", on_problem)
    masks = (root / "masks" / f"{split}2014",)
    entries = _entries(list(tags), images, tags, masks, path.name, on_problem)
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
    images = _listing(root / "images", on_problem)
    entries = _entries(list(tags), images, tags, (root / "masks",), path.name, on_problem)
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
    found = _listing(Path(images), on_problem)
    masks = () if masks_dir is None else (Path(masks_dir),)
    entries = _entries(list(tags), found, tags, masks, str(tags_csv), on_problem)
    return Index(entries, names, len(names) + 1, exif=True)
