"""Learning rates and SGD of ACR's released code: a momentum of 5e-4, and no weight decay."""

import dataclasses

import numpy as np
import pytest
import torch

from wsss_lab.runs.recipe import find_preset
from wsss_lab.train.optim import build_optimizer, lr_factor, set_learning_rate


def settings(z, total):
    """The preset's; only the number of steps is that of the recording."""
    optim = find_preset("acr", "voc-released").optim
    for name, ours in (
        ("base_lr", optim.lr),
        ("momentum", optim.momentum),
        ("weight_decay", optim.weight_decay),
        ("poly_power", optim.power),
    ):
        assert ours == pytest.approx(float(z[name]), rel=1e-6), name
    return dataclasses.replace(optim, decay_steps=int(z[total]))


def test_acr_learning_rates(golden):
    z = golden("acr")("lr_schedule.npz")
    for steps, rates, total in (
        (range(len(z["small_lr"])), z["small_lr"], "small_max_step"),
        (z["voc_steps"], z["voc_lr"], "voc_max_step"),
    ):
        optim = settings(z, total)
        if total == "voc_max_step":
            assert optim == find_preset("acr", "voc-released").optim
        found = [optim.lr * lr_factor(int(step), int(z[total]) + 1, optim) for step in steps]
        np.testing.assert_allclose(found, rates, rtol=1e-9)


def test_acr_sgd_trajectory(golden):
    z = golden("acr")("lr_schedule.npz")
    optim = settings(z, "small_max_step")
    weight = torch.nn.Parameter(torch.tensor([1.0, -2.0]))
    groups = [{"params": [weight], "lr": optim.lr, "weight_decay": optim.weight_decay}]
    optimizer = build_optimizer(groups, optim)
    for i, expected in enumerate(z["small_params"]):
        set_learning_rate(optimizer, lr_factor(i, len(z["small_params"]), optim))
        weight.grad = torch.tensor([0.3 * np.cos(0.7 * i), 0.1 * (i % 5 - 2)], dtype=torch.float32)
        optimizer.step()
        np.testing.assert_allclose(weight.detach(), expected, rtol=1e-5, atol=1e-6)
