"""Photos in memory and random crops of them, without tags."""

import json
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

HELD_OUT_PARTS = 8


def is_held_out(name: str) -> bool:
    """Whether a photo is kept from training: one in eight, chosen by a checksum of its name."""
    return zlib.crc32(name.encode()) % HELD_OUT_PARTS == 0


def list_names(root: Path, subset: str) -> list[str]:
    """Names of the photos in a list of a folder in VOC layout."""
    return (root / "ImageSets" / "Segmentation" / f"{subset}.txt").read_text("utf-8").split()


def read_photos(root: Path, names: Iterable[str]) -> list[Image.Image]:
    """Decode photos of a folder in VOC layout to RGB, into memory."""
    return [Image.open(root / "JPEGImages" / f"{name}.jpg").convert("RGB") for name in names]


def read_tags(root: Path, names: Sequence[str], classes: int = 20) -> Float[Tensor, "n k"]:
    """Read tags of photos from `image_tags.json`, 0 or 1; for scores only."""
    table = json.loads((root / "image_tags.json").read_text("utf-8"))
    tags = torch.zeros(len(names), classes)
    for row, name in zip(tags, names, strict=True):
        row[table[name]] = 1
    return tags


def to_tensor(images: Sequence[Image.Image]) -> Float[Tensor, "b 3 h w"]:
    """RGB images of one size to floats in [0, 1]."""
    stacked = np.stack([np.asarray(image) for image in images])
    return torch.from_numpy(stacked).permute(0, 3, 1, 2).float() / 255


def random_crop(image: Image.Image, side: int, rng: np.random.Generator) -> Image.Image:
    """Cut 25 to 100 % of a photo's area at an aspect of 3/4 to 4/3; resize it; flip every second.

    Args:
        image: photo.
        side: height and width of the result, px.
        rng: source of randomness.

    Returns:
        (side, side).
    """
    w, h = image.size
    area = w * h * rng.uniform(0.25, 1.0)
    aspect = np.exp(rng.uniform(np.log(3 / 4), np.log(4 / 3)))
    cw, ch = min(w, np.sqrt(area * aspect)), min(h, np.sqrt(area / aspect))
    x, y = rng.uniform(0, w - cw), rng.uniform(0, h - ch)
    cut = image.resize(
        (side, side), Image.Resampling.BILINEAR, box=(x, y, x + cw, y + ch), reducing_gap=2.0
    )
    return cut.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if rng.random() < 0.5 else cut


def centre_crop(image: Image.Image, side: int) -> Image.Image:
    """Cut the middle square of a photo and resize it to (side, side)."""
    w, h = image.size
    s = min(w, h)
    box = ((w - s) / 2, (h - s) / 2, (w + s) / 2, (h + s) / 2)
    return image.resize((side, side), Image.Resampling.BICUBIC, box=box)


def change_colours(
    images: Float[Tensor, "b 3 h w"], rng: np.random.Generator
) -> Float[Tensor, "b 3 h w"]:
    """Scale brightness, contrast and saturation of each image by 0.7 to 1.3, clipped to [0, 1]."""
    factors = torch.from_numpy(rng.uniform(0.7, 1.3, (3, len(images), 1, 1, 1))).to(images)
    images = images * factors[0]
    mean = images.mean(dim=(1, 2, 3), keepdim=True)
    images = mean + (images - mean) * factors[1]
    grey = images.mean(dim=1, keepdim=True)
    return (grey + (images - grey) * factors[2]).clamp(0, 1)


def training_batch(
    photos: Sequence[Image.Image], side: int, rng: np.random.Generator
) -> Float[Tensor, "b 3 h w"]:
    """Crop a batch of photos and change their colours; RGB in [0, 1]."""
    crops = to_tensor([random_crop(photo, side, rng) for photo in photos])
    return change_colours(crops, rng)
