"""Figures as SVG: sharp at every size, and readable on light and on dark pages.

The page that shows the file decides between light and dark (`color-scheme` reaches into an image),
so one stored figure serves both. Greys and pale tints change with the page; strong colours and
photographs stay.
"""

import base64
import colorsys
import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from PIL import Image

FONTS = "Inter, system-ui, -apple-system, 'Segoe UI', Roboto, Arial, 'DejaVu Sans', sans-serif"
"""Typefaces, the preferred one first."""
PIXELS_TO_SEE = 64
"""Images with fewer columns are examples whose pixels are to be seen; others are smoothed."""
PAPER, INK = (0x1D, 0x23, 0x2A), (0xE8, 0xEC, 0xF1)
"""Colours of white and of black on a dark page: its panels and its text (`wsss.css`)."""
GREYISH, PALE = 0.12, 0.86
"""Colours with less difference between channels, or of more lightness, change with the page."""

_COLOUR = re.compile(r"(fill|stroke): (#[0-9a-f]{6})")
_PICTURE = re.compile(r'data:image/png;base64,([^"]+)"')
_FONT = re.compile(r"(font-family: |font: [^;\"]*?px )[^;\"]*")


def dark_colour(colour: str) -> str | None:
    """Return the colour on a dark page for one on a light page, or None if it stays.

    Args:
        colour: `#rrggbb`.
    """
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    hue, lightness, saturation = colorsys.rgb_to_hls(*channels)
    if max(channels) - min(channels) > GREYISH and lightness < PALE:
        return None
    if lightness >= PALE and max(channels) - min(channels) > 0.03:  # a pale tint stays a tint
        tint = colorsys.hls_to_rgb(hue, 0.23, min(saturation, 0.35))
        return "#" + "".join(f"{round(255 * channel):02x}" for channel in tint)
    mixed = (ink + (paper - ink) * lightness for paper, ink in zip(PAPER, INK, strict=True))
    return "#" + "".join(f"{round(channel):02x}" for channel in mixed)


def dark_rules(drawing: str) -> str:
    """Write style rules for dark pages for the colours that occur in an SVG.

    White lines and white text lie on photographs and on strong colours, so they stay.
    """
    rules = [f"text{{fill:{dark_colour('#000000')}}}"]
    for what, colour in sorted(set(_COLOUR.findall(drawing))):
        darker = dark_colour(colour)
        if darker is None or (what == "stroke" and colour == "#ffffff"):
            continue
        which = ":not(text)" if colour == "#ffffff" else ""
        rules.append(f'{which}[style*="{what}: {colour}"]{{{what}:{darker}!important}}')
    return "@media (prefers-color-scheme:dark){" + "".join(rules) + "}"


def smaller_picture(data: str, quality: int) -> str:
    """Return a data URI of a PNG (base64), as JPEG where that is smaller."""
    picture: Image.Image = Image.open(io.BytesIO(base64.b64decode(data)))
    if picture.mode == "RGBA" and np.asarray(picture)[..., 3].min() < 255:
        return f"data:image/png;base64,{data}"
    picture = picture.convert("RGB")
    buffers = []
    for kind, options in (("png", {}), ("jpeg", {"quality": quality, "subsampling": 0})):
        buffers.append((kind, io.BytesIO()))
        picture.save(buffers[-1][1], format=kind, optimize=True, **options)
    if picture.width < PIXELS_TO_SEE:
        buffers = buffers[:1]
    kind, best = min(buffers, key=lambda pair: pair[1].getbuffer().nbytes)
    return f"data:image/{kind};base64,{base64.b64encode(best.getvalue()).decode()}"


@contextmanager
def _images_as_they_are(figure: Figure) -> Iterator[None]:
    """Keep matplotlib from resampling images to the figure's resolution."""
    images = [found for found in figure.findobj(AxesImage) if isinstance(found, AxesImage)]
    before = [image.get_interpolation() for image in images]
    for image in images:
        image.set_interpolation("none")
    try:
        yield
    finally:
        for image, interpolation in zip(images, before, strict=True):
            image.set_interpolation(interpolation)


def _smooth(match: re.Match[str]) -> str:
    """Take the pixelated look from an image element with many columns."""
    element = match[0]
    data = re.search(r"data:image/\w+;base64,([^\"]+)", element)
    assert data is not None
    if Image.open(io.BytesIO(base64.b64decode(data[1]))).width < PIXELS_TO_SEE:
        return element
    return re.sub(r"image-rendering:[a-z-]+;?", "", element)


def svg_uri(figure: Figure) -> str:
    """Draw a figure as a data URI, for an `img` element on a page that is light or dark."""
    drawing = page_svg(figure).encode()
    return f"data:image/svg+xml;base64,{base64.b64encode(drawing).decode()}"


def page_svg(figure: Figure, quality: int = 90) -> str:
    """Draw a figure as SVG without background, the same text for the same figure.

    Args:
        figure: with whatever size and style.
        quality: of its photographs, 1..100, where they are stored as JPEG.
    """
    settings: Any = {
        "svg.fonttype": "none",
        "svg.hashsalt": "wsss-lab",
        "image.composite_image": False,
    }
    buffer = io.StringIO()
    with mpl.rc_context(settings), _images_as_they_are(figure):
        none = {"Date": None, "Creator": None, "Format": None, "Type": None}
        figure.savefig(buffer, format="svg", bbox_inches="tight", facecolor="none", metadata=none)
    drawing = buffer.getvalue()
    drawing = drawing[drawing.index("<svg") :]
    drawing = _FONT.sub(lambda m: f"{m[1]}{FONTS}", drawing)
    drawing = re.sub(r"<image\b[^>]*>", _smooth, drawing)
    drawing = _PICTURE.sub(lambda m: f'{smaller_picture(m[1], quality)}"', drawing)
    style = f"<style>text{{fill:#000000}}{dark_rules(drawing)}</style>"
    start = drawing.index(">") + 1
    return f"{drawing[:start]}\n {style}{drawing[start:]}"
