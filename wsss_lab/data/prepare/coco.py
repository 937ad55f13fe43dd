"""COCO 2014 -> photos, one 80-class mask per photo, and tags, as `ImageTagDataset.coco` reads them.

COCO annotates objects, and objects overlap, so a mask needs rules; other rules give other scores.
Ours are those of the masks that AFA, ToCo, DuPL and later papers refer to:

- smaller objects are painted over larger ones (`area` of the annotation; the earlier on a tie);
- crowd regions are painted as their class (`crowd="void"` makes them 255 instead);
- pixels without an object are background, never void;
- a photo's tags are the classes of all its annotations, crowds included; photos without any
  annotation are left out (train 82,081 of 82,783, val 40,137 of 40,504).

`prepared.json` keeps the rules, the class order and one checksum over all masks of a split.
"""

import hashlib
import json
import math
import os
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from wsss_lab import IGNORE
from wsss_lab.config import shortened
from wsss_lab.data.catalog import COCO_CLASSES, COCO_IDS, Archive
from wsss_lab.data.errors import Problem
from wsss_lab.data.prepare import common, unpack
from wsss_lab.data.prepare.coco_shapes import checked_shape
from wsss_lab.data.tags import Tags

_SPLITS = ("train", "val")
_CLASS = {category: c for c, category in enumerate(COCO_IDS)}


class _Job(NamedTuple):
    """Arguments of a worker that paints one mask."""

    path: str
    height: int
    width: int
    annotations: list[dict[str, Any]]
    crowd: str


def prepare_coco(
    root: str | Path,
    download: bool = True,
    *,
    crowd: str = "class",
    workers: int | None = None,
    archives: Mapping[str, Archive] | None = None,
) -> str:
    """Make `train2014/`, `val2014/`, `masks/`, `tags_{train,val}.csv`, `prepared.json` in `root`.

    Args:
        root: any folder; the archives (20 GB) go to `root/archives` and may be deleted afterwards.
        download: False uses existing archives only.
        crowd: "class" or "void", see above.
        workers: processes that paint masks; None is one a core. (Scripts, unlike notebooks and the
            command line, then need the usual `if __name__ == "__main__":`.)
        archives: other addresses (a mirror) by official file name; published counts are then not
            required.

    Returns:
        summary of one paragraph.

    Raises:
        ValueError: unknown `crowd`.
        DataError: an archive is missing, broken or another one; the message names the remedy.
    """
    if crowd not in ("class", "void"):
        raise ValueError(f'crowd must be "class" or "void", got {crowd!r}')
    root = Path(root)
    paths = common.fetch_all("coco", root, download, archives)
    settings = {
        "classes": COCO_CLASSES,
        "category_ids": COCO_IDS,
        "overlap": "smaller annotated area on top, earlier annotation on a tie",
        "crowd": "painted as its class" if crowd == "class" else "255",
        "unannotated": "background (0)",
        "archives": common.archive_hashes(root / "archives", paths),
    }
    if common.already(root / common.RECORD, settings):
        return f"COCO 2014 in {root} is prepared already."
    _unpack(paths, root)
    counts, digests, files = {}, {}, []
    for split in _SPLITS:
        path = root / "annotations" / f"instances_{split}2014.json"
        jobs, tags = read_instances(path, root / "masks" / f"{split}2014", crowd)
        masks = common.convert(paint_file, jobs, workers or os.cpu_count() or 1, f"{split} masks")
        digests[split] = common.masks_digest(masks)
        files.append(root / f"tags_{split}.csv")
        common.put_tags(files[-1], tags, COCO_CLASSES)
        counts[split] = len(tags)
    common.require_counts(root, "coco", counts, published=archives is None)
    common.write_record(root / common.RECORD, settings, counts, files, digests)
    return f"COCO 2014 in {root}: train {counts['train']}, val {counts['val']} images with objects."


def _unpack(paths: Mapping[str, Path], root: Path) -> None:
    json_files = [f"annotations/instances_{split}2014.json" for split in _SPLITS]
    wanted = {"annotations_trainval2014.zip": json_files} | {
        f"{split}2014.zip": [f"{split}2014"] for split in _SPLITS
    }
    for name, members in wanted.items():
        found = unpack.unpack_zip(paths[name], root, members)
        unpack.require_members(paths[name], found, members)


