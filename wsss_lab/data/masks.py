"""Label maps on disk: one PNG per image, pixel value = class id, 255 = ignored."""

import json
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Integer, UInt8
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from wsss_lab import IGNORE
from wsss_lab.config import output_error
from wsss_lab.data.catalog import voc_palette
from wsss_lab.data.class_names import require_same_classes
from wsss_lab.data.errors import Problem
from wsss_lab.data.images import png_depth, read_file

CLASSES_KEY = "wsss_lab classes"
"""Text entry of a PNG: its class names as JSON, background first."""
_LOSSLESS = {"PNG", "BMP", "TIFF", "GIF"}


def read_mask(
    path: str | Path,
    num_classes: int,
    check_palette: bool = False,
    classes: Sequence[str] | None = None,
) -> UInt8[np.ndarray, "h w"]:
    """Read a label map, and reject any file that is not one.

    Args:
        path: palette ("P") or greyscale ("L") image without lossy compression.
        num_classes: legal class ids are 0..num_classes-1 (background counts: 21 for VOC) and 255.
        check_palette: also reject a palette that gives class ids other colours than VOC does: a
            sign that an image editor has renumbered the indices. Greyscale ramps pass.
        classes: names of the class ids, background first; a file that carries the names of other
            classes (see `write_mask`) is rejected. None compares nothing.

    Returns:
        uint8 array (h, w).

    Raises:
        DataError: missing, broken, RGB, 16-bit, JPEG, or with an id that no class has.
    """
    path = Path(path)
    label, palette, names = read_file(path, _ids, "mask", "Put it there or leave masks out")
    if classes is not None and names is not None:
        remedy = "Bring both into one order, or make the masks again"
        require_same_classes(classes, names, "the classes expected", str(path), remedy)
    used = np.flatnonzero(np.bincount(label.ravel(), minlength=256))
    wrong = [int(value) for value in used if num_classes <= value != IGNORE]
    if wrong:
        raise Problem(
            str(path),
            f"holds the class ids {wrong[:8]}, expected 0..{num_classes - 1} or {IGNORE}",
            "Map its ids to the data set's classes, or correct the list of classes",
        ).error()
    if check_palette and palette is not None:
        _require_voc_colours(path, np.array(palette, dtype=np.uint8).reshape(-1, 3), used)
    return label


def _ids(
    image: Image.Image, path: Path
) -> tuple[np.ndarray, list[int] | None, tuple[str, ...] | None]:
    """Class ids, palette and, if the file carries them, class names."""
    _require_ids(path, image)
    names = _carried_names(image)
    palette = image.getpalette("RGB") if image.mode == "P" else None
    return np.array(image, dtype=np.uint8), palette, names


def _carried_names(image: Image.Image) -> tuple[str, ...] | None:
    try:
        found = json.loads(image.info.get(CLASSES_KEY, ""))
    except (ValueError, TypeError, RecursionError):
        return None
    sound = isinstance(found, list) and all(isinstance(name, str) for name in found)
    return tuple(found) if sound else None


def mask_classes(path: str | Path) -> tuple[str, ...] | None:
    """Return the class names that a label map carries, background first; None without any.

    Raises:
        DataError: missing, or no image.
    """
    return read_file(Path(path), lambda image, _: _carried_names(image), "mask", "Put it there")


def _require_ids(path: Path, image: Image.Image) -> None:
    """Reject images whose pixels are not class ids."""
    remedy = "Save class ids as a palette PNG, for example with wsss_lab.data.masks.write_mask"
    if image.mode not in ("P", "L"):
        raise Problem(
            str(path),
            f"has image mode {image.mode}, expected P or L (one class id a pixel)",
            remedy,
        ).error()
    if image.mode == "L" and image.format == "PNG" and png_depth(path) < 8:
        # Pillow stretches 4-bit grey to 0..255: class 1 would be read as class 17
        raise Problem(str(path), "is a grey PNG with less than 8 bits a pixel", remedy).error()
    if image.format not in _LOSSLESS:
        raise Problem(
            str(path), f"is a {image.format} file, and lossy compression changes class ids", remedy
        ).error()


def _require_voc_colours(path: Path, palette: np.ndarray, used: np.ndarray) -> None:
    """Reject a palette in which the ids in use have neither VOC's colours nor their own grey."""
    if used[-1] < len(palette):
        colours = palette[used]
        if (colours == voc_palette()[used]).all() or (colours == used[:, None]).all():
            return
    raise Problem(
        str(path),
        "its palette is not VOC's, so its class ids may have been renumbered by an image editor",
        "Restore the original file, or write the ids again with wsss_lab.data.masks.write_mask",
    ).error()


def write_mask(
    path: str | Path,
    label: Integer[np.ndarray, "h w"],
    classes: Sequence[str] | None = None,
) -> None:
    """Write a label map as a palette PNG in VOC's colours, atomically.

    Args:
        path: target; folders above it are made.
        label: integer array (h, w), class ids 0..255.
        classes: names of the class ids, background first, stored in the file; readers compare them.

    Raises:
        ValueError: not two-dimensional, not integer, or outside 0..255.
    """
    label = np.asarray(label)
    if label.ndim != 2 or label.dtype.kind not in "iu" or not label.size:
        raise ValueError(
            f"label must be a non-empty integer array (h, w), got {label.dtype} {label.shape}; "
            "take the argmax first"
        )
    if label.min() < 0 or label.max() > 255:
        raise ValueError(
            f"label must be within 0..255, got {label.min()}..{label.max()}; "
            "pixels without opinion are 255, not -1"
        )
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(label.astype(np.uint8))
    image.putpalette(voc_palette().tobytes())
    facts = PngInfo()
    if classes is not None:
        facts.add_itxt(CLASSES_KEY, json.dumps(list(classes), ensure_ascii=False), zip=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        image.save(part, format="PNG", pnginfo=facts)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)  # left only if the disk is full or the program was stopped


def save_label(
    path: Path, label: Integer[np.ndarray, "h w"], classes: Sequence[str] | None = None
) -> None:
    """`write_mask`, which leaves nothing behind where the disk is full.

    Raises:
        OutputError: it cannot be written.
    """
    try:
        write_mask(path, label, classes)
    except OSError as error:
        for leftover in path.parent.glob(f".{path.name}.*.tmp") if path.parent.is_dir() else ():
            leftover.unlink(missing_ok=True)
        raise output_error(path, error) from error
