"""Batches as a pure function of seed and step, so that training can resume at any step."""

import itertools
import multiprocessing
import sys
import warnings
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from wsss_lab.data.batch import (
    LoadedBatch,
    Samples,
    Stacked,
    TrainingSample,
    Transform,
    stack_samples,
)
from wsss_lab.data.crops import inside
from wsss_lab.data.errors import Problem
from wsss_lab.data.order import StepSampler, permutation
from wsss_lab.data.reported import Reported
from wsss_lab.data.sampling import WeightedSampler
from wsss_lab.data.workers import LoaderWorker

__all__ = [
    "LoadedBatch",
    "Samples",
    "StepLoader",
    "StepSampler",
    "TrainingSample",
    "Transform",
    "permutation",
]

_IMAGE, _STEP = 1, 2  # streams of random numbers: of one image, and of a whole step


class StepLoader:
    """Loader of batches as a pure function of the step, prefetched by worker processes.

    A batch depends on `seed` and the step alone: every image's random numbers come from (seed,
    step, its position in the global batch). Neither the number of workers, nor a restart at any
    step, nor the number of processes changes a pixel. Rank r of n gets the positions r, r + n, ...
    of the global batch.

    Calling it with consecutive steps is fast; any other step is right too, but restarts the
    workers. Workers end with `close`, with the object, with the process, and at an error.

    Args:
        dataset: map-style, of `Sample`.
        run_batch: images per step over all processes.
        seed: seed of order and random numbers.
        transform: makes a sample of each image, see `Transform`; None leaves images as they are,
            which then must be of one size.
        rank: rank of this process.
        world: number of processes; must divide `run_batch`.
        workers: processes that prepare batches; 0 prepares them in this process at each call.
        ahead: batches that each worker keeps ready.
        weights: how often each image is drawn, see `WeightedSampler`; None takes every image once
            an epoch.
        device: where batches go. None: CPU, in pinned memory if there is a CUDA device. With a
            device, uint8 is transferred and converted to float there.

    Raises:
        ValueError: an argument is out of range, or the data set has fewer images than a batch.
        DataError: (when called) an image cannot be read; names the file.
    """

    def __init__(
        self,
        dataset: Samples,
        run_batch: int,
        seed: int = 0,
        transform: Transform | None = None,
        *,
        rank: int = 0,
        world: int = 1,
        workers: int = 0,
        ahead: int = 2,
        weights: np.ndarray | None = None,
        device: torch.device | str | None = None,
    ):
        if workers < 0:
            raise ValueError(f"workers: expected 0 or more processes, got {workers}")
        if ahead < 1:
            raise ValueError(f"ahead: expected at least 1 batch, got {ahead}")
        self._steps = _Steps(dataset, run_batch, seed, transform, rank, world, weights)
        self._fill: Sequence[float] | None = getattr(transform, "fill", None)
        self.workers, self.ahead, self.device = workers, ahead, device
        self._batches: Iterator[Stacked | Problem] | None = None
        self._next = -1

    def __call__(self, step: int) -> LoadedBatch:
        """Return the batch of a step, counted from 0."""
        if step < 0:
            raise ValueError(f"step: expected 0 or more, got {step}")
        if self.workers == 0:
            return self._finish(self._steps[step])
        try:
            if self._batches is None or step != self._next:
                self.close()
                self._batches = self._start(step)
            stacked = next(self._batches)
            if isinstance(stacked, Problem):
                raise stacked.error()
        except BaseException:  # KeyboardInterrupt too: no worker outlives an error
            self.close()
            raise
        self._next = step + 1
        return self._finish(stacked)

    def close(self) -> None:
        """Stop the workers; a later call starts new ones."""
        # not left to the garbage collector: a traceback may still hold the iterator
        end = getattr(self._batches, "_shutdown_workers", None)
        self._batches = None
        if end is not None:
            end()

    def __enter__(self) -> "StepLoader":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _start(self, step: int) -> Iterator[Stacked | Problem]:
        """Start workers that prepare `step` and all later steps."""
        # fork: works in notebooks, and children inherit lists and textures
        method = "fork" if sys.platform == "linux" else "spawn"
        with warnings.catch_warnings():
            # the children use none of the threads that Python warns about
            warnings.filterwarnings("ignore", message=".*fork.*", category=DeprecationWarning)
            warnings.filterwarnings("ignore", message="This DataLoader will create")
            loader = DataLoader(
                Reported(self._steps),
                batch_size=None,
                sampler=_From(step),
                num_workers=self.workers,
                prefetch_factor=self.ahead,
                worker_init_fn=LoaderWorker(),
                multiprocessing_context=multiprocessing.get_context(method),
                generator=torch.Generator(),  # else every start would advance the global one
            )
            return iter(loader)

    def _finish(self, stacked: Stacked) -> LoadedBatch:
        """Move a batch to the device and convert uint8 to float."""
        boxes, (height, width) = stacked["boxes"], stacked["images"].shape[-2:]
        boxes = self._move(boxes)
        valid = inside(boxes, height, width)
        batch: LoadedBatch = {
            "images": self._floats(stacked["images"], valid),
            "tags": self._move(stacked["tags"]),
            "boxes": boxes,
            "valid": valid,
            "names": stacked["names"],
            "max_tags": stacked["max_tags"],
        }
        if "masks" in stacked:
            batch["masks"] = self._move(stacked["masks"]).long()
        if "strong" in stacked:
            batch["strong"] = self._floats(stacked["strong"], valid)
        if "squashed" in stacked:
            batch["squashed"] = self._floats(stacked["squashed"], torch.ones_like(valid))
        return batch

    def _move(self, values: Tensor) -> Tensor:
        if torch.cuda.is_available():
            values = values.pin_memory()  # without it the copy below would block
        return values if self.device is None else values.to(self.device, non_blocking=True)

    def _floats(self, pixels: Tensor, valid: Tensor) -> Tensor:
        if self.device is None:
            pin = torch.cuda.is_available()
            made = torch.empty_like(pixels, dtype=torch.float32, pin_memory=pin)
            made.copy_(pixels).div_(255)  # several times faster than a division of bytes
        else:
            made = self._move(pixels).float().div_(255)  # uint8 is a quarter of the transfer
        if self._fill is not None:
            # a network's mean is no whole number of bytes, so it can only be filled in here
            colour = torch.tensor(self._fill, device=made.device)[:, None, None]
            made = torch.where(valid[:, None], made, colour)
        return made


