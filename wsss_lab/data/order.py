"""Order of the images of a training run, known for any step without replay."""

import numpy as np
import torch
from torch import Tensor


def permutation(count: int, seed: int, epoch: int) -> np.ndarray:
    """Order of one epoch, int64 (count,); the same on every machine for the same arguments."""
    return np.random.Generator(np.random.PCG64([seed, epoch])).permutation(count)


class StepSampler:
    """Endless shuffled batches with random access: step `t` needs no replay of `0..t-1`.

    Every epoch is one permutation of all images; the remainder that does not fill a batch is
    dropped, as in the usual training loaders.

    Args:
        count: number of images; at least `batch`.
        batch: images per step.
        seed: seed of the order.

    Raises:
        ValueError: if there are fewer images than one batch needs.
    """

    def __init__(self, count: int, batch: int, seed: int = 0):
        if batch < 1:
            raise ValueError(f"batch: expected at least 1 image per step, got {batch}")
        if count < batch:
            raise ValueError(
                f"count: expected at least one batch of {batch} images, got {count}; "
                "use a smaller batch or more images"
            )
        self.count, self.batch, self.seed = count, batch, seed
        self._epoch, self._order = -1, np.empty(0, dtype=np.int64)

    def __getitem__(self, step: int) -> Tensor:
        """Return the image indices of a step, int64 (batch,)."""
        per_epoch = self.count // self.batch
        epoch, within = divmod(step, per_epoch)
        if epoch != self._epoch:
            self._epoch, self._order = epoch, permutation(self.count, self.seed, epoch)
        return torch.from_numpy(self._order[within * self.batch : (within + 1) * self.batch].copy())
