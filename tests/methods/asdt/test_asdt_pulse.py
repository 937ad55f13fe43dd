"""The selection signal by hand, and its rivals at the same duty."""

import pytest
import torch

from wsss_lab.methods.asdt.released import released_wave
from wsss_lab.methods.asdt.signal import (
    coin,
    image_signal,
    pulse_signal,
    pulse_width,
    student_share,
)


def test_pulse_by_hand():
    on = [t for t in range(40) if pulse_signal(t, period=10, duty=0.3, phase=2, warmup=13)]
    assert on == [14, 22, 23, 24, 32, 33, 34]
    off = [t for t in range(14, 40) if not pulse_signal(t, 10, 0.3, 2, 13, invert=True)]
    assert off == on
    assert not any(pulse_signal(t, 10, 0.3, 2, 13, invert=True) for t in range(14))
    steps = torch.arange(40)
    wave = pulse_signal(steps, 10, 0.3, 2, 13)
    assert wave.dtype == torch.bool
    assert steps[wave].tolist() == on


@pytest.mark.parametrize(("T", "N"), [(150, 6), (150, 7), (7, 3), (5, 5), (9, 1)])
def test_pulse_is_the_released_condition(T, N):
    period, duty = released_wave(T, N)
    for t in range(700):
        assert pulse_signal(t, period, duty, warmup=100) == (t > 100 and (t // (T // N)) % N == 0)


def test_signal_refuses_nonsense():
    with pytest.raises(ValueError, match="duty"):
        pulse_width(150, 6.0)
    with pytest.raises(ValueError, match="T, N"):
        released_wave(3, 6)
    with pytest.raises(ValueError, match="image_signal"):
        student_share(5, "images", period=6, duty=0.5)


def test_all_selections_have_the_same_duty():
    period, duty, warmup, steps = 150, 1 / 6, 1000, range(1001, 1001 + 30_000)
    wave = {"period": period, "duty": duty, "warmup": warmup}
    for selection, wide in (("pulse", 0), ("mix", 1e-6), ("bernoulli", 0.01), ("blocks", 0.03)):
        shares = [student_share(t, selection, **wave) for t in steps]
        assert sum(shares) / len(shares) == pytest.approx(duty, abs=wide + 1e-9), selection
        assert student_share(warmup, selection, **wave) == 0
        inverted = student_share(1001, selection, **wave, invert=True)
        assert inverted == pytest.approx(1 - shares[0])
    images = [one for t in steps[:300] for one in image_signal(t, 4, period, duty, warmup)]
    assert sum(images) == 200
    assert not any(image_signal(warmup, 4, period, duty, warmup))
    blocks = [student_share(t, "blocks", **wave) for t in range(1025, 1050)]
    assert len(set(blocks)) == 1
    assert {student_share(t, "a", **wave) for t in steps[:50]} == {0.0}
    assert {student_share(t, "b", **wave) for t in steps[:50]} == {1.0}
    assert student_share(2000, "mix", **wave, mix=0.5) == 0.5
    assert coin(1, 0) != coin(1, 1)
