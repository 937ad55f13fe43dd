"""Exercises of the chapter on all-pairs consistency."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from wsss_lab.exercises import register
from wsss_lab.methods.acr.alignment import align_attention
from wsss_lab.methods.acr.localisation import spread
from wsss_lab.methods.acr.views import Flip, Shift

GRID = (3, 5)
"""Not square, so that rows and columns cannot be mixed up."""


def _source(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _near(answer: Any, expected: tuple[float, ...], tolerance: float) -> bool:
    """Compare a number or a sequence of numbers."""
    given = torch.as_tensor(answer, dtype=torch.float64).flatten()
    wanted = torch.tensor(expected, dtype=torch.float64)
    return given.shape == wanted.shape and bool(((given - wanted).abs() <= tolerance).all())


register(
    "acr-1",
    accepts=lambda answer: _near(answer, (2, 1, 0, 5, 4, 3), 0),
    hint="Write the tokens 0 to 5 into two rows of three, then read every row backwards.",
    right=lambda: [2, 1, 0, 5, 4, 3],
    wrong=lambda: [5, 4, 3, 2, 1, 0],  # the whole list backwards: turned by 180 degrees
)


def _mirror(attention: Tensor, grid: tuple[int, int]) -> Tensor:
    gh, gw = grid
    order = torch.arange(gh * gw).view(gh, gw).flip(1).flatten()
    order = torch.cat([torch.zeros(1, dtype=order.dtype), order + 1])
    return attention[..., order, :][..., order]


def _mirror_columns(attention: Tensor, grid: tuple[int, int]) -> Tensor:
    """Mirror keys alone, the likely mistake."""
    moved = attention[..., 1:].unflatten(-1, grid).flip(-1).flatten(-2)
    return torch.cat([attention[..., :1], moved], dim=-1)


def _is_mirror(function: Callable[[Tensor, tuple[int, int]], Tensor]) -> bool:
    """Compare with the library on a grid that is not square, for several layers."""
    n = 1 + GRID[0] * GRID[1]
    attention = torch.rand(2, 3, n, n, generator=_source(0))
    expected = align_attention(attention, Flip(), GRID)
    given = function(attention, GRID)
    return given.shape == expected.shape and torch.allclose(given, expected)


register(
    "acr-2",
    accepts=_is_mirror,
    hint="The class token stays at index 0; one list of 1 + gh * gw indices serves both axes.",
    right=lambda: _mirror,
    wrong=lambda: _mirror_columns,
)
register(
    "acr-3",
    accepts=lambda answer: _near(answer, (2 / 576,), 5e-5),  # two digits, as in the solution
    hint="Two rows that sum to 1 and share nothing differ by 2 in sum. The loss takes the mean.",
    right=lambda: 2 / (24 * 24),
    wrong=lambda: 2.0,  # the sum over a row, not the mean
)


def _gather(maps: Tensor, affinity: Tensor) -> Tensor:
    return maps @ affinity[:, 1:, 1:].transpose(1, 2)


def _is_gather(function: Callable[[Tensor, Tensor], Tensor]) -> bool:
    """Compare with the library for an affinity that is not symmetric."""
    n = GRID[0] * GRID[1]
    maps = torch.rand(2, 4, n, generator=_source(1))
    affinity = torch.rand(2, 1 + n, 1 + n, generator=_source(2))
    given, expected = function(maps, affinity), spread(maps, affinity)
    return given.shape == expected.shape and torch.allclose(given, expected, atol=1e-5)


register(
    "acr-4",
    accepts=_is_gather,
    hint="Patch i gathers along row i of the affinity, where i is the one that looks.",
    right=lambda: _gather,
    wrong=lambda: lambda maps, affinity: maps @ affinity[:, 1:, 1:],  # patch i distributes instead
)


def _common() -> tuple[int, int]:
    """Count the tokens that both views show, and the entries of the attention among them."""
    tokens = int(Shift(3, -5).valid((24, 24)).sum())
    return tokens, tokens**2


register(
    "acr-5",
    accepts=lambda answer: _near(answer, _common(), 0),
    hint="How many rows of tokens stay in the frame, and how many columns? Pairs need both ends.",
    right=lambda: (21 * 19, (21 * 19) ** 2),
    wrong=lambda: (24 * 24 - 3 * 5, (24 * 24 - 3 * 5) ** 2),
)
register(
    "acr-6",
    accepts=lambda answer: _near(answer, (1 / 3,), 0.004),
    hint="Weights 4 to 1 become 2 to 1. Divide by the sum, then take half the distance.",
    right=lambda: 1 / 3,
    wrong=lambda: 0.3,  # half of the share, as if it fell like the factor
)
register(
    "acr-7",
    accepts=lambda answer: _near(answer, (0.16 / 1.16,), 0.004),
    hint="Both shares shrink by 1 - x, and the object's gains x. When are the two equal?",
    right=lambda: 0.16 / 1.16,
    wrong=lambda: 0.16,  # the difference of the shares; it shrinks, too
)
