"""Signals that choose the student's teacher: ASDT's square wave, and what it is compared with.

A pulse-width modulated signal is a square wave. Its *period* is the number of steps of one wave,
its *duty* the share of the wave that is "on", its *phase* the step at which a wave starts.
Everything here is a pure function of the step, so a resumed run needs no state.
"""

from typing import Literal, TypedDict, TypeVar

from torch import Tensor

Selection = Literal[
    "pulse", "a", "b", "mix", "bernoulli", "blocks", "images", "soft_mean", "agreement", "none"
]
"""How the student's teacher is chosen after warm-up.

``pulse``: the square wave. ``a``, ``b``: always this one. ``mix``: both losses in every step.
``bernoulli``: a coin per step. ``blocks``: a coin per block as long as a pulse. ``images``: evenly
among the images of a batch. ``soft_mean``: the mean of both teachers' probabilities.
``agreement``: pixels on which their labels agree. ``none``: there is no student.
"""

Step = TypeVar("Step", int, Tensor)


class Wave(TypedDict):
    """Arguments of `pulse_signal` by name."""

    period: int
    duty: float
    phase: int
    warmup: int
    invert: bool


def pulse_width(period: int, duty: float) -> int:
    """Count the steps of a wave that are on: duty times period, rounded (halves upwards).

    Raises:
        ValueError: a period below 1 step, or a duty outside [0, 1].
    """
    if period < 1 or not 0 <= duty <= 1:
        raise ValueError(
            "period, duty: expected at least 1 step and a share in [0, 1], got "
            f"{period} and {duty}; a duty of 1/6 is 0.1667, not 6"
        )
    return int(duty * period + 0.5)


def pulse_signal(
    step: Step,
    period: int = 150,
    duty: float = 1 / 6,
    phase: int = 0,
    warmup: int = 1000,
    invert: bool = False,
) -> Step | bool:
    """Evaluate the selection signal: 1 selects teacher B (segmentation), 0 teacher A (CAM).

    s(t) = [t > warmup] [((t - phase) mod period) < round(duty period)]

    Args:
        step: 0-based; a number, or an integer tensor of many.
        period: steps.
        duty: share of a period that is on, [0, 1].
        phase: step at which a wave starts. Waves count from step 0, not from the end of warm-up.
        warmup: last step at which teacher A is selected in any case.
        invert: after warm-up, exchange the teachers.

    Returns:
        bool, or a bool tensor of the same shape.

    Source: released code, T=150 and N=6. There the signal is computed and never used.
    """
    on = (step - phase) % period < pulse_width(period, duty)
    return (on ^ invert) & (step > warmup)  # type: ignore[return-value]


def image_signal(
    step: int, images: int, period: int, duty: float, warmup: int = 1000, invert: bool = False
) -> list[bool]:
    """Spread the same duty evenly over images instead of steps.

    Image i of step t is number n = t images + i; of any `period` images in a row, exactly
    round(duty period) select teacher B. Ours, for an arm of the ablation.

    Args:
        step: 0-based.
        images: of a batch.
        period: images.
        duty: share of images that select teacher B, [0, 1].
        warmup: last step at which teacher A is selected in any case.
        invert: after warm-up, exchange the teachers.

    Returns:
        For each image of the batch, whether it selects teacher B.
    """
    width = pulse_width(period, duty)
    numbers = range(step * images, (step + 1) * images)
    on = [(n + 1) * width // period != n * width // period for n in numbers]
    return [(one != invert) and step > warmup for one in on]


def coin(number: int, seed: int) -> float:
    """Draw from [0, 1) uniformly, as a pure function of the arguments (SplitMix64)."""
    mask = 2**64 - 1
    z = ((seed + 1) * 0xD1342543DE82EF95 + (number + 1) * 0x9E3779B97F4A7C15) & mask
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
    return (z ^ (z >> 31)) / 2**64


def student_share(
    step: int,
    selection: Selection,
    *,
    period: int,
    duty: float,
    phase: int = 0,
    warmup: int = 1000,
    invert: bool = False,
    mix: float | None = None,
    seed: int = 0,
) -> float:
    """Compute the share of teacher B in the student's loss at a step; teacher A has the rest.

    0 up to and including step `warmup` whatever the selection.

    Args:
        step: 0-based.
        selection: not ``images``, which has one share per image (`image_signal`). ``soft_mean`` and
            ``agreement`` need teacher B in every step: 1.
        period: see `pulse_signal`.
        duty: see `pulse_signal`; also the chance of a coin and the default of `mix`.
        phase: see `pulse_signal`.
        warmup: see `pulse_signal`.
        invert: exchange the teachers.
        mix: share of teacher B under ``mix``; None takes the duty.
        seed: of the coins.

    Raises:
        ValueError: the selection is ``images``.
    """
    if selection == "images":
        raise ValueError("selection: 'images' has no share of a step; use image_signal")
    if step <= warmup or selection in ("a", "none"):
        return 0.0
    if selection in ("b", "soft_mean", "agreement"):
        return 1.0
    width = pulse_width(period, duty)
    if selection == "pulse":
        return float(pulse_signal(step, period, duty, phase, warmup, invert))
    if selection == "mix":
        share = width / period if mix is None else mix
        return 1 - share if invert else share
    # one coin a step, or one for each block of steps that is as long as a pulse
    number = step if selection == "bernoulli" else (step - phase) // max(1, width)
    return float((coin(number, seed) < width / period) != invert)
