"""HTML made of elements; whatever is not made here is text, and is escaped."""

import html
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from wsss_lab.printable import one_line, printable


class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


VOID = ("img", "br", "meta")
"""Elements without an end."""


def escaped(value: object) -> Markup:
    """Make a value HTML: markup stays, other text can neither act nor be markup."""
    return value if isinstance(value, Markup) else Markup(html.escape(printable(str(value))))


def element(name: str, *children: object, **attributes: object) -> Markup:
    """Make an element.

    Args:
        name: of the element.
        children: see `escaped`.
        attributes: an underscore at the end is left out, others become hyphens; None is left out.
    """
    inner = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{html.escape(one_line(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    if name in VOID:
        return Markup(f"<{name}{inner}>")
    return Markup(f"<{name}{inner}>{joined(children)}</{name}>")


def joined(parts: Iterable[object], between: str = "") -> Markup:
    """Join parts, see `escaped`."""
    return Markup(between.join(map(escaped, parts)))


def cell(value: object, **attributes: object) -> Markup:
    """Make a cell of a table; an element `td` or `th` stays as it is."""
    if isinstance(value, Markup) and value.startswith(("<td", "<th")):
        return value
    return element("td", value, **attributes)


def table(caption: str, head: Sequence[object], rows: Iterable[Sequence[object]]) -> Markup:
    """Make a table that a screen reader understands, in a box that scrolls where it is narrow.

    Args:
        caption: of the table.
        head: names of the columns.
        rows: cells; the first one of each row is its name.
    """
    columns = element("tr", *(element("th", name, scope="col") for name in head))
    body = joined(
        element("tr", element("th", first, scope="row"), *map(cell, rest)) for first, *rest in rows
    )
    inner = element(
        "table",
        element("caption", caption),
        element("thead", columns),
        element("tbody", body),
    )
    return element("div", inner, class_="wide", role="region", tabindex=0, aria_label=caption)


def facts(pairs: Mapping[str, Any]) -> Markup:
    """Make a list of names and values."""
    items = (
        element("div", element("dt", name), element("dd", value)) for name, value in pairs.items()
    )
    return element("dl", *items)


def section(title: str, *children: object, level: int = 2) -> Markup:
    """Make a section with its heading."""
    return element("section", element(f"h{level}", title), *children)


def note(text: object, *more: object) -> Markup:
    """Make a remark that something is missing."""
    return element("p", text, *more, class_="note")


def details(summary: str, *children: object) -> Markup:
    """Make a part that opens on demand."""
    return element("details", element("summary", summary), *children)
