"""Figures of the book, in one style, without global state, reproducible byte for byte."""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.patches import Patch
from numpy.typing import ArrayLike

from wsss_lab.data.catalog import voc_palette
from wsss_lab.viz.arrays import HEAT, array_of, overlay, rgb
from wsss_lab.viz.svg import page_svg

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Line colours that colour-blind readers can distinguish (Okabe and Ito), strongest first."""

MAX_WIDTH = 7.0  # inches, the width of the text column


class Sheet(Figure):
    """Figure displayed once in a notebook, as SVG, without pyplot's global list of figures."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        FigureCanvasAgg(self)

    def _repr_svg_(self) -> str:
        return page_svg(self)


def png_bytes(figure: Figure) -> bytes:
    """Encode a figure as PNG, at its own resolution (default 100 dpi), without a software stamp."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", bbox_inches="tight", metadata={"Software": None})
    return buffer.getvalue()


def plot_style() -> None:
    """Set the style of every matplotlib figure in the book.

    At most 7 inches wide, colour-blind-safe lines, nearest-pixel images, no top and right frame.
    Notebooks display a `Sheet` as SVG without background, whose greys follow a dark page.
    """
    mpl.rcParams.update(
        {
            "figure.dpi": 100,
            "savefig.dpi": 100,
            "figure.figsize": (6.4, 3.6),
            "figure.constrained_layout.use": True,
            "figure.facecolor": "white",
            "axes.facecolor": "none",
            "savefig.facecolor": "white",
            "font.family": "DejaVu Sans",
            "font.size": 10,
            "axes.titlesize": 10,
            "axes.titleweight": "bold",
            "axes.titlelocation": "left",
            "axes.prop_cycle": cycler(color=COLOURS),
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": True,
            "axes.axisbelow": True,
            "grid.color": "#DDDDDD",
            "grid.linewidth": 0.6,
            "lines.linewidth": 2.0,
            "legend.frameon": False,
            "image.interpolation": "nearest",
            "image.cmap": HEAT,
            "svg.hashsalt": "wsss-lab",
        }
    )


def _axes(
    figure: Figure, rows: int, columns: int, heights: Sequence[float] | None = None
) -> list[Axes]:
    axes = list(figure.subplots(rows, columns, squeeze=False, height_ratios=heights).flat)
    for ax in axes:
        ax.set_axis_off()
    return axes


def image_grid(
    images: Sequence[ArrayLike], titles: Sequence[str] | None = None, *, columns: int = 4
) -> Sheet:
    """Arrange images side by side, row by row.

    Args:
        images: each as in `rgb`; sizes may differ.
        titles: one line above each image.
        columns: images per row.

    Returns:
        A figure at most 7 inches wide, one axes per image.

    Raises:
        ValueError: no image, no column, or another number of titles than of images.
    """
    if not images or columns < 1:
        raise ValueError(
            f"images: expected at least one image and column, got {len(images)} and {columns}"
        )
    if titles is not None and len(titles) != len(images):
        raise ValueError(f"titles: expected {len(images)}, one for each image, got {len(titles)}")
    columns = min(columns, len(images))
    rows = -(-len(images) // columns)
    arrays = [rgb(image) for image in images]
    cell = min(MAX_WIDTH / columns, 2.6)
    heights = []
    for first in range(0, len(arrays), columns):  # a row is as tall as its tallest image
        here = slice(first, first + columns)
        tall = max(a.shape[0] / a.shape[1] for a in arrays[here])
        heights.append(cell * tall + (0.28 if titles and any(titles[here]) else 0.06))
    sheet = Sheet(figsize=(cell * columns, sum(heights)), layout="constrained", facecolor="white")
    axes = _axes(sheet, rows, columns, heights)
    for i, (ax, array) in enumerate(zip(axes, arrays, strict=False)):
        ax.imshow(array, interpolation="nearest")
        if titles is not None:
            ax.set_title(titles[i], fontsize=9, loc="center", parse_math=False)
    return sheet


def cam_grid(
    image: ArrayLike,
    cams: ArrayLike,
    names: Sequence[str],
    *,
    columns: int = 4,
    alpha: float = 0.65,
    legend: str = "activation",
) -> Sheet:
    """Show an image and the activation maps of its classes, with one scale for all of them.

    Args:
        image: see `rgb`.
        cams: float (k, h, w) in [0, 1]; a coarser grid than the image is fine.
        names: k titles.
        columns: pictures per row, the photo included.
        alpha: see `overlay`.
        legend: label of the colour scale.

    Raises:
        ValueError: `cams` is not (k, h, w), or another number of names.
    """
    array = array_of(cams)
    if array.ndim != 3 or len(array) != len(names):
        raise ValueError(
            f"cams: expected (k, h, w) with k = {len(names)} names, got shape {array.shape}"
        )
    pictures = [rgb(image), *(overlay(image, cam, alpha=alpha) for cam in array)]
    sheet = image_grid(pictures, ["image", *names], columns=columns)
    heat_legend(sheet, legend)
    return sheet


def heat_legend(figure: Figure, text: str = "activation", cmap: str = HEAT) -> None:
    """Put the scale 0..1 of activation maps at the right of a figure."""
    scale = ScalarMappable(Normalize(0, 1), cmap)
    bar = figure.colorbar(scale, ax=figure.axes, shrink=0.8, pad=0.015, ticks=[0, 0.5, 1])
    bar.set_label(text, fontsize=9)
    bar.outline.set_visible(False)


def label_legend(figure: Figure, classes: Mapping[int, str]) -> None:
    """Name the colours of label values below a figure.

    Args:
        figure: a figure made with a constrained layout, as all figures here are.
        classes: label value -> name, e.g. `{0: "background", 3: "horse", 255: "ignored"}`.
    """
    colours = voc_palette() / 255.0
    patches = [
        Patch(facecolor=colours[value], edgecolor="#888888", linewidth=0.5, label=name)
        for value, name in classes.items()
    ]
    legend = figure.legend(
        handles=patches,
        loc="outside lower center",
        ncols=min(len(patches), 6),
        fontsize=9,
        frameon=False,
    )
    without_markup(legend)


def without_markup(legend: Legend) -> None:
    """Show the names in a legend as they are: `$` in them begins no formula."""
    for text in legend.get_texts():
        text.set_parse_math(False)
