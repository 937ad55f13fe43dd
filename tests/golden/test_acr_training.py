"""Four steps of the authors' training, from the recorded start to the recorded end."""

from dataclasses import replace

import numpy as np
import torch
from acr_models import build_acr, released_state

from wsss_lab.methods.acr.keymap import KEYMAP
from wsss_lab.methods.acr.views import Flip
from wsss_lab.models.keymaps import split_checkpoint
from wsss_lab.runs.recipe import find_preset
from wsss_lab.train.optim import build_optimizer, lr_factor, set_learning_rate


def test_acr_trajectory(golden):
    arrays = golden("acr")("train_trajectory.npz")
    preset = find_preset("acr", "voc-released")
    model = build_acr(golden, "vit", alpha=preset.method.alpha).train()
    optim = replace(preset.optim, decay_steps=int(arrays["max_step"]))
    constants = [preset.method.alpha, optim.lr]
    np.testing.assert_allclose(constants, [arrays["alpha"], arrays["base_lr"]], rtol=1e-6)
    groups = model.param_groups(optim.lr, optim.lr * optim.head_lr_factor, optim.weight_decay)
    optimizer = build_optimizer(groups, optim)
    frozen = model.backbone.net.norm.weight.clone()
    losses = []
    for step, (images, labels) in enumerate(zip(arrays["imgs"], arrays["labels"], strict=True)):
        set_learning_rate(optimizer, lr_factor(step, len(arrays["imgs"]), optim))
        output = model.losses(torch.from_numpy(images), torch.from_numpy(labels), Flip())
        optimizer.zero_grad()
        output.loss.backward()
        optimizer.step()
        losses.append(output.loss.item())
    np.testing.assert_allclose(losses, arrays["loss"], rtol=1e-4)
    final = split_checkpoint(released_state(arrays, "final__"), KEYMAP)
    compare(model.backbone.state_dict(), final["backbone"])
    compare(model.head.state_dict(), final["tag_head"])
    assert torch.equal(model.backbone.net.norm.weight, frozen)


def compare(mine, theirs):
    assert set(mine) == set(theirs)
    for key, value in theirs.items():
        top = float(value.abs().max())
        torch.testing.assert_close(mine[key], value, rtol=1e-4, atol=1e-4 * top, msg=key)
