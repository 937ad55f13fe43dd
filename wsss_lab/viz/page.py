"""Page elements of chapters besides pictures: tables, small photographs, checked claims."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import SupportsFloat

from matplotlib.figure import Figure

from wsss_lab.printable import row


@dataclass(frozen=True)
class Table:
    """Markdown table that a notebook renders."""

    text: str

    def _repr_markdown_(self) -> str:
        return self.text

    def __repr__(self) -> str:
        return f"Table of {self.text.count(chr(10)) - 1} rows"


def table(head: Sequence[object], rows: Sequence[Sequence[object]]) -> Table:
    """Make a table of any values; text in them makes neither columns nor HTML.

    Args:
        head: names of the columns.
        rows: as many cells each.

    Raises:
        ValueError: a row of another length.
    """
    if odd := [line for line in rows if len(line) != len(head)]:
        raise ValueError(f"rows: expected {len(head)} cells as in head, got {odd[0]}")
    lines = [head, ["---"] * len(head), *rows]
    return Table("\n".join(map(row, lines)))


@dataclass(frozen=True)
class Photo:
    """JPEG that a notebook displays."""

    data: bytes

    def _repr_jpeg_(self) -> bytes:
        return self.data

    def __repr__(self) -> str:
        return "Photo"


def jpeg(sheet: Figure, quality: int = 90) -> Photo:
    """Encode a figure of photographs as JPEG, to keep pages small."""
    buffer = io.BytesIO()
    sheet.savefig(buffer, format="jpeg", bbox_inches="tight", pil_kwargs={"quality": quality})
    return Photo(buffer.getvalue())


def claim(text: str, value: SupportsFloat, low: float, high: float) -> None:
    """Print whether a number lies within bounds, and not the number.

    The last digits of trained results differ between processors. A claim with a tolerance does not,
    so its output can be compared character by character.

    Args:
        text: description of the number.
        value: a number, or a tensor of one.
        low: claimed lower bound.
        high: claimed upper bound.
    """
    print(f"{text} between {low} and {high}: {bool(low <= float(value) <= high)}")
