"""Pairs of near cells of AffinityNet: which there are, their affinity, and the loss on it."""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Integer
from torch import Tensor
from torch.autograd.function import once_differentiable

from wsss_lab import IGNORE

Offsets = tuple[tuple[int, int], ...]
"""(rows down, columns right) from one cell of a pair to the other; each pair once."""


def pair_offsets(radius: float) -> Offsets:
    """List the offsets from a cell to the second one of a pair, nearer than `radius`, each once.

    Args:
        radius: Euclidean distance in cells, not reached; 5 in the paper, which gives 34 offsets.

    Raises:
        ValueError: no pair is that near.
    """
    if not 1 < radius <= 64:
        raise ValueError(f"radius must be above 1 and at most 64 cells, got {radius}; the paper: 5")
    reach = range(-int(radius), int(radius) + 1)
    half = [(y, x) for y in reach for x in reach if y > 0 or (y == 0 and x > 0)]
    return tuple((y, x) for y, x in half if y * y + x * x < radius * radius)


def pair_valid(offsets: Offsets, gh: int, gw: int) -> Bool[Tensor, "m gh gw"]:
    """Mark the pairs (offset, first cell) whose second cell lies on the grid."""
    y, x = torch.arange(gh), torch.arange(gw)
    inside = [
        ((y + dy >= 0) & (y + dy < gh))[:, None] & ((x + dx >= 0) & (x + dx < gw))
        for dy, dx in offsets
    ]
    return torch.stack(inside)


class Shifted:
    """Maps (..., gh, gw) at the other cell of a pair; `value` where there is none.

    The maps are padded once; every shift is then a view without a copy.
    """

    def __init__(self, maps: Tensor, offsets: Offsets, value: float = 0) -> None:
        self.size = maps.shape[-2:]
        self.reach = max(max(abs(y), abs(x)) for y, x in offsets)
        self.padded = F.pad(maps, (self.reach,) * 4, value=value)

    def __call__(self, dy: int, dx: int) -> Tensor:
        """Return the maps at (y + dy, x + dx), a view."""
        top, left = self.reach + dy, self.reach + dx
        return self.padded[..., top : top + self.size[0], left : left + self.size[1]]


class _PairDistance(torch.autograd.Function):
    """Mean |f_i - f_j| over channels, offset by offset: differences are never all in memory."""

    @staticmethod
    def forward(ctx: Any, features: Tensor, offsets: Offsets) -> Tensor:
        """Compute distances, (b, m, gh, gw)."""
        ctx.save_for_backward(features)
        ctx.offsets = offsets
        second = Shifted(features, offsets)
        each = [(features - second(*offset)).abs_().mean(1) for offset in offsets]
        return torch.stack(each, 1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        """Add the sign of every difference to the first cell and, negative, to the second."""
        (features,) = ctx.saved_tensors
        second, total = Shifted(features, ctx.offsets), torch.zeros_like(features)
        negative = Shifted(total, ctx.offsets)
        grad = grad / features.shape[1]
        for m, offset in enumerate(ctx.offsets):
            step = (features - second(*offset)).sign_() * grad[:, m, None]
            total += step
            negative(*offset).sub_(step)
        return total + negative(0, 0), None


def pair_distance(
    features: Float[Tensor, "b d gh gw"], offsets: Offsets
) -> Float[Tensor, "b m gh gw"]:
    """Average the absolute difference over channels, for every pair of near cells, in float32.

    Args:
        features: on the grid.
        offsets: from `pair_offsets`, `m` of them.

    Returns:
        Entry (m, y, x) is of the pair (y, x) and (y, x) + offset m; infinite where that lies
        outside, so that its affinity and all gradients are 0.

    Raises:
        ValueError: `features` is not (b, d, gh, gw).
    """
    if features.ndim != 4:
        raise ValueError(f"features must be (b, d, gh, gw), got {tuple(features.shape)}")
    with torch.autocast(features.device.type, enabled=False):
        features = features if features.dtype == torch.float64 else features.float()
        distance = _PairDistance.apply(features, offsets)
    inside = pair_valid(offsets, features.shape[2], features.shape[3]).to(features.device)
    return distance.masked_fill(~inside, torch.inf)


def pair_affinity(distance: Float[Tensor, "b m gh gw"]) -> Float[Tensor, "b m gh gw"]:
    """Compute exp(-distance): 1 for equal features, 0 where there is no second cell."""
    return torch.exp(-distance)


class Pairs(NamedTuple):
    """Which pairs are sure, by kind; each (b, m, gh, gw), no pair in two of them."""

    foreground: Tensor
    """Both cells of one object class."""
    background: Tensor
    """Both cells background."""
    different: Tensor
    """Two cells of different classes, background being one."""


def pair_kinds(label: Integer[Tensor, "b gh gw"], offsets: Offsets) -> Pairs:
    """Sort all pairs of near cells by their labels.

    Args:
        label: on the grid; 0 background, `IGNORE` not sure. A pair with such a cell counts nowhere.
        offsets: from `pair_offsets`.

    Raises:
        ValueError: `label` is not (b, gh, gw).
    """
    if label.ndim != 3 or label.is_floating_point():
        raise ValueError(f"label must be integers (b, gh, gw), got {tuple(label.shape)}")
    shifted = Shifted(label, offsets, IGNORE)
    second = torch.stack([shifted(*offset) for offset in offsets], 1)
    first = label[:, None]
    sure, same = (first != IGNORE) & (second != IGNORE), first == second
    return Pairs(sure & same & (first > 0), sure & same & (first == 0), sure & ~same)


def pair_loss(
    distance: Float[Tensor, "b m gh gw"], pairs: Pairs
) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
    """Compute the cross-entropy of the affinity: pairs of one kind to 1, others to 0.

    A quarter of the mean of -log W over sure object pairs, a quarter of that over sure background
    pairs, half of the mean of -log(1 - W) over different pairs (released code; the paper weighs
    1, 1, 2). Since W = exp(-distance), -log W is the distance itself. 1e-5 keeps log(1 - W) finite.

    Args:
        distance: from `pair_distance`.
        pairs: from `pair_kinds`.

    Returns:
        The loss, and its three means by name; a kind without pairs counts 0.

    Raises:
        ValueError: shapes disagree.
    """
    if any(kind.shape != distance.shape for kind in pairs):
        raise ValueError(
            f"pairs must have the shape of distance, {tuple(distance.shape)}, got "
            f"{[tuple(kind.shape) for kind in pairs]}; make both with the same offsets and grid"
        )
    apart = -torch.log(1 + 1e-5 - pair_affinity(distance))
    terms = (distance, distance, apart)
    means = [
        value.masked_fill(~kind, 0).sum() / kind.sum().clamp(min=1)
        for value, kind in zip(terms, pairs, strict=True)
    ]
    loss = means[0] / 4 + means[1] / 4 + means[2] / 2
    return loss, dict(zip(Pairs._fields, means, strict=True))
