"""Exercises of the chapter on self-dual teaching."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from wsss_lab import IGNORE
from wsss_lab.exercises import register
from wsss_lab.methods.asdt.signal import pulse_signal

STEPS, PERIOD, WARMUP = 2000, 60, 100
DUTY, WEIGHT = 1 / 6, 0.1

Wave = Callable[[Tensor, int, float, int, int], Tensor]
Band = Callable[[Tensor, float, float], Tensor]


def _near(answer: Any, expected: tuple[float, ...], within: float = 1e-3) -> bool:
    """Check that numbers agree to three digits."""
    given = torch.tensor([float(one) for one in answer], dtype=torch.float64)
    wanted = torch.tensor(expected, dtype=torch.float64)
    return given.shape == wanted.shape and bool(((given - wanted).abs() <= within).all())


def _pulses() -> tuple[float, float]:
    """Count the steps of teacher B in a toy run, and find the first of them."""
    on = [t for t in range(STEPS) if pulse_signal(t, PERIOD, DUTY, warmup=WARMUP)]
    return float(len(on)), float(on[0])


register(
    "asdt-1",
    accepts=lambda answer: _near(answer, _pulses()),
    hint="Waves are counted from step 0. Which multiple of the period is the first beyond warm-up?",
    right=_pulses,
    wrong=lambda: (320.0, 101.0),  # waves counted from the end of the warm-up
)


def _wave(t: Tensor, period: int, duty: float, phase: int, warmup: int) -> Tensor:
    return ((t - phase) % period < int(duty * period + 0.5)) & (t > warmup)


def _is_wave(function: Wave) -> bool:
    """Compare with the library, also before the phase and where halves are rounded."""
    t = torch.arange(400)
    for period, duty, phase, warmup in ((10, 0.3, 7, 0), (10, 0.25, 3, 41), (7, 0.5, 90, -1)):
        expected = torch.as_tensor(pulse_signal(t, period, duty, phase, warmup))
        given = function(t, period, duty, phase, warmup)
        if given.shape != expected.shape or not torch.equal(given.bool(), expected):
            return False
    return True


register(
    "asdt-2",
    accepts=_is_wave,
    hint="Subtract the phase before the remainder, and keep the warm-up as a second condition.",
    right=lambda: _wave,
    # without the phase
    wrong=lambda: lambda t, period, duty, phase, warmup: _wave(t, period, duty, 0, warmup),
)


register(
    "asdt-3",
    accepts=lambda answer: _near(answer, ((1 - DUTY) / DUTY, 1 / (1 + WEIGHT))),
    hint="Level means equal total weights: duty times weight of B, one minus duty for A.",
    right=lambda: ((1 - DUTY) / DUTY, 1 / (1 + WEIGHT)),
    wrong=lambda: (1 / DUTY, 1 - WEIGHT),  # as if A were selected in every step
)


def _band_label(cam: Tensor, low: float, high: float) -> Tensor:
    label = torch.full(cam.shape, IGNORE)
    label[cam < (1 - cam) ** high] = 0
    label[cam > (1 - cam) ** low] = 1
    return label


def _is_band_label(function: Band) -> bool:
    """Compare pixel by pixel for two pairs of exponents, on maps that are not square."""
    cam = torch.rand(2, 5, 7, generator=torch.Generator().manual_seed(0))
    cam[0, 0, 0], cam[1, 0, 0] = 0.0, 1.0
    for low, high in ((4, 32), (1, 8)):
        given = function(cam, low, high)
        expected = _band_label(cam, low, high)
        if given.shape != expected.shape or not torch.equal(given.long(), expected):
            return False
    return True


register(
    "asdt-4",
    accepts=_is_band_label,
    hint="The small exponent makes the large background; foreground has to survive that one.",
    right=lambda: _band_label,
    wrong=lambda: lambda cam, low, high: _band_label(cam, high, low),  # exponents exchanged
)


def _ripple(eta: float = 0.01, period: int = 150, pulse: int = 25) -> tuple[float, float]:
    """Compute the lowest and highest value of a weight that follows the wave."""
    r = 1 - eta
    high = (1 - r**pulse) / (1 - r**period)
    return high * r ** (period - pulse), high


register(
    "asdt-5",
    accepts=lambda answer: _near(answer, _ripple()),
    hint="Pulse and pause must reproduce each other: high is reached from low, and low from high.",
    right=_ripple,
    wrong=lambda: (0.0, 1 - 0.99**25),  # the first pulse instead of many
)


register(
    "asdt-6",
    accepts=lambda answer: _near((answer,), (DUTY,), within=5e-3),
    hint="The weights are five sixths for A and one sixth times 1 for B. Which share has B?",
    right=lambda: DUTY,
    wrong=lambda: 10 * 0.0196,  # ten times the old value: the share is not proportional
)


register(
    "asdt-7",
    accepts=lambda answer: _near((answer,), ((1 / 24) ** 0.5,), within=5e-3),
    hint="In turns the rate is duty over the root of the duty; in the mixture it is 1.",
    right=lambda: (1 / 24) ** 0.5,
    wrong=lambda: 1 / 24,  # the duty itself
)
