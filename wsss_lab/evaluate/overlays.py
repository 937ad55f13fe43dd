"""Pictures with their labels laid over them, and a legend of colours and class names below."""

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from jaxtyping import Integer, UInt8
from PIL import Image, ImageDraw, ImageFont

from wsss_lab import IGNORE
from wsss_lab.config import write_atomically
from wsss_lab.data.catalog import voc_palette
from wsss_lab.printable import one_line

UNLABELLED = "no label"
"""Name of pixels of 255 in a legend."""
BAND = 1 << 20
"""Pixels that are blended together, in 64 bits a channel."""
PAPER, INK = (255, 255, 255), (17, 17, 17)


def overlay(
    pixels: UInt8[np.ndarray, "h w 3"], mask: Integer[np.ndarray, "h w"]
) -> UInt8[np.ndarray, "h w 3"]:
    """Blend an image half and half with the colours of its labels; background stays as it is."""
    made, palette = np.empty_like(pixels), voc_palette()
    step = max(1, BAND // max(1, mask.shape[1]))
    for top in range(0, len(mask), step):
        part, label = pixels[top : top + step], mask[top : top + step]
        blend = 0.5 * part + 0.5 * palette[label]
        made[top : top + step] = np.where(label[:, :, None] > 0, blend, part)
    return made


def legend_entries(
    mask: Integer[np.ndarray, "h w"], classes: Sequence[str] | None = None
) -> list[tuple[int, str]]:
    """List values and names of a label image, without background.

    Args:
        mask: values 0..k and 255.
        classes: names, background first; None, or a value beyond them, gives "class 7".
    """
    found = [int(value) for value in np.unique(mask) if value]
    names = list(classes or ())
    return [(value, UNLABELLED if value == IGNORE else _name(value, names)) for value in found]


def _name(value: int, names: Sequence[str]) -> str:
    return one_line(names[value]) if value < len(names) else f"class {value}"


def with_legend(
    picture: UInt8[np.ndarray, "h w 3"], entries: Sequence[tuple[int, str]]
) -> UInt8[np.ndarray, "h2 w2 3"]:
    """Put a legend below a picture: one square of colour and one name per entry.

    Args:
        picture: stays as it is, at the top left.
        entries: value and name, see `legend_entries`.

    Returns:
        The picture with the legend; wider than before only where a name does not fit.
    """
    if not entries:
        return picture
    height, width = picture.shape[:2]
    size = min(40, max(11, round(min(height, width) / 26)))
    font, gap = _font(size), size // 2
    measured = [size + 3 * gap + round(font.getlength(name)) for _, name in entries]
    width = max(width, *measured)
    places, x, row = [], 0, 0
    for wide in measured:
        if x and x + wide > width:
            x, row = 0, row + 1
        places.append((x, row))
        x += wide
    line = round(1.5 * size)
    sheet = Image.new("RGB", (width, height + (row + 1) * line + gap), PAPER)
    sheet.paste(Image.fromarray(picture), (0, 0))
    draw, palette = ImageDraw.Draw(sheet), voc_palette()
    for (value, name), (x, row) in zip(entries, places, strict=True):
        left, top = x + gap, height + gap + row * line
        colour = tuple(int(c) for c in palette[value])
        draw.rectangle((left, top, left + size, top + size), fill=colour, outline=INK)
        draw.text((left + size + gap, top + size // 2), name, INK, font, anchor="lm")
    return np.asarray(sheet)


def _font(size: int) -> ImageFont.FreeTypeFont:
    """Return the font of matplotlib, which has accents, Greek and Cyrillic letters."""
    package = find_spec("matplotlib")  # found, not imported: that takes longer than the overlay
    if package is None or package.origin is None:
        raise ModuleNotFoundError("legends need a font of matplotlib: pip install matplotlib")
    font = Path(package.origin).parent / "mpl-data" / "fonts" / "ttf" / "DejaVuSans.ttf"
    return ImageFont.truetype(str(font), size)


def write_overlay(
    path: Path,
    pixels: UInt8[np.ndarray, "h w 3"],
    mask: Integer[np.ndarray, "h w"],
    classes: Sequence[str] | None = None,
) -> None:
    """Write the overlay of an image and its labels as JPEG, with a legend below it.

    Args:
        path: target.
        pixels: RGB.
        mask: values 0..k and 255.
        classes: names, background first.

    Raises:
        OutputError: it cannot be written.
    """
    sheet = with_legend(overlay(pixels, mask), legend_entries(mask, classes))
    picture = Image.fromarray(sheet)
    write_atomically(path, lambda file: picture.save(file, "JPEG", quality=92))
