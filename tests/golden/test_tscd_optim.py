"""Learning rates and AdamW of TSCD's released code."""

import dataclasses

import numpy as np
import pytest
import torch

from wsss_lab.methods.tscd.config import OPTIM
from wsss_lab.runs.recipe import RECIPES, find_preset
from wsss_lab.train.optim import build_optimizer, lr_factor, set_learning_rate


def released_groups(config):
    with torch.device("meta"):
        method = RECIPES["tscd"].build(config, 20, False)
    optim = config.optim
    return method.param_groups(optim.lr, optim.lr * optim.head_lr_factor, optim.weight_decay)


@pytest.mark.parametrize("name", ["voc", "coco"])
def test_tscd_learning_rates(golden, name):
    z = golden("tscd")(f"lr_schedule_{name}.npz")
    config = find_preset("tscd", f"{name}-released")
    optim, steps = config.optim, config.run.steps
    assert steps == int(z["max_iter"])
    rates = [group["lr"] for group in released_groups(config)]
    np.testing.assert_allclose(rates, z["base_lr_f64"], rtol=1e-12)
    factors = np.array([lr_factor(int(step), steps, optim) for step in z["step"]])
    np.testing.assert_allclose(
        factors[:, None] * z["base_lr_f64"], z["lr_f64"], rtol=1e-9, atol=1e-18
    )


def test_tscd_adamw_trajectory_runs_past_the_end_of_the_schedule(golden):
    z = golden("tscd")("adamw_trajectory.npz")
    optim = dataclasses.replace(OPTIM, warmup=int(z["warmup_iter"]))
    weight = torch.nn.Parameter(torch.from_numpy(z["p0"].copy()))
    head_lr = optim.lr * optim.head_lr_factor
    groups = [{"params": [weight], "lr": head_lr, "weight_decay": optim.weight_decay}]
    optimizer = build_optimizer(groups, optim)
    for step, grad in enumerate(z["grads"]):
        set_learning_rate(optimizer, lr_factor(step, int(z["max_iter"]), optim))
        weight.grad = torch.from_numpy(grad)
        optimizer.step()
        np.testing.assert_allclose(weight.detach(), z["params_after"][step], rtol=0, atol=1e-6)
