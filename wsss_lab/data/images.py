"""Photos on disk: any common format becomes uint8 RGB, and a broken file raises an error."""

from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps

from wsss_lab.data.errors import Problem

IMAGE_SUFFIXES = frozenset((".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"))
"""File name endings, lower case, that count as images in a folder."""


def read_image(path: str | Path, exif: bool = False) -> UInt8[np.ndarray, "h w 3"]:
    """Read a photo as RGB.

    Greyscale, palette, CMYK and YCbCr files are converted; an alpha channel is dropped. Files with
    more than 8 bits a channel are rejected, because conversion would clip them without warning.

    Args:
        path: image file.
        exif: turn the image upright by its EXIF orientation. The published data sets are read with
            False: their masks are drawn on the stored pixels. A user's own folder is read with
            True, because every viewer and labelling tool shows phone photos upright.

    Returns:
        uint8 array (h, w, 3), 0..255.

    Raises:
        DataError: missing, truncated, not an image, or more than 8 bits a channel.
    """
    path = Path(path)
    if not path.is_file():
        raise Problem(
            str(path), "this image is not there", "Put it there or drop it from the list", True
        ).error()
    try:
        with Image.open(path) as image:
            if image.mode.startswith(("I", "F")):
                raise Problem(
                    str(path),
                    f"has image mode {image.mode} (more than 8 bits a channel)",
                    "Convert it to 8 bits with a scaling of your choice",
                ).error()
            upright = ImageOps.exif_transpose(image) if exif else image
            return np.array(upright if upright.mode == "RGB" else upright.convert("RGB"))
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise Problem(
            str(path), f"cannot be read as an image ({error})", "Copy or download the file again"
        ).error() from error
