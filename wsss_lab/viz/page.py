"""Page elements of chapters besides pictures: tables, small photographs, checked claims."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import SupportsFloat

from matplotlib.figure import Figure

from wsss_lab.printable import row
from wsss_lab.viz.svg import page_svg

VARIES = "<!-- varies -->"
"""Mark, unseen on the page, of a table whose numbers are not compared."""


@dataclass(frozen=True)
class Table:
    """Markdown table that a notebook renders."""

    text: str

    def _repr_markdown_(self) -> str:
        return self.text

    def __repr__(self) -> str:
        lines = self.text.removesuffix(f"\n\n{VARIES}").count("\n")
        return f"Table of {lines - 1} rows"


def table(head: Sequence[object], rows: Sequence[Sequence[object]], varies: bool = False) -> Table:
    """Make a table of any values; text in them makes neither columns nor HTML.

    Args:
        head: names of the columns.
        rows: as many cells each.
        varies: the numbers come from a training, so their last digits differ between processors:
            comparisons of outputs see the words and leave the numbers out
            (`tests/nbval_sanitize.cfg`). Hold those that the text speaks of by `claim`.

    Raises:
        ValueError: a row of another length.
    """
    if odd := [line for line in rows if len(line) != len(head)]:
        raise ValueError(f"rows: expected {len(head)} cells as in head, got {odd[0]}")
    lines = [head, ["---"] * len(head), *rows]
    text = "\n".join(map(row, lines))
    return Table(f"{text}\n\n{VARIES}" if varies else text)


@dataclass(frozen=True)
class Photo:
    """Figure of photographs that a notebook displays, as SVG."""

    drawing: str

    def _repr_svg_(self) -> str:
        return self.drawing

    def __repr__(self) -> str:
        return "Photo"


def jpeg(sheet: Figure, quality: int = 82) -> Photo:
    """Store the photographs of a figure as JPEG of this quality, to keep pages small.

    Frames and titles remain lines and letters.
    """
    return Photo(page_svg(sheet, quality))


def claim(text: str, value: SupportsFloat, low: float, high: float) -> None:
    """Print a number beside the range in which it may lie on another machine.

    The last digits of trained results differ between processors, so comparisons of outputs leave
    the number out (`tests/nbval_sanitize.cfg`); a number outside its range is printed in other
    words, which they find.

    Args:
        text: description of the number.
        value: a number, or a tensor of one.
        low: smallest value allowed.
        high: largest value allowed.
    """
    number = float(value)
    shown = f"{number:.0f}" if 1000 <= abs(number) < 1e9 else f"{number:.3g}"
    allowed = "allowed" if low <= number <= high else "OUTSIDE the allowed"
    print(f"{text}: {shown} ({allowed} {low} to {high})")