def read_instances(path: Path, masks: Path, crowd: str = "class") -> tuple[list[_Job], Tags]:
    """Read one `instances_*.json`.

    Args:
        path: the file.
        masks: folder for the masks.
        crowd: "class" or "void".

    Returns:
        one job for `paint_file` per annotated photo, and tags by photo name.

    Raises:
        DataError: not such a file, other categories, or an annotation of no image or category.
    """
    try:
        stored = json.loads(path.read_text())
        categories = {c["id"]: c["name"] for c in stored["categories"]}
        images = {image["id"]: image for image in stored["images"]}
        annotations = stored["annotations"]
        by_image: dict[int, list[dict[str, Any]]] = defaultdict(list)
        for annotation in annotations:
            by_image[annotation["image_id"]].append(annotation)
        unknown = [i for i in by_image if i not in images]
        classes = {a["category_id"] for a in annotations}
        names = {number: _name(image) for number, image in images.items()}
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        what = f"is no COCO instances file ({type(error).__name__}: {shortened(str(error), 200)})"
        raise Problem(str(path), what, "Delete it and prepare again").error() from error
    if tuple(categories.items()) != tuple(zip(COCO_IDS, COCO_CLASSES, strict=True)):
        what = "does not list the 80 categories of COCO in the order of their ids"
        raise Problem(str(path), what, "Use the official file").error()
    if unknown or not classes <= set(COCO_IDS):
        what = f"annotates images {unknown[:3]} or categories {sorted(classes - set(COCO_IDS))[:3]}"
        raise Problem(str(path), f"{what} that it does not list", "Use the official file").error()
    jobs, tags = [], {}
    for number in sorted(by_image):
        image, objects = images[number], by_image[number]
        name = names[number]
        jobs.append(
            _Job(str(masks / f"{name}.png"), image["height"], image["width"], objects, crowd)
        )
        tags[name] = tuple(sorted({_CLASS[a["category_id"]] for a in objects}))
    return jobs, tags


def _name(image: Mapping[str, Any]) -> str:
    """Name of a photo, whose sides are checked, too."""
    if not isinstance(image["file_name"], str) or not Path(image["file_name"]).stem:
        raise ValueError(f"file_name: expected a text, got {shortened(image['file_name'])}")
    for side in ("height", "width"):
        if type(image[side]) is not int or not 1 <= image[side] <= 65_535:
            raise ValueError(f"{side}: expected 1..65535 px, got {shortened(image[side])}")
    return Path(image["file_name"]).stem


def _area(annotation: Mapping[str, Any]) -> float:
    area = annotation["area"]
    if type(area) not in (int, float) or not math.isfinite(area):
        raise ValueError(f"area: expected a finite number, got {shortened(area)}")
    return area


def paint(annotations: list[dict[str, Any]], height: int, width: int, crowd: str) -> np.ndarray:
    """Paint COCO annotations into one label map by the module's rules.

    Args:
        annotations: annotations of one photo; polygons, RLE lists or RLE strings.
        height: height of the photo, px.
        width: width of the photo, px.
        crowd: "class" or "void".

    Returns:
        uint8 (height, width), 0..80, or 255 for crowds that are void.
    """
    rle = common.need("pycocotools.mask")
    label = np.zeros((height, width), dtype=np.uint8)
    # sorted is stable: on a tie the earlier one comes first, so it is painted last
    for annotation in reversed(sorted(annotations, key=_area)):
        shape = checked_shape(annotation["segmentation"], height, width)
        if isinstance(shape, list):
            code = rle.merge(rle.frPyObjects(shape, height, width)) if shape else None
        elif isinstance(shape["counts"], list):
            code = rle.frPyObjects(shape, height, width)
        else:
            code = shape
        if code is not None:
            void = crowd == "void" and annotation.get("iscrowd", 0)
            value = IGNORE if void else _CLASS[annotation["category_id"]] + 1
            label[rle.decode([code])[:, :, 0] > 0] = value
    return label


def paint_file(job: _Job) -> bytes:
    """Paint and write one mask; return the SHA-256 of its pixels.

    Raises:
        DataError: an annotation cannot be painted.
    """
    try:
        label = paint(job.annotations, job.height, job.width, job.crowd)
    except (ValueError, LookupError, TypeError, OverflowError, MemoryError) as error:
        ids = [a.get("id") for a in job.annotations]
        what = f"one of the annotations {ids[:5]} cannot be painted ({shortened(str(error), 200)})"
        raise Problem(job.path, what, "Use the official annotation file").error() from error
    common.put_mask(job.path, label)
    return hashlib.sha256(label.tobytes()).digest()
