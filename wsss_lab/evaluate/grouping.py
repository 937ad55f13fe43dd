"""Samples of one size, out of a stream of samples of any size."""

from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any

from torch import Tensor

from wsss_lab.data.sample import Sample

WAITING = 256
"""Images that wait for others of their size before a batch that is not full goes."""


def by_shape(
    samples: Iterator[Sample],
    batch: int | Callable[[tuple[int, int]], int],
    waiting: int = WAITING,
) -> Iterator[list[Sample]]:
    """Group a stream of samples so that every group holds images of one size.

    Args:
        samples: any number, any order.
        batch: most images in a group; a number, or a function of their (h, w).
        waiting: images held back at most; beyond, the largest incomplete group goes.

    Yields:
        Every sample exactly once.
    """
    held: dict[tuple[int, int], list[Sample]] = defaultdict(list)
    for sample in samples:
        height, width = sample["image"].shape[-2:]
        key = (height, width)
        held[key].append(_unshared(sample))
        if len(held[key]) == (batch if isinstance(batch, int) else batch(key)):
            yield held.pop(key)
        elif sum(map(len, held.values())) >= waiting:
            yield held.pop(max(held, key=lambda k: len(held[k])))
    yield from held.values()


def _unshared(sample: Sample) -> Sample:
    """Copy what a worker has sent: every tensor in shared memory keeps a file open."""
    copied: Any = {
        name: value.clone() if isinstance(value, Tensor) and _shared(value) else value
        for name, value in sample.items()
    }
    return copied


def _shared(tensor: Tensor) -> bool:
    return tensor.device.type == "cpu" and tensor.is_shared()
