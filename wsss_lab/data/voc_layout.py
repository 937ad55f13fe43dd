"""Layout of PASCAL VOC 2012: where its images, lists, tags and masks are."""

from collections.abc import Sequence
from pathlib import Path

from wsss_lab.data.catalog import VOC_CLASSES
from wsss_lab.data.class_names import read_classes
from wsss_lab.data.errors import DataError, OnProblem, Problem, stop
from wsss_lab.data.files import existing, list_pictures
from wsss_lab.data.index import Index, join_entries
from wsss_lab.data.masks import read_mask
from wsss_lab.data.name_lists import read_list
from wsss_lab.data.tags import (
    Tags,
    read_tags,
    tags_from_boxes,
    tags_from_json,
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
    images = list_pictures(folder / "JPEGImages", on_problem)
    lists = folder / "ImageSets" / "Segmentation"
    names = read_list(lists / f"{split}.txt", on_problem, images.files)
    listed = folder / "classes.txt"
    classes = read_classes(listed) if listed.is_file() else VOC_CLASSES
    masks = (folder / "SegmentationClass", folder / "SegmentationClassAug")
    found = _voc_tags(folder, names, classes, tags, difficult, masks, on_problem)
    where = f"{folder.name}/ImageSets/Segmentation/{split}.txt"
    entries = join_entries(names, images, found, masks, where, on_problem)
    own = listed.is_file()
    return Index(entries, classes, len(classes) + 1, check_palette=True, own=own)


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
        return tags_from_json(folder / "image_labels.json", len(classes))
    if source not in ("boxes", "masks"):
        raise ValueError(
            f"tags must be auto, csv, boxes, masks, json or none, got {source!r}; auto is usual"
        )
    tags: Tags = {}
    for name in names:
        try:
            if source == "boxes":
                path = existing(folder / "Annotations" / f"{name}.xml")
                tags[name] = tags_from_boxes(path, classes, difficult)
            else:
                files = [existing(folder / f"{name}.png") for folder in masks]
                path = next((file for file in files if file.is_file()), files[0])
                tags[name] = tags_from_mask(read_mask(path, len(classes) + 1))
        except DataError as error:
            on_problem(Problem.of(error))
    return tags
