"""Text from files on its way to a terminal or a page: nothing in it can act there.

A file name or a class name may hold escape sequences (which clear a screen or set its title), line
breaks, characters that turn the writing direction, or halves of characters that cannot be encoded.
"""

import contextlib
import re
import sys
from collections.abc import Iterator
from typing import Any, TextIO

_ACTS = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]"
)
_TAG = re.compile(r"<(?=[A-Za-z/!?])|&(?=#?\w+;)")


def printable(text: str) -> str:
    r"""Replace characters that act on a terminal by escapes, e.g. `\x1b`; keep line breaks."""
    return _ACTS.sub(lambda found: ascii(found[0])[1:-1], text)


def one_line(text: object) -> str:
    """Make a message one printable line."""
    return printable(" ".join(str(text).split()))


def cell(value: Any) -> str:
    """Make a value the text of a Markdown table's cell: no further column, no HTML."""
    text = _TAG.sub(lambda found: {"<": "&lt;", "&": "&amp;"}[found[0]], one_line(value))
    return re.sub(r"(?<!\\)\|", r"\\|", text)


def row(values: Any) -> str:
    """Make a row of a Markdown table."""
    return f"| {' | '.join(map(cell, values))} |"


class _Printable:
    """A stream whose text cannot act on a terminal."""

    def __init__(self, stream: TextIO):
        self._stream = stream

    def write(self, text: str) -> int:
        self._stream.write(printable(text))
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextlib.contextmanager
def printable_output() -> Iterator[None]:
    """Within the block, whatever is printed is made printable first."""
    with contextlib.redirect_stdout(_Printable(sys.stdout)):  # type: ignore[type-var]
        yield
