"""The rule by which the recorded TSCD models got their weights, from its written description."""

import numpy as np
import torch

MASK = np.uint64(0xFFFFFFFF)


def filled(key: str, shape: tuple[int, ...], position: int) -> np.ndarray:
    """The tensor of one key; `position` is its rank among the sorted keys."""
    count = int(np.prod(shape, dtype=np.int64))
    i = np.arange(count, dtype=np.uint64)

    def wrap(x):
        return x & MASK

    x = wrap(i + np.uint64(1000003 * (position + 1)))
    x = wrap(np.uint64(1664525) * x + np.uint64(1013904223))
    x = x ^ (x >> np.uint64(16))
    x = wrap(np.uint64(2246822519) * x)
    x = x ^ (x >> np.uint64(13))
    x = wrap(np.uint64(3266489917) * x)
    x = x ^ (x >> np.uint64(16))
    s = 2.0 * x.astype(np.float64) / 2.0**32 - 1.0
    if key.endswith(("bias", "running_mean")):
        value = 0.1 * s
    elif key.endswith("running_var"):
        value = 1 + 0.5 * s
    elif len(shape) < 2:
        value = 1 + 0.2 * s
    else:
        value = s * np.sqrt(3.0 * shape[0] / count)
    return value.reshape(shape).astype(np.float32)


def fill(shapes: dict[str, tuple[int, ...]]) -> dict[str, torch.Tensor]:
    """State dict by the rule, given the shapes by (released) key."""
    keys = sorted(key for key in shapes if not key.endswith("num_batches_tracked"))
    return {key: torch.from_numpy(filled(key, tuple(shapes[key]), k)) for k, key in enumerate(keys)}


def checksum(state: dict[str, torch.Tensor]) -> np.ndarray:
    """[sum, sum of squares] over all tensors, as stored with the recordings."""
    arrays = [tensor.double().numpy() for tensor in state.values()]
    return np.array([sum(a.sum() for a in arrays), sum((a**2).sum() for a in arrays)])
