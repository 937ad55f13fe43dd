"""Four steps of the authors' training, from the recorded start to the recorded end."""

import numpy as np
import torch
from acr_models import build_acr, released_state

from wsss_lab.methods.acr.keymap import KEYMAP
from wsss_lab.methods.acr.views import Flip
from wsss_lab.models.keymaps import split_checkpoint


def test_acr_trajectory(golden):
    arrays = golden("acr")("train_trajectory.npz")
    model = build_acr(golden, "vit", alpha=float(arrays["alpha"])).train()
    base, limit = float(arrays["base_lr"]), int(arrays["max_step"])
    groups = model.param_groups(base, base, 0.0)
    optimizer = torch.optim.SGD(groups, base, momentum=5e-4)
    frozen = model.backbone.net.norm.weight.clone()
    losses = []
    for step, (images, labels) in enumerate(zip(arrays["imgs"], arrays["labels"], strict=True)):
        for group in optimizer.param_groups:
            group["lr"] = base * (1 - min(step, limit - 1) / limit) ** 0.9
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
