"""Photos that come with the package, with their authors and licences.

A few openly licensed photos of VOC classes in VOC layout, some with masks, for tests, chapters and
figures. Whoever shows one shows its `OpenPhoto.credit`, too.
"""

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from PIL import Image
from torch import Tensor

from wsss_lab.data.catalog import VOC_CLASSES
from wsss_lab.data.tags import read_tags

FOLDER = Path(__file__).parent / "open_photos"
"""Folder in VOC layout: lists ``all`` and ``masked``; `ImageTagDataset.voc` reads it."""


@dataclass(frozen=True)
class OpenPhoto:
    """One photo and where it comes from.

    Attributes:
        name: file name without ending.
        tags: classes in it, 0-based in VOC's order.
        subject: what is to be seen.
        author: name, or the Flickr photo number where COCO is the source.
        licence: short name of the licence.
        licence_url: text of the licence; empty for public domain.
        source: page of the original.
        changes: what was done to the original.
    """

    name: str
    tags: tuple[int, ...]
    subject: str
    author: str
    licence: str
    licence_url: str
    source: str
    changes: str

    @property
    def path(self) -> Path:
        """JPEG file."""
        return FOLDER / "JPEGImages" / f"{self.name}.jpg"

    @property
    def mask_path(self) -> Path | None:
        """PNG file of class numbers, if there is one."""
        path = FOLDER / "SegmentationClass" / f"{self.name}.png"
        return path if path.is_file() else None

    @property
    def credit(self) -> str:
        """Credit line for captions."""
        return f"{self.author}, {self.licence}, {self.source}; {self.changes}"

    def image(self) -> Float[Tensor, "3 h w"]:
        """RGB in [0, 1]."""
        pixels = np.array(Image.open(self.path).convert("RGB"))
        return torch.from_numpy(pixels).permute(2, 0, 1).float() / 255

    def mask(self) -> Int[Tensor, "h w"]:
        """Class numbers: 0 background, 1..20 VOC classes, 255 void.

        Raises:
            FileNotFoundError: this photo has no mask.
        """
        if self.mask_path is None:
            raise FileNotFoundError(
                f"{self.name} has no mask: take one of open_photos(masked_only=True)"
            )
        return torch.from_numpy(np.array(Image.open(self.mask_path)).astype(np.int64))


def open_photos(masked_only: bool = False) -> list[OpenPhoto]:
    """List the photos that come with the package, by name.

    Args:
        masked_only: leave out those without a mask.
    """
    _, tags = read_tags(FOLDER / "tags.csv", VOC_CLASSES)
    with (FOLDER / "ATTRIBUTION.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    kept = ("subject", "author", "licence", "licence_url", "source", "changes")
    names = [row["file"].removesuffix(".jpg") for row in rows]
    photos = [
        OpenPhoto(name, tuple(tags[name]), **{key: row[key] for key in kept})
        for name, row in zip(names, rows, strict=True)
    ]
    return [photo for photo in photos if photo.mask_path or not masked_only]


def open_photo(name: str) -> OpenPhoto:
    """Find one photo by its name.

    Raises:
        ValueError: there is no such photo.
    """
    found = {photo.name: photo for photo in open_photos()}
    if name not in found:
        raise ValueError(f"name must be one of {', '.join(found)}; got {name!r}")
    return found[name]
