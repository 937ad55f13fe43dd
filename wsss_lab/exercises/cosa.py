"""Exercises of the chapter on CoSA."""

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from wsss_lab.cam import cam_to_label
from wsss_lab.exercises import register
from wsss_lab.methods.cosa.losses import perplexity_weights, swapped_cam_loss

MOMENTUM = 0.9994


def _source(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _numbers(answer: Any, count: int) -> list[float] | None:
    given = torch.as_tensor([float(value) for value in answer], dtype=torch.float64)
    return given.tolist() if given.shape == (count,) else None


def _half_life_and_rest(answer: Any) -> bool:
    given = _numbers(answer, 2)
    if given is None:
        return False
    half_life = math.log(2) / -math.log(MOMENTUM)
    return abs(given[0] - half_life) <= 10 and abs(given[1] - MOMENTUM**3000) <= 1e-3


register(
    "cosa-1",
    accepts=_half_life_and_rest,
    hint="What is left after T steps is m to the power of T. Take logarithms for the first part.",
    right=lambda: (1155, 0.165),
    # the memory instead of the half-life
    wrong=lambda: (1 / (1 - MOMENTUM), math.exp(-3000 * (1 - MOMENTUM) / 2)),
)


def _two_thresholds(cam: Tensor, low: float, high: float) -> Tensor:
    score, winner = cam.max(dim=1)
    label = torch.where(score > high, winner + 1, torch.full_like(winner, 255))
    return torch.where(score > low, label, 0)


def _is_two_thresholds(function: Callable[[Tensor, float, float], Tensor]) -> bool:
    """Check agreement with the library, also where a value equals a threshold."""
    cam = (8 * torch.rand(2, 3, 6, 5, generator=_source(0))).round() / 8
    for low, high in ((0.25, 0.75), (0.5, 0.5)):
        expected = cam_to_label(cam, None, low, band=(low, high))
        given = function(cam.clone(), low, high)
        if given.shape != expected.shape or not bool((given == expected).all()):
            return False
    return True


register(
    "cosa-2",
    accepts=_is_two_thresholds,
    hint="Take maximum and argmax over classes. At a threshold exactly, the lower side wins.",
    right=lambda: _two_thresholds,
    wrong=lambda: (
        lambda cam, low, high: torch.where(
            cam.amax(1) >= high, cam.argmax(1) + 1, torch.where(cam.amax(1) >= low, 255, 0)
        )
    ),
)


def _floors() -> tuple[float, float]:
    """Measure the loss of perfect maps with and without the ReLU."""
    target = torch.zeros(1, 20, 10, 10)
    target.view(-1)[::50] = 1
    perfect = (2 * target - 1) * 1e4
    with_relu, without = (swapped_cam_loss(perfect, target, floor=on) for on in (True, False))
    return float(with_relu), float(without)


def _is_floors(answer: Any) -> bool:
    given = _numbers(answer, 2)
    return given is not None and all(
        abs(one - true) <= 1e-3 for one, true in zip(given, _floors(), strict=True)
    )


register(
    "cosa-3",
    accepts=_is_floors,
    hint="Behind the ReLU an empty cell is 0, and the sigmoid of 0 is one half. What does it cost?",
    right=_floors,
    wrong=lambda: (math.log(2), 0.0),  # also the cells that should be full
)


def _doubt(v: Tensor, beta: float, alpha: float, power: float = 1.5) -> Tensor:
    strength = (-torch.log(alpha * (v - beta) / (1 - beta))) ** -power
    return strength / strength.mean()


def _is_doubt(function: Callable[[Tensor, float, float], Tensor]) -> bool:
    v = 0.45 + 0.5 * torch.rand(40, generator=_source(1))
    for beta, alpha in ((0.4, 0.8), (0.2, 0.5)):
        whole = torch.ones(1, 1, 40, dtype=torch.long)
        expected = perplexity_weights(v.view(1, 1, 40), whole, beta, beta, alpha)[0, 0]
        given = function(v.clone(), beta, alpha)
        if given.shape != v.shape or not torch.allclose(given, expected, rtol=1e-3, atol=1e-4):
            return False
    return True


register(
    "cosa-4",
    accepts=_is_doubt,
    hint="The perplexity is minus a logarithm, to the power of 1.5; a weight is its inverse.",
    right=lambda: _doubt,
    # sums to 1 instead of having the mean 1
    wrong=lambda: lambda v, beta, alpha: _doubt(v, beta, alpha) / len(v),
)


def _changed(logits: Tensor, tags: Tensor) -> Tensor:
    allowed = F.pad(tags, (1, 0), value=1.0) > 0
    winner = logits.argmax(dim=1)
    return ~allowed.gather(1, winner.flatten(1)).view_as(winner)


def _is_changed(function: Callable[[Tensor, Tensor], Tensor]) -> bool:
    logits = torch.randn(2, 5, 6, 4, generator=_source(2))
    tags = torch.tensor([[1.0, 0, 0, 1], [0, 1, 0, 0]])
    absent = (F.pad(tags, (1, 0), value=1.0) == 0)[:, :, None, None]
    expected = logits.argmax(1) != logits.masked_fill(absent, -1e5).argmax(1)
    given = function(logits.clone(), tags.clone())
    return given.shape == expected.shape and bool((given.bool() == expected).all())


register(
    "cosa-5",
    accepts=_is_changed,
    hint="Which class wins without tags, and is it in the list? Background always is.",
    right=lambda: _changed,
    wrong=lambda: (
        lambda logits, tags: (
            ~(tags.gather(1, (logits[:, 1:].argmax(1)).flatten(1)).view_as(logits[:, 0]) > 0)
        )
    ),  # without the case that background wins
)


LAG, SURE = 0.98, 0.95
"""Momentum of exercise 6; wanted probability of exercise 7, whose two logits are 1 apart."""


register(
    "cosa-6",
    accepts=lambda answer: abs(float(answer) - LAG / (1 - LAG)) <= 1.01,
    hint="Let teacher and student both gain 1 per step, the teacher L behind, and insert that.",
    right=lambda: LAG / (1 - LAG),
    wrong=lambda: math.log(2) / -math.log(LAG),  # the half-life
)


register(
    "cosa-7",
    accepts=lambda answer: abs(float(answer) - 1 / math.log(SURE / (1 - SURE))) <= 5e-3,
    hint="Of two classes the softmax is a sigmoid of the difference of their logits, over tau.",
    right=lambda: 1 / math.log(SURE / (1 - SURE)),
    wrong=lambda: 1 - SURE,  # as if the probability fell in step with the temperature
)
