"""A small part of PASCAL VOC for two processor cores: 2,750 photos at a long side of 320 px.

| list | photos | truth |
|---|---|---|
| `train` | 550 of the segmentation training list of VOC 2012 | tags, masks |
| `tags_only` | 1,901 of VOC 2007, chosen for bus, car, cat and train | tags |
| `train_tags` | both | tags |
| `val` | 299 of the segmentation validation list of VOC 2012 | tags, masks |

Photos are not part of the package: `prepare_voc_mini` makes them from the official archives. Scores
on these lists cannot be compared with published ones.
"""

import dataclasses
import json
from pathlib import Path

from wsss_lab.data import layouts
from wsss_lab.data.catalog import VOC_CLASSES
from wsss_lab.data.errors import Problem
from wsss_lab.data.index import Index

LISTS = Path(__file__).parent / "lists" / "voc_mini"
SPLITS = ("train", "tags_only", "train_tags", "val")
LONG_SIDE = 320
"""Photos with a longer side are reduced to this, px."""
MAKE = "Make the folder with: python -m wsss_lab data voc-mini --root DIR"
JSON_TAGS = "image_tags.json"
"""Other form of the tags beside `tags.csv`: name -> 0-based classes."""


def names_of(split: str) -> list[str]:
    """List the photos of one of `SPLITS`, sorted.

    A name is VOC 2012's, or ``2007_`` and the six digits of VOC 2007.

    Raises:
        ValueError: there is no such list.
    """
    if split not in SPLITS:
        raise ValueError(f"split: expected one of {', '.join(SPLITS)}, got {split!r}")
    if split == "train_tags":
        return sorted(names_of("train") + names_of("tags_only"))
    return (LISTS / f"{split}.txt").read_text().split()


def index_voc_mini(root: str | Path, split: str = "train_tags") -> Index:
    """Index what `prepare_voc_mini` has made.

    Args:
        root: folder with `JPEGImages`, or the one above `voc_mini`.
        split: one of `SPLITS`.

    Raises:
        DataError: a photo or its tags are missing, or the folder's list holds other photos.
        ValueError: there is no such list.
    """
    folder = Path(root)
    folder = folder / "voc_mini" if (folder / "voc_mini" / "JPEGImages").is_dir() else folder
    names = names_of(split)
    if not (folder / "JPEGImages").is_dir():
        what = "this folder is not there, so these are not the photos of voc-mini"
        raise Problem(str(folder / "JPEGImages"), what, MAKE, missing=True).error()
    index = layouts.index_voc(folder, split, _source(folder))
    if index.classes != VOC_CLASSES:
        what = "replaces the 20 classes of VOC, which voc-mini does not allow"
        raise Problem(str(folder / "classes.txt"), what, "Use --data.name voc").error()
    if foreign := sorted({entry.name for entry in index.entries} ^ set(names)):
        what = f"is not the list {split} of voc-mini: {len(foreign)} names differ, as {foreign[0]}"
        listed = folder / "ImageSets" / "Segmentation" / f"{split}.txt"
        raise Problem(
            str(listed),
            what,
            "Prepare voc-mini again, or use --data.name voc for lists of your own",
        ).error()
    if (folder / "tags.csv").is_file():
        return index
    tags = _json_tags(folder / JSON_TAGS, names)
    entries = [dataclasses.replace(entry, tags=tags[entry.name]) for entry in index.entries]
    return dataclasses.replace(index, entries=entries)


def _source(folder: Path) -> str:
    if (folder / "tags.csv").is_file():
        return "csv"
    if (folder / JSON_TAGS).is_file():
        return "none"
    raise Problem(
        str(folder / "tags.csv"),
        "the tags are not there",
        MAKE,
        missing=True,
    ).error()


def _json_tags(path: Path, names: list[str]) -> dict[str, tuple[int, ...]]:
    """Read tags by name; every photo has at least one."""
    remedy = "Make the folder anew with: python -m wsss_lab data voc-mini --root DIR"
    try:
        stored = json.loads(path.read_text("utf-8"))
    except (ValueError, RecursionError) as error:
        raise Problem(str(path), f"is no JSON file ({error})", remedy).error() from error
    found = {}
    for name in names:
        values = stored.get(name) if isinstance(stored, dict) else None
        if (
            not isinstance(values, list)
            or not values
            or not all(type(v) is int and 0 <= v < len(VOC_CLASSES) for v in values)
        ):
            what = f"has no tags for {name}: expected a list of classes 0..19, got {values!r}"
            raise Problem(str(path), what[:200], remedy).error()
        found[name] = tuple(sorted(set(values)))
    return found
