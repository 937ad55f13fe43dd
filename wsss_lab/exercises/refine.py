"""Exercises of the chapter on refinement."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from wsss_lab.cam import class_activation_map, normalize_cam
from wsss_lab.data.tiny import tiny_features, tiny_image, tiny_weights
from wsss_lab.exercises import register
from wsss_lab.refine import (
    PAR,
    VARM,
    DenseCRF,
    LocalKernel,
    dilated_offsets,
    exact_mean_field,
    local_affinity,
    propagate,
    random_walk,
)

TURNS = 10

TwoTensors = Callable[[Tensor, Tensor], Tensor]


def _source(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _near(answer: Any, expected: tuple[float, ...]) -> bool:
    """Compare numbers to three digits."""
    given = torch.as_tensor(answer, dtype=torch.float64).flatten()
    wanted = torch.tensor(expected, dtype=torch.float64)
    return given.shape == wanted.shape and bool(((given - wanted).abs() <= 1e-3).all())


def _constant_after() -> tuple[float, ...]:
    """Return the result of PAR and VARM for a map that is 1 everywhere."""
    image = torch.rand(1, 3, 6, 6, generator=_source(0))
    ones = torch.ones(1, 1, 6, 6)
    return tuple(float(kind(iterations=TURNS)(image, ones).mean()) for kind in (PAR, VARM))


register(
    "refine-1",
    accepts=lambda answer: _near(answer, _constant_after()),
    hint="What do the weights of one pixel sum to? A constant map is multiplied by that each turn.",
    right=_constant_after,
    wrong=lambda: (1 + 0.01 * TURNS, 1 - 0.01 * TURNS),  # added instead of multiplied
)


def _turn(maps: Tensor, weights: Tensor, mode: str = "replicate") -> Tensor:
    h, w = maps.shape[-2:]
    padded = F.pad(maps, (1, 1, 1, 1), mode=mode)
    total = torch.zeros_like(maps)
    for number, (y, x) in enumerate(dilated_offsets([1])):
        moved = padded[..., 1 + y : 1 + y + h, 1 + x : 1 + x + w]
        total = total + weights[:, number : number + 1] * moved
    return total


def _is_turn(function: TwoTensors) -> bool:
    """Check agreement with the library for several classes and an image that is not square."""
    weights = local_affinity(torch.rand(2, 3, 5, 7, generator=_source(1)), dilations=[1])
    maps = torch.rand(2, 3, 5, 7, generator=_source(2))
    expected = propagate(maps, weights, dilations=[1], iterations=1)
    given = function(maps, weights)
    return given.shape == expected.shape and torch.allclose(given, expected, atol=1e-5)


register(
    "refine-2",
    accepts=_is_turn,
    hint="What lies beyond the border? A pixel there repeats its nearest neighbour inside.",
    right=lambda: _turn,
    wrong=lambda: lambda maps, weights: _turn(maps, weights, "constant"),  # zeros outside
)


def _vote() -> tuple[float, ...]:
    """Return the probability of boat at two pixels after one simultaneous update."""
    probs = torch.tensor([[0.2, 0.8], [0.6, 0.4]], dtype=torch.float64)
    return tuple((probs.log() + 2 * probs.flip(0)).softmax(1)[:, 1].tolist())


def _vote_in_turn() -> tuple[float, float]:
    """Make the likely mistake: the second pixel already uses the first one's new probability."""
    first = _vote()[0]
    old = torch.tensor([0.6, 0.4], dtype=torch.float64)
    message = torch.tensor([1 - first, first], dtype=torch.float64)
    return first, float((old.log() + 2 * message).softmax(0)[1])


register(
    "refine-3",
    accepts=lambda answer: _near(answer, _vote()),
    hint="Both pixels hear the old probabilities. Multiply by e to the message, then make sums 1.",
    right=_vote,
    wrong=_vote_in_turn,
)


def _gaussian_attention(features: Tensor, values: Tensor) -> Tensor:
    bias = -0.5 * features.square().sum(2)[:, None]
    return F.scaled_dot_product_attention(features, features, values, attn_mask=bias, scale=1.0)


def _without_bias(features: Tensor, values: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(features, features, values, scale=1.0)


def _is_gaussian_attention(function: TwoTensors) -> bool:
    """Check agreement with distances written out, on more than one image."""
    features = 2 * torch.rand(2, 9, 5, generator=_source(3))
    values = torch.rand(2, 9, 4, generator=_source(4))
    distance = (features[:, :, None] - features[:, None]).square().sum(3)
    expected = (-0.5 * distance).softmax(2) @ values
    given = function(features, values)
    return given.shape == expected.shape and torch.allclose(given, expected, atol=1e-4)


register(
    "refine-4",
    accepts=_is_gaussian_attention,
    hint="Expand the squared distance. Which of its three parts does a softmax over j not see?",
    right=lambda: _gaussian_attention,
    wrong=lambda: _without_bias,
)


def _walk(maps: Tensor, affinity: Tensor, over: int = 1) -> Tensor:
    squared = affinity.square()
    return maps @ (squared / (squared.sum(over, keepdim=True) + 1e-4))


def _is_walk(function: TwoTensors) -> bool:
    """Check agreement with the library for an affinity that is not symmetric."""
    affinity = torch.rand(2, 12, 12, generator=_source(5))
    maps = torch.rand(2, 3, 12, generator=_source(6))
    expected = random_walk(maps.unflatten(2, (3, 4)), affinity).flatten(2)
    given = function(maps, affinity)
    return given.shape == expected.shape and torch.allclose(given, expected, atol=1e-5)


register(
    "refine-5",
    accepts=_is_walk,
    hint="Every cell receives a mean of the others, so the weights that arrive must sum to 1.",
    right=lambda: _walk,
    wrong=lambda: lambda maps, affinity: _walk(maps, affinity, over=2),  # rows instead of columns
)


def _tiny_map() -> Tensor:
    return normalize_cam(class_activation_map(tiny_features(), tiny_weights()))[:, :1]


def _first_turn() -> int:
    """Count the turns of PAR after which the hull's mean is above that of the last row."""
    weights = local_affinity(tiny_image(), LocalKernel(contrast=1 / 0.3), dilations=[1])
    maps = _tiny_map()
    turns = 0
    while maps[0, 0, 2, :3].mean() <= maps[0, 0, 3].mean():
        maps, turns = propagate(maps, weights, dilations=[1], iterations=1), turns + 1
    return turns


register(
    "refine-6",
    accepts=lambda answer: abs(int(answer) - _first_turn()) <= 1,
    hint="The table has turns 30 and 40 on different sides; halve the interval until one is left.",
    right=_first_turn,
    wrong=lambda: 100,
)


def _boat_in_last_row(beta: float) -> bool:
    crf = DenseCRF(10, spatial_sigma=1, spatial_weight=1, bilateral_sigma_xy=2, bilateral_weight=4)
    scores = torch.cat([torch.full((1, 1, 4, 4), beta), _tiny_map()], 1)
    probs = scores / scores.sum(1, keepdim=True)
    return bool((exact_mean_field(crf, 255 * tiny_image(), probs)[0, 1, 3] > 0.5).any())


def _first_beta() -> float:
    return next(step / 100 for step in range(12, 26) if not _boat_in_last_row(step / 100))


register(
    "refine-7",
    accepts=lambda answer: abs(float(answer) - _first_beta()) < 0.005,
    hint="The sky is sure of being background and lies within reach of the position kernel.",
    right=_first_beta,
    wrong=lambda: 0.25,  # where the given probability itself is one half
)
