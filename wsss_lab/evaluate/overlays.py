"""Pictures with their labels laid over them."""

from pathlib import Path

import numpy as np
from jaxtyping import Integer, UInt8
from PIL import Image

from wsss_lab.config import write_atomically
from wsss_lab.data.catalog import voc_palette


def overlay(
    pixels: UInt8[np.ndarray, "h w 3"], mask: Integer[np.ndarray, "h w"]
) -> UInt8[np.ndarray, "h w 3"]:
    """Blend an image half and half with the colours of its labels; background stays as it is."""
    blend = 0.5 * pixels + 0.5 * voc_palette()[mask]
    return np.where(mask[:, :, None] > 0, blend, pixels).astype(np.uint8)


def write_overlay(
    path: Path, pixels: UInt8[np.ndarray, "h w 3"], mask: Integer[np.ndarray, "h w"]
) -> None:
    """Write the overlay of an image and its labels as JPEG.

    Raises:
        OutputError: it cannot be written.
    """
    picture = Image.fromarray(overlay(pixels, mask))
    write_atomically(path, lambda file: picture.save(file, "JPEG", quality=92))
