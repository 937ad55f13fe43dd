"""Method maps: the data flow of a method as boxes and arrows, for light and dark pages.

A map is a description (`Box`, `Arrow`) and a pure function from it to an SVG picture. Colours are
names; the page decides what they look like in the light and in the dark, and its font is used.
"""

import html
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.patches import FancyBboxPatch, Polygon

from wsss_lab.viz.figures import Sheet

Colour = Literal["grey", "blue", "orange", "green", "pink"]
Side = Literal["left", "right", "top", "bottom"]
Point = tuple[float, float]

# matplotlib draws with the light colours, which are then replaced by variables of the page
_LIGHT = {
    "grey": "#55606e",
    "blue": "#0072b2",
    "orange": "#c65300",
    "green": "#008a64",
    "pink": "#a8447c",
    "ink": "#222832",
    "paper": "#fefefe",
}
_DARK = {
    "grey": "#a6b0bd",
    "blue": "#56b4e9",
    "orange": "#ff9a4d",
    "green": "#45cfa0",
    "pink": "#e79cc6",
    "ink": "#e6eaf0",
    "paper": "#14181d",
}


def _variables(colours: dict[str, str]) -> str:
    return ";".join(f"--map-{name}:{colour}" for name, colour in colours.items())


_STYLE = (
    f"<style>.method-map{{{_variables(_LIGHT)}}}"
    f"html[data-theme=dark] .method-map{{{_variables(_DARK)}}}"
    "html[data-theme=dark] .bd-content div.cell_output .output.text_html:has(.method-map)"
    "{padding:0;background:none;color:inherit}"
    ".method-map{overflow-x:auto;margin:1rem 0}"
    ".method-map svg{display:block;width:100%;min-width:36rem;height:auto;font-family:inherit;"
    "stroke-linejoin:round}</style>"
)
_HEAD = 0.075  # length of an arrow's head, inches
_TEXT = 8.6  # points
_LINE = 0.15  # from line to line, inches


@dataclass(frozen=True)
class Box:
    """One box of a map; places in inches from the upper left corner."""

    name: str
    """For arrows, and for lighting the box up."""
    text: str
    """Lines to print; the first is bold."""
    at: Point
    """Centre (x, y)."""
    size: Point = (1.1, 0.56)
    """Width and height."""
    colour: Colour = "grey"
    """Role of the box; boxes of one role have one colour."""


@dataclass(frozen=True)
class Arrow:
    """An arrow from one box to another, in right angles."""

    start: str
    """Name of a box."""
    end: str
    """Name of a box."""
    text: str = ""
    """Label, e.g. a loss; beside the middle of the longest part."""
    sides: tuple[Side, Side] = ("right", "left")
    """Sides of both boxes at which it leaves and arrives."""
    colour: Colour = "grey"
    """Role of the arrow."""
    dashed: bool = False
    """Whether the line is dashed, e.g. where no gradient flows back."""
    shift: Point = (0.0, 0.0)
    """How far along the sides it leaves and arrives from their middles, inches."""
    lift: float = 0.11
    """Distance of the label from the line, inches; below 0 for the other side."""


@dataclass(frozen=True)
class MethodMap:
    """Picture of a map as SVG, which notebooks display."""

    svg: str
    alt: str

    def _repr_html_(self) -> str:
        return (
            f'{_STYLE}<div class="method-map" role="img" tabindex="0" '
            f'aria-label="{html.escape(self.alt)}">{self.svg}</div>'
        )

    def __repr__(self) -> str:
        return f"MethodMap: {self.alt}"


