"""Errors of data on their way out of worker processes, which keep only the text of exceptions."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from torch.utils.data import Dataset

from wsss_lab.data.errors import DataError, Problem

T = TypeVar("T")


class Reported(Dataset[Any]):
    """A data set that returns its data errors as `Problem`, for a `DataLoader` with workers.

    Args:
        dataset: map-style.
        prepare: applied to each item, in the worker.
    """

    def __init__(self, dataset: Any, prepare: Callable[[Any], Any] | None = None):
        self.dataset, self.prepare = dataset, prepare

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Any:
        try:
            item = self.dataset[index]
            return item if self.prepare is None else self.prepare(item)
        except DataError as error:
            return Problem.of(error)


def raising(items: Iterable[T | Problem]) -> Iterator[T]:
    """Yield items that came through workers; a problem among them is raised.

    Raises:
        DataError: names the file and the remedy in one line.
    """
    for item in items:
        if isinstance(item, Problem):
            raise item.error()
        yield item
