"""Options of the command line: their types and help, and parsing in which an error is one line."""

import contextlib
import dataclasses
import io
import re
from typing import Annotated, Any

import tyro

from wsss_lab.ranges import check, checks_later, spelled

PROGRAM = "python -m wsss_lab"


def setting(kind: Any, text: str) -> Any:
    """Type of an option, with its help."""
    return Annotated[kind, tyro.conf.arg(help=text)]


def default_of(value: Any) -> Any:
    """Default of a field that is itself a dataclass."""
    return dataclasses.field(default=value)


def unnamed(kind: Any) -> Any:
    """Type of settings whose names come without a prefix."""
    return Annotated[kind, tyro.conf.arg(name="")]


def option(arguments: list[str], name: str) -> str | None:
    """Value of `--name value` or `--name=value`, the last one as in tyro, if it is there."""
    found = None
    for argument, following in zip(arguments, [*arguments[1:], None], strict=True):
        if argument == f"--{name}":
            found = following
        elif argument.startswith(f"--{name}="):
            found = argument.partition("=")[2]
    return found


def parse(kind: Any, arguments: list[str] | None, **options: Any) -> Any:
    """Parse arguments with tyro.

    Args:
        kind: dataclass, or union of dataclasses, whose fields are the options.
        arguments: words of the command line; None takes those of this process.
        **options: of `tyro.cli`.

    Raises:
        ValueError: they do not fit; one line that names the option.
    """
    caught = io.StringIO()
    try:
        with contextlib.redirect_stderr(caught), checks_later():
            found = tyro.cli(kind, args=arguments, **options)
    except SystemExit as stop:
        if not stop.code:
            raise
        raise ValueError(_one_line(caught.getvalue())) from None
    check(found, spelled, unnamed=("config", "what"))
    return found


_STOP = "\x00"
_TITLES = ("Parsing error", "Required options", "Unrecognized options")


def _one_line(text: str) -> str:
    """The sentences of a box drawn on the terminal, without the box and its rulers.

    The box is of line characters or, where the terminal has none, of dashes. Its title becomes
    the start of the sentence, unless it adds nothing.
    """
    rows = [re.sub(r"[\u2500-\u257f]+|-{4,}", _STOP, row).strip() for row in text.splitlines()]
    rows = [row for row in rows if row]
    title = rows[0].replace(_STOP, "").strip() if rows else ""
    words = [row.strip(f"{_STOP} ") or _STOP for row in rows[1:]]  # a ruler ends a sentence
    joined = re.sub(r"\s+", " ", " ".join(words)).strip(f"{_STOP} ")
    joined = re.sub(rf"[.:]?(?: ?{_STOP})+ ?", ". ", joined)
    return joined if title in _TITLES else f"{title}: {joined}"