def method_map(
    boxes: Sequence[Box],
    arrows: Sequence[Arrow],
    *,
    alt: str,
    size: Point = (7.0, 3.6),
    lit: Sequence[str] | None = None,
) -> MethodMap:
    """Draw a method map.

    Args:
        boxes: the parts of the method.
        arrows: what flows between them.
        alt: sentences that replace the picture for readers who cannot see it.
        size: width and height of the picture, inches.
        lit: names of boxes to show in full, the rest is faint; None shows all in full.

    Returns:
        A picture that follows the page's font and its light or dark colours.

    Raises:
        ValueError: a name without a box, two boxes of one name or place, a box outside the
            picture, or an `alt` of fewer than five words.
    """
    _check(boxes, arrows, alt, size, lit)
    known = {box.name: box for box in boxes}
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "wsss-lab"}):
        sheet = Sheet(figsize=size, layout="none")  # whatever the page's style is
        sheet.patch.set_visible(False)
        ax = sheet.add_axes((0, 0, 1, 1))
        ax.set_axis_off()
        ax.set(xlim=(0, size[0]), ylim=(size[1], 0))
        for arrow in arrows:
            full = lit is None or {arrow.start, arrow.end} <= set(lit)
            _draw_arrow(ax, arrow, known, 1.0 if full else 0.25)
        for box in boxes:
            _draw_box(ax, box, 1.0 if lit is None or box.name in lit else 0.25)
        buffer = io.StringIO()
        blank = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        sheet.savefig(buffer, format="svg", metadata=blank)
    return MethodMap(_for_page(buffer.getvalue()), alt)


def _check(
    boxes: Sequence[Box],
    arrows: Sequence[Arrow],
    alt: str,
    size: Point,
    lit: Sequence[str] | None,
) -> None:
    names = [box.name for box in boxes]
    if len(set(names)) < len(names):
        raise ValueError(f"boxes: expected a name of its own for each, got {names}")
    ends = [end for arrow in arrows for end in (arrow.start, arrow.end)]
    if lost := sorted({*ends, *(lit or ())} - set(names)):
        raise ValueError(f"arrows, lit: expected names of boxes, got {lost}; boxes are {names}")
    if len(alt.split()) < 5:
        raise ValueError(f"alt: expected a sentence of five words or more, got {alt!r}")
    for i, box in enumerate(boxes):
        low, high = _corners(box)
        if min(low) < 0 or high[0] > size[0] or high[1] > size[1]:
            raise ValueError(f"boxes: {box.name!r} leaves the picture of {size} inches; move it")
        for other in boxes[:i]:
            begin, end = _corners(other)
            if all(low[k] < end[k] and begin[k] < high[k] for k in (0, 1)):
                raise ValueError(f"boxes: {box.name!r} overlaps {other.name!r}; move one of them")


def _corners(box: Box) -> tuple[Point, Point]:
    (x, y), (w, h) = box.at, box.size
    return (x - w / 2, y - h / 2), (x + w / 2, y + h / 2)


def _draw_box(ax: Axes, box: Box, alpha: float) -> None:
    low, _ = _corners(box)
    colour = _LIGHT[box.colour]
    style = "round,pad=0,rounding_size=0.07"
    shape: dict[str, Any] = {"boxstyle": style, "clip_on": False, "zorder": 3}  # above arrows
    ax.add_patch(FancyBboxPatch(low, *box.size, fc=_LIGHT["paper"], ec="none", **shape))
    ax.add_patch(FancyBboxPatch(low, *box.size, fc=colour, ec="none", alpha=0.13 * alpha, **shape))
    ax.add_patch(FancyBboxPatch(low, *box.size, fc="none", ec=colour, lw=1.3, alpha=alpha, **shape))
    lines = box.text.split("\n")
    for i, line in enumerate(lines):
        y = box.at[1] + _LINE * (i - (len(lines) - 1) / 2)
        ax.text(
            box.at[0],
            y,
            line,
            ha="center",
            va="center",
            fontsize=_TEXT if i == 0 else _TEXT - 0.9,
            fontweight="bold" if i == 0 else "normal",
            color=_LIGHT["ink"],
            alpha=alpha,
            zorder=4,
        )


def _anchor(box: Box, side: Side, shift: float) -> Point:
    (x, y), (w, h) = box.at, box.size
    if side in ("left", "right"):
        return (x - w / 2 if side == "left" else x + w / 2), y + shift
    return x + shift, (y - h / 2 if side == "top" else y + h / 2)