class _From(Sampler[int]):
    """Endless sampler of the steps from a first one on."""

    def __init__(self, start: int):
        self.start = start

    def __iter__(self) -> Iterator[int]:
        return itertools.count(self.start)


class _Steps(Dataset[Stacked]):
    """The stacked bytes of a step, made in one process."""

    def __init__(
        self,
        dataset: Samples,
        run_batch: int,
        seed: int,
        transform: Transform | None,
        rank: int,
        world: int,
        weights: np.ndarray | None = None,
    ):
        if run_batch < 1:
            raise ValueError(f"run_batch: expected at least 1 image per step, got {run_batch}")
        if seed < 0:
            raise ValueError(f"seed: expected 0 or more, got {seed}")
        if world < 1 or not 0 <= rank < world:
            raise ValueError(f"rank: expected 0..world-1, got rank {rank} of world {world}")
        if run_batch % world:
            raise ValueError(
                f"run_batch: {run_batch} images cannot be shared equally by {world} processes; "
                f"use a multiple of {world}"
            )
        if len(dataset) < run_batch:
            raise ValueError(
                f"dataset: a batch takes {run_batch} images, but there are only {len(dataset)}; "
                "use a smaller batch or more images"
            )
        self.dataset, self.seed, self.transform = dataset, seed, transform
        self.order: StepSampler | WeightedSampler
        if weights is None:
            self.order = StepSampler(len(dataset), run_batch, seed)
        else:
            self.order = WeightedSampler(weights, run_batch, seed)
        self.positions = range(rank, run_batch, world)

    def __getitem__(self, step: int) -> Stacked:
        indices = self.order[step].tolist()
        return stack_samples([self._sample(step, p, indices[p]) for p in self.positions])

    def _sample(self, step: int, position: int, index: int) -> TrainingSample:
        sample = self.dataset[index]
        if self.transform is None:
            return TrainingSample(**sample)
        # keyed by the position in the global batch, not by rank or worker: their numbers may change
        rng = np.random.Generator(np.random.PCG64([self.seed, step, position, _IMAGE]))
        step_rng = np.random.Generator(np.random.PCG64([self.seed, step, 0, _STEP]))
        try:
            return self.transform(sample, rng, step_rng)
        except Exception as error:
            error.add_note(
                f"while making the training sample of image {sample['name']!r} for step {step}"
            )
            raise
