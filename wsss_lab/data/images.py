"""Photos on disk: any common format becomes uint8 RGB, and a broken file raises an error.

The one rule for orientation: pixels are taken as they are stored, by every command and in every
layout. The EXIF entry by which viewers turn phone photos is not applied, because the masks of the
published data sets are drawn on the stored pixels, and because a mask has no such entry.
"""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
from jaxtyping import UInt8
from PIL import Image, UnidentifiedImageError

from wsss_lab.data.errors import DataError, Problem
from wsss_lab.data.files import readable_suffixes

# what is wrong with a file becomes an error that names it; Pillow's warnings do not
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")

T = TypeVar("T")

_ORIENTATION = 0x0112
_BITS_PER_SAMPLE = 258
TURN = "Turn its pixels once, so that all programs agree: mogrify -auto-orient FILE"
"""Remedy for a photo that viewers show turned."""


def read_image(path: str | Path) -> UInt8[np.ndarray, "h w 3"]:
    """Read a photo as RGB, in the orientation in which its pixels are stored.

    Greyscale, palette, CMYK and YCbCr files are converted; an alpha channel is dropped. Files with
    more than 8 bits a channel are rejected, because conversion would clip them, or cut their low
    bits off, without warning. Of a file with several pictures the first is read.

    Args:
        path: image file.

    Returns:
        uint8 array (h, w, 3), 0..255.

    Raises:
        DataError: missing, truncated, not an image, or more than 8 bits a channel.
    """
    return read_file(Path(path), _rgb, "image", "Put it there or drop it from the list")


def _rgb(image: Image.Image, path: Path) -> np.ndarray:
    bits = bits_per_channel(image, path)
    if bits > 8:
        raise Problem(
            str(path),
            f"has {bits} bits a channel (image mode {image.mode}), more than 8 bits a channel "
            "cannot be read faithfully",
            "Convert it to 8 bits with a scaling of your choice",
        ).error()
    return np.array(image if image.mode == "RGB" else image.convert("RGB"))


def read_file(path: Path, take: Callable[[Image.Image, Path], T], kind: str, if_missing: str) -> T:
    """Open an image file; whatever is wrong with it becomes one `DataError`.

    Args:
        path: the file.
        take: (opened image, path) -> result; decodes the pixels.
        kind: what the file should be, "image" or "mask".
        if_missing: remedy where there is no such file.

    Raises:
        DataError: missing, empty, or anything that Pillow raises.
    """
    if not path.is_file():
        raise Problem(str(path), f"this {kind} is not there", if_missing, True).error()
    readable_suffixes()  # knows all formats from here on
    try:
        if not path.stat().st_size:
            raise Problem(str(path), "is empty (0 bytes)", "Copy the file again").error()
        with Image.open(path) as image:
            return take(image, path)
    except DataError:
        raise
    except Exception as error:  # a damaged file makes Pillow raise nearly anything
        raise Problem(
            str(path),
            f"cannot be read as an image ({_reason(error)})",
            "Copy or download the file again, or leave it out",
        ).error() from error


def _reason(error: Exception) -> str:
    """One short line; Pillow's own may repeat the path or have several lines."""
    if isinstance(error, UnidentifiedImageError):
        return "its content is of no known image format"
    return " ".join(str(error).split())[:200] or type(error).__name__


def bits_per_channel(image: Image.Image, path: Path) -> int:
    """Return the bits of a channel as stored, which Pillow hides for some formats."""
    if image.format == "PNG":
        return png_depth(path)
    if image.format == "TIFF":
        found = getattr(image, "tag_v2", {}).get(_BITS_PER_SAMPLE, 1)
        return max(found) if isinstance(found, tuple) else int(found)
    if image.mode.startswith("I;16"):
        return 16
    return 32 if image.mode.startswith(("I", "F")) else 8


def png_depth(path: Path) -> int:
    """Return the bits per sample in the header of a PNG (byte 24)."""
    with path.open("rb") as file:
        return file.read(25)[24]


def read_orientation(path: str | Path) -> int:
    """Return the EXIF orientation of a photo, 1..8; 1, upright, where there is none.

    Raises:
        DataError: the file cannot be opened.
    """
    return read_file(Path(path), _orientation, "image", "Put it there")


def _orientation(image: Image.Image, path: Path) -> int:
    try:
        found = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # the pixels are sound, and an EXIF block that nobody can read turns nothing
        return 1
    return found if isinstance(found, int) and 1 <= found <= 8 else 1
