"""Schedules and optimisers; the released codes' numbers are in tests/golden."""

import dataclasses
import itertools
import math

import pytest
import torch

from wsss_lab.config import OptimConfig
from wsss_lab.methods.acr.config import COCO_OPTIM, VOC_OPTIM
from wsss_lab.methods.asdt.config import OPTIM as ASDT
from wsss_lab.methods.cosa.config import OPTIM as COSA
from wsss_lab.methods.tscd.config import OPTIM as TSCD
from wsss_lab.train.optim import build_optimizer, lr_factor, warmup_steps


def factors(total, optim):
    return [lr_factor(step, total, optim) for step in range(total)]


def test_it_rises_then_falls_to_zero():
    found = factors(100, OptimConfig(warmup=0.1))
    assert found[:10] == pytest.approx([(i + 1) / 10 for i in range(10)])
    assert all(a >= b for a, b in itertools.pairwise(found[10:]))
    assert found[-1] < 0.001


def test_cosine_is_half_a_cosine():
    optim = OptimConfig(warmup=0)
    expected = [0.5 + 0.5 * math.cos(math.pi * step / 50) for step in range(50)]
    assert factors(50, optim) == pytest.approx(expected, abs=1e-6)


def test_poly_and_constant():
    poly = OptimConfig(schedule="poly", power=0.5, warmup=0)
    assert factors(4, poly) == pytest.approx([1, 0.75**0.5, 0.5**0.5, 0.25**0.5])
    assert factors(4, OptimConfig(schedule="constant", warmup=2)) == [0.5, 1, 1, 1]


@pytest.mark.parametrize(
    ("warmup", "expected"), [(0, 0), (0.08, 8), (0.001, 1), (1, 1), (30, 30), (0.999, 100)]
)
def test_warmup_is_a_share_below_one_and_a_number_from_one(warmup, expected):
    assert warmup_steps(100, OptimConfig(warmup=warmup)) == expected


@pytest.mark.parametrize("optim", [OptimConfig(), TSCD, COSA, ASDT, VOC_OPTIM, COCO_OPTIM])
@pytest.mark.parametrize("total", [1, 7, 2000])
def test_every_preset_stays_in_range_and_keeps_its_last_rate(optim, total):
    assert all(0 <= factor <= 1 for factor in factors(total, optim))
    end = optim.decay_steps or total
    assert lr_factor(end + 5, total, optim) == lr_factor(end - 1, total, optim)


def test_counting_the_decay_from_the_start_makes_the_rate_drop():
    optim = dataclasses.replace(TSCD, warmup=50)
    found = factors(100, optim)
    assert found[0] == pytest.approx(1e-6)
    assert found[49] == pytest.approx(0.98, abs=1e-5)
    assert found[50] == 0.5
    smooth = factors(100, dataclasses.replace(optim, decay_from="warmup"))
    assert smooth[50] == 1


def test_the_schedules_length_can_differ_from_the_runs():
    optim = OptimConfig(schedule="poly", warmup=0, decay_steps=10)
    assert lr_factor(10, 11, optim) == lr_factor(9, 11, optim) > 0


@pytest.mark.parametrize("optim", [OptimConfig(), OptimConfig(name="sgd")], ids=["adamw", "sgd"])
def test_fused_and_plain_optimisers_agree_and_a_masked_step_does_nothing(optim):
    start = torch.randn(5, 4)
    weights = [torch.nn.Parameter(start.clone()) for _ in range(2)]
    plain, fused = (
        build_optimizer([{"params": [w], "lr": 0.1, "weight_decay": 0.1}], optim, fused=fused)
        for w, fused in zip(weights, (False, True), strict=True)
    )
    for masked in (True, False, True, False, False):
        grad = torch.full_like(start, torch.nan) if masked else torch.randn(5, 4)
        weights[1].grad, fused.found_inf = grad, torch.tensor(float(masked))
        fused.step()
        if not masked:
            weights[0].grad = grad
            plain.step()
        torch.testing.assert_close(weights[0], weights[1], rtol=1e-5, atol=1e-6)
    assert not torch.equal(weights[0], start)


def test_nothing_to_train_is_refused():
    with pytest.raises(ValueError, match="expected parameters to train, got none"):
        build_optimizer([{"params": [], "lr": 1.0, "weight_decay": 0.0}], OptimConfig())


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("lr", -1.0, "lr: expected at least 0, got -1.0"),
        ("lr", math.nan, "lr: expected at least 0, got nan"),
        ("clip", -2.0, "clip: expected at least 0"),
        ("warmup", -0.1, "warmup: expected at least 0"),
        ("warmup_start", 2.0, r"warmup_start: expected a number in \[0, 1\]"),
        ("betas", (0.9, 1.0), r"betas: expected a number in \[0, 1\)"),
        ("name", "adam", "name: expected one of adamw, sgd, got 'adam'"),
        ("schedule", "step", "schedule: expected one of cosine, poly, constant"),
        ("decay_from", "end", "decay_from: expected one of warmup, start"),
    ],
)
def test_bad_settings(field, value, message):
    with pytest.raises(ValueError, match=message):
        OptimConfig(**{field: value})
