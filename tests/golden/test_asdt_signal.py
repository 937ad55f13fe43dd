"""ASDT's selection signal against the authors' condition, on whole ranges."""

import re

import numpy as np
import torch

from wsss_lab.methods.asdt.released import released_wave
from wsss_lab.methods.asdt.signal import pulse_signal
from wsss_lab.runs.recipe import find_preset


def last_without_pulse(arrays):
    """The recorded warm-up: the last step before which no signal is ever on."""
    always_on = [v for k, v in arrays.items() if k.startswith("s_") and k.endswith("_N1")]
    return int(arrays["iters"][np.flatnonzero(always_on[0])[0]]) - 1


def test_asdt_signal(golden):
    arrays = golden("asdt")("pw_signal.npz")
    warmup = last_without_pulse(arrays)
    config = find_preset("asdt", "voc-released").method
    assert (config.period, config.duty) == released_wave(150, 6)
    assert (config.warmup, config.phase) == (warmup, 0)
    steps = torch.from_numpy(arrays["iters"])
    found = 0
    for name, wanted in arrays.items():
        match = re.fullmatch(r"s_T(\d+)_N(\d+)", name)
        if not match:
            continue
        found += 1
        period, duty = released_wave(*map(int, match.groups()))
        signal = pulse_signal(steps, period, duty, warmup=warmup)
        np.testing.assert_array_equal(signal.numpy(), wanted.astype(bool), err_msg=name)
        for step in range(0, len(steps), 997):  # a number instead of a tensor
            one = pulse_signal(int(steps[step]), period, duty, warmup=warmup)
            assert one == bool(wanted[step])
    assert found


def test_asdt_edges_of_pulses(golden):
    arrays = golden("asdt")("pw_signal.npz")
    warmup = last_without_pulse(arrays)
    steps = torch.from_numpy(arrays["iters"])
    names = [name for name in arrays if name.startswith("rise_")]
    assert names
    for name in names:
        T, N = map(int, re.fullmatch(r"rise_T(\d+)_N(\d+)", name).groups())
        signal = pulse_signal(steps, *released_wave(T, N), warmup=warmup).int()
        change = torch.diff(signal, prepend=torch.zeros(1, dtype=torch.int))
        np.testing.assert_array_equal(steps[change == 1], arrays[name])
        last = steps[:-1][change[1:] == -1]
        np.testing.assert_array_equal(last, arrays[f"last_on_T{T}_N{N}"][: len(last)])
