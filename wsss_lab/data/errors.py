"""Errors of the data layer: one file, what is wrong with it, what to do about it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NoReturn


class DataError(ValueError):
    """A data set, or one file of it, is not what it should be. The message names the remedy."""

    problem: "Problem | None" = None
    """The same, in parts. None after a trip through a DataLoader worker, which keeps only text."""


class MissingFileError(DataError, FileNotFoundError):
    """A file that a data set needs is not there."""

    def __str__(self) -> str:
        return str(self.args[0])


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with one file."""

    file: str
    what: str
    remedy: str
    missing: bool = False
    """The file is not there (as opposed to: is there, but wrong)."""

    def __str__(self) -> str:
        return f"{self.file}: {self.what}. {self.remedy}."

    @classmethod
    def of(cls, error: DataError) -> "Problem":
        """The problem behind an exception."""
        return error.problem or cls("", str(error), "")

    def error(self) -> DataError:
        """The exception that says the same."""
        error = (MissingFileError if self.missing else DataError)(str(self))
        error.problem = self
        return error


OnProblem = Callable[[Problem], None]
"""What to do with a problem: `stop` raises it, a list's `append` collects it."""


def stop(problem: Problem) -> NoReturn:
    """Raises the problem.

    Raises:
        DataError: always.
    """
    raise problem.error()
