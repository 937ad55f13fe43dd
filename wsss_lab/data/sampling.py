"""Which images a training step takes: in epochs, or rare classes more often."""

from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

_STREAM = 3  # apart from the streams of `wsss_lab.data.loader`


def balance_weights(tags: Float[Tensor, "n k"]) -> Float[np.ndarray, " n"]:
    """Compute how often each image is drawn: sqrt(1 / images of its rarest class).

    The square root lies halfway between equal images and equal classes.

    Args:
        tags: 0 or 1. An image without tags counts as one of a class that all images have.

    Returns:
        positive weights with the sum 1.
    """
    counts = tags.sum(0).clamp(min=1)
    rarest = (tags / counts).amax(1).clamp(min=1 / max(len(tags), 1))
    weights = rarest.double().sqrt().numpy()
    return weights / weights.sum()


def weights_of(dataset: Any) -> Float[np.ndarray, " n"]:
    """Compute `balance_weights` of a data set.

    Raises:
        ValueError: it has no table `tags` of all its images.
    """
    tags = getattr(dataset, "tags", None)
    if not isinstance(tags, Tensor) or len(tags) != len(dataset):
        raise ValueError(
            "data.balance: this data set gives no tags of all images at once (attribute `tags`, "
            "float (n, k)); leave balance off"
        )
    return balance_weights(tags)


class WeightedSampler:
    """Endless batches drawn by weight, with random access: a step depends on seed and number only.

    Images of one batch are different; over steps an image may come again before others came once.

    Args:
        weights: positive, one per image; at least `batch`.
        batch: images per step.
        seed: seed of the draws.

    Raises:
        ValueError: too few images, or a weight that is not positive and finite.
    """

    def __init__(self, weights: Float[np.ndarray, " n"], batch: int, seed: int = 0):
        if not 1 <= batch <= len(weights):
            raise ValueError(
                f"batch: expected 1..{len(weights)}, the number of images, got {batch}; "
                "use a smaller batch or more images"
            )
        if not (np.isfinite(weights).all() and (weights > 0).all()):
            raise ValueError("weights: expected positive, finite numbers")
        self.share, self.batch, self.seed = weights / weights.sum(), batch, seed

    def __getitem__(self, step: int) -> Tensor:
        """Return the image indices of a step, int64 (batch,)."""
        rng = np.random.Generator(np.random.PCG64([self.seed, step, _STREAM]))
        return torch.from_numpy(rng.choice(len(self.share), self.batch, False, self.share))
