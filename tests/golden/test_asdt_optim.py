"""Learning rates and SGD of ASDT's released code: a momentum of 1e-5, and a frozen last rate."""

import numpy as np
import torch

from wsss_lab.runs.recipe import RECIPES, find_preset
from wsss_lab.train.optim import build_optimizer, lr_factor, set_learning_rate


def test_asdt_optimizer(golden):
    z = golden("asdt")("optimizer.npz")
    steps, rates = z["step_and_lr"][:, 0].astype(int), z["step_and_lr"][:, 1:]
    preset = find_preset("asdt", "voc-released")
    optim = preset.optim
    assert (optim.decay_steps, preset.run.steps) == (steps[-1], steps[-1] + 1)
    with torch.device("meta"):
        method = RECIPES["asdt"].build(preset, 20, False)
    head_lr = optim.lr * optim.head_lr_factor
    released = method.param_groups(optim.lr, head_lr, optim.weight_decay)
    peaks = [group["lr"] for group in released]
    decays = [group["weight_decay"] for group in released]
    np.testing.assert_allclose(peaks, rates[0], rtol=1e-9)
    weights = [torch.nn.Parameter(torch.tensor([1.0, -2.0])) for _ in peaks]
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
