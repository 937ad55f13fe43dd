"""Data set as lists of paths, and the reader of one entry."""

from dataclasses import dataclass

import numpy as np

from wsss_lab.data.errors import Problem
from wsss_lab.data.images import read_image
from wsss_lab.data.masks import read_mask


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
    exif: bool = False
    check_palette: bool = False


def load_entry(index: Index, entry: Entry, masks: bool) -> tuple[np.ndarray, np.ndarray | None]:
    """Read the image and, on demand, the mask of one entry.

    Returns:
        uint8 image (h, w, 3), and uint8 mask (h, w) in mask values if `masks`, else None.

    Raises:
        DataError: a file is missing, broken, or image and mask differ in size.
    """
    image = read_image(entry.image, index.exif)
    if not masks:
        return image, None
    if entry.mask is None:
        what = "there is no mask for this image"
        raise Problem(entry.image, what, "Add NAME.png to the masks, or use masks=False").error()
    mask = read_mask(entry.mask, index.num_stored, index.check_palette)
    if mask.shape != image.shape[:2]:
        raise Problem(
            entry.mask,
            f"is {mask.shape[1]} x {mask.shape[0]} px, but its image is "
            f"{image.shape[1]} x {image.shape[0]}",
            "Resize the mask (nearest) or restore the image"
            + (", which is read upright by its EXIF orientation" if index.exif else ""),
        ).error()
    return image, mask if index.recode is None else index.recode[mask]
