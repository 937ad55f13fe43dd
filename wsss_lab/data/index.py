"""Data set as lists of paths, and the reader of one entry."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from wsss_lab import IGNORE
from wsss_lab.data.class_names import BACKGROUND
from wsss_lab.data.errors import OnProblem, Problem
from wsss_lab.data.files import Pictures, composed
from wsss_lab.data.images import TURN, read_image, read_orientation
from wsss_lab.data.masks import read_mask
from wsss_lab.data.tags import Tags, tags_from_mask


@dataclass(frozen=True)
class Entry:
    """Paths and tags of one image."""

    name: str
    image: str
    """Path."""
    mask: str | None
    """Path, or None where the data set has no mask for this image."""
    tags: tuple[int, ...]


@dataclass(frozen=True)
class Index:
    """Data set as lists of paths, with the settings for reading its files."""

    entries: list[Entry]
    classes: tuple[str, ...]
    num_stored: int
    """Number of legal class ids in the mask files, background included."""
    recode: np.ndarray | None = None
    """uint8 (256,): from stored id to mask value; None where they are the same."""
    check_palette: bool = False
    own: bool = False
    """Tags and masks are the user's: a tagged image whose mask holds 255 and no class is an error.
    In the published sets it is none: crowds of COCO, for example, are ignored."""
    drawn_on_view: bool = False
    """Masks may have been drawn on photos as viewers show them, turned by their EXIF entry."""

    @property
    def mask_classes(self) -> tuple[str, ...] | None:
        """Names of the values in the mask files, background first; None for official ids."""
        return (BACKGROUND, *self.classes) if self.recode is None else None


def load_entry(index: Index, entry: Entry, masks: bool) -> tuple[np.ndarray, np.ndarray | None]:
    """Read the image and, on demand, the mask of one entry.

    Returns:
        uint8 image (h, w, 3), and uint8 mask (h, w) in mask values if `masks`, else None.

    Raises:
        DataError: a file is missing, broken, or image and mask do not belong together.
    """
    image = read_image(entry.image)
    if not masks:
        return image, None
    mask = load_mask(index, entry)
    _require_fit(index, entry, image, mask)
    return image, mask if index.recode is None else index.recode[mask]


def load_mask(index: Index, entry: Entry) -> np.ndarray:
    """Read the mask of one entry as stored, uint8 (h, w).

    Raises:
        DataError: missing, broken, with values that are no classes, with names of other classes, or
            with 255 where its tags promise classes.
    """
    if entry.mask is None:
        what = "there is no mask for this image"
        remedy = f"Add {entry.name}.png to the masks, or take the image off this list"
        raise Problem(entry.image, what, remedy).error()
    mask = read_mask(entry.mask, index.num_stored, index.check_palette, index.mask_classes)
    if index.own and entry.tags and not tags_from_mask(mask) and (mask == IGNORE).any():
        raise Problem(
            entry.mask,
            f"holds no class, only 0 and {IGNORE} (ignored), but its image has the tags "
            f"{', '.join(index.classes[c] for c in entry.tags)}",
            f"Write the mask values of the classes, 1 to {len(index.classes)}, instead of {IGNORE}",
        ).error()
    return mask


def _require_fit(index: Index, entry: Entry, image: np.ndarray, mask: np.ndarray) -> None:
    """Refuse a mask of another size, or one that may be turned against its image."""
    height, width = image.shape[:2]
    turned = read_orientation(entry.image)
    if mask.shape != (height, width):
        remedy = "Resize the mask (nearest) or restore the image"
        if turned > 1:
            remedy = f"The photo has the EXIF orientation {turned}, which is not applied. {TURN}"
        raise Problem(
            str(entry.mask),
            f"is {mask.shape[1]} x {mask.shape[0]} px, but its image is {width} x {height}",
            remedy,
        ).error()
    if index.drawn_on_view and turned > 1 and (turned < 5 or height == width):
        raise Problem(
            entry.image,
            f"has the EXIF orientation {turned}, which is not applied, so it is unclear whether "
            "its mask was drawn on the pixels as stored or as viewers show them",
            TURN,
        ).error()


def probe_masks(index: Index, most: int = 100) -> None:
    """Read some masks, evenly spaced, so that a wrong convention shows before hours of training.

    Raises:
        DataError: the first problem; see `load_mask`.
    """
    step = max(1, -(-len(index.entries) // most))
    for entry in index.entries[::step]:
        load_mask(index, entry)


def join_entries(
    names: Sequence[str],
    images: Pictures,
    tags: Tags,
    masks: Sequence[Path],
    where: str,
    on_problem: OnProblem,
) -> list[Entry]:
    """Join names, image files, tags, and the mask from the first folder that has one.

    Args:
        names: images to take, in order.
        images: pictures of the data set.
        tags: by name.
        masks: folders of `NAME.png`.
        where: the list's file, for messages.
        on_problem: called for a name without image or tags.
    """
    have = [_label_files(folder) for folder in masks]
    unreadable = {composed(Path(file).stem): file for file in images.skipped}
    entries = []
    for name in names:
        if name not in images.files:
            what = f"lists {name!r}, but there is no such image"
            if name in unreadable:
                what += f" that can be opened here, only {unreadable[name]}"
            on_problem(Problem(where, what, "Copy the image or drop the name", missing=True))
        elif name not in tags:
            what = f"lists {name!r}, but the tags do not"
            on_problem(Problem(where, what, "Add its tags or drop the name"))
        else:
            mask = next((found[name] for found in have if name in found), None)
            entries.append(Entry(name, str(images.files[name]), mask, tags[name]))
    return entries


def _label_files(folder: Path) -> dict[str, str]:
    """Paths of a folder's PNG files by name without ending, which may be in capitals."""
    if not folder.is_dir():
        return {}
    named = [f for f in os.listdir(folder) if f.lower().endswith(".png") and not f.startswith(".")]
    named.sort(key=lambda file: file.endswith(".png"))  # of a.PNG and a.png the second counts
    return {composed(file[: -len(".png")]): str(folder / file) for file in named}
