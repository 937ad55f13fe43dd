"""Errors of the data layer, each with a file, its problem and the remedy."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NoReturn


class DataError(ValueError):
    """Error of a data set or of one of its files; the message names the remedy."""

    problem: "Problem | None" = None
    """The error's parts. None if it came through a DataLoader worker, which keeps only text."""


class MissingFileError(DataError, FileNotFoundError):
    """Error of a missing file that a data set needs."""

    def __str__(self) -> str:
        return str(self.args[0])


@dataclass(frozen=True)
class Problem:
    """One problem of one file, with its remedy."""

    file: str
    what: str
    remedy: str
    missing: bool = False
    """The file is missing, not merely wrong."""

    def __str__(self) -> str:
        return f"{self.file}: {self.what}. {self.remedy}."

    @classmethod
    def of(cls, error: DataError) -> "Problem":
        """Return the problem that an exception carries."""
        return error.problem or cls("", str(error), "")

    def error(self) -> DataError:
        """Return an exception with this problem as its message."""
        error = (MissingFileError if self.missing else DataError)(str(self))
        error.problem = self
        return error


OnProblem = Callable[[Problem], None]
"""Handler of a problem: `stop` raises it, a list's `append` collects it."""


def stop(problem: Problem) -> NoReturn:
    """Raise the problem.

    Raises:
        DataError: always.
    """
    raise problem.error()