def route(start: Point, end: Point, sides: tuple[Side, Side]) -> list[Point]:
    """Connect two points in right angles, leaving and arriving across the sides named.

    Args:
        start: (x, y).
        end: (x, y).
        sides: of the boxes on which the points lie.

    Returns:
        Corners of the line, both points included.
    """
    flat = [side in ("left", "right") for side in sides]
    if flat == [True, False]:
        return [start, (end[0], start[1]), end]
    if flat == [False, True]:
        return [start, (start[0], end[1]), end]
    axis = 0 if flat[0] else 1
    if abs(start[1 - axis] - end[1 - axis]) < 1e-9:
        return [start, end]
    middle = (start[axis] + end[axis]) / 2
    if axis == 0:
        return [start, (middle, start[1]), (middle, end[1]), end]
    return [start, (start[0], middle), (end[0], middle), end]


def _draw_arrow(ax: Axes, arrow: Arrow, known: dict[str, Box], alpha: float) -> None:
    start = _anchor(known[arrow.start], arrow.sides[0], arrow.shift[0])
    end = _anchor(known[arrow.end], arrow.sides[1], arrow.shift[1])
    points = route(start, end, arrow.sides)
    (x0, y0), (x1, y1) = points[-2:]
    length = abs(x1 - x0) + abs(y1 - y0)
    ux, uy = (x1 - x0) / length, (y1 - y0) / length
    base = (x1 - _HEAD * ux, y1 - _HEAD * uy)
    colour = _LIGHT[arrow.colour]
    line = [*points[:-1], base]
    dash = (0, (3, 2)) if arrow.dashed else "-"
    ax.plot(*zip(*line, strict=True), color=colour, lw=1.3, ls=dash, alpha=alpha, clip_on=False)
    wide = 0.5 * _HEAD
    wings = [(base[0] + s * wide * uy, base[1] + s * wide * ux) for s in (1, -1)]
    ax.add_patch(Polygon([end, *wings], fc=colour, ec="none", alpha=alpha, clip_on=False))
    if arrow.text:
        _draw_label(ax, arrow, points, alpha)


def _draw_label(ax: Axes, arrow: Arrow, points: Sequence[Point], alpha: float) -> None:
    a, b = max(pairwise(points), key=lambda p: abs(p[0][0] - p[1][0]) + abs(p[0][1] - p[1][1]))
    x, y = (a[0] + b[0]) / 2, (a[1] + b[1]) / 2
    lines = arrow.text.split("\n")
    spread = [_LINE * (i - (len(lines) - 1) / 2) for i in range(len(lines))]
    if abs(a[1] - b[1]) < 1e-9:  # above or below a level line
        away = arrow.lift + (spread[-1] if arrow.lift > 0 else spread[0])
        y, side = y - away, "center"
    else:
        x, side = x + arrow.lift, "left" if arrow.lift > 0 else "right"
    style: dict[str, Any] = {"va": "center", "fontsize": _TEXT - 0.9, "alpha": alpha, "zorder": 4}
    for text, row in zip(lines, spread, strict=True):
        ax.text(x, y + row, text, ha=side, color=_LIGHT[arrow.colour], **style)


def _for_page(svg: str) -> str:
    """Keep the drawing alone: no prologue, no style for the whole page, colours as variables."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<defs>.*?</defs>", "", svg, flags=re.S)
    root = r'<svg [^>]*viewBox="([^"]+)"[^>]*>'
    svg = re.sub(root, r'<svg viewBox="\1" aria-hidden="true">', svg)
    svg = re.sub(r"<!--.*?-->", "", svg, flags=re.S)
    svg = re.sub(r' id="[^"]*"', "", svg)
    svg = re.sub(r"; font-family: [^;\"]+|font-family: [^;\"]+; ?", "", svg)
    svg = re.sub(r"font: ((?:\d+ |bold )?)([\d.]+px) [^;\"]+", _font, svg)
    for name, colour in _LIGHT.items():
        svg = re.sub(re.escape(colour), f"var(--map-{name})", svg, flags=re.I)
    return re.sub(r"\s*\n\s*", "\n", svg).strip()


def _font(match: re.Match[str]) -> str:
    weight = match[1].strip()
    return f"font-size: {match[2]}" + (f"; font-weight: {weight}" if weight else "")
