"""Learning rates and SGD of ASDT's released code: a momentum of 1e-5, and a frozen last rate."""

import dataclasses

import numpy as np
import torch

from wsss_lab.methods.asdt.config import OPTIM
from wsss_lab.train.optim import build_optimizer, lr_factor, set_learning_rate


def test_asdt_optimizer(golden):
    z = golden("asdt")("optimizer.npz")
    steps, rates = z["step_and_lr"][:, 0].astype(int), z["step_and_lr"][:, 1:]
    optim = dataclasses.replace(OPTIM, decay_steps=int(steps[-1]))
    peaks = rates[0]
    weights = [torch.nn.Parameter(torch.tensor([1.0, -2.0])) for _ in peaks]
    decays = [optim.weight_decay, 0.0] * (len(peaks) // 2)  # weights decay, biases do not
    groups = [
        {"params": [weight], "lr": lr, "weight_decay": decay}
        for weight, lr, decay in zip(weights, peaks, decays, strict=True)
    ]
    optimizer = build_optimizer(groups, optim)
    grads = [
        [torch.tensor([0.3 * (j + 1), -0.1]) * (1 + 0.01 * swing) for j in range(len(peaks))]
        for swing in range(7)
    ]
    recorded = dict(zip(steps.tolist(), range(len(steps)), strict=True))
    for step in range(steps[-1] + 1):
        set_learning_rate(optimizer, lr_factor(step, steps[-1] + 1, optim))
        for weight, grad in zip(weights, grads[step % 7], strict=True):
            weight.grad = grad
        optimizer.step()
        if (row := recorded.get(step)) is not None:
            lrs = [group["lr"] for group in optimizer.param_groups]
            np.testing.assert_allclose(lrs, rates[row], rtol=1e-9)
            found = torch.stack([weight.detach() for weight in weights])
            np.testing.assert_allclose(found, z["params"][row], rtol=2e-5, atol=1e-5)
