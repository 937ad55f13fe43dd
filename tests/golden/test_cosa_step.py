"""CoSA: one whole training iteration in warm-up and in the main phase."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from test_cosa_maps import tiny_network

from wsss_lab.methods.cosa.config import PRESETS, RELEASED
from wsss_lab.methods.cosa.keymap import KEYMAP
from wsss_lab.methods.cosa.method import CoSA
from wsss_lab.models.keymaps import rename

TEACHER_SHARE, DECAY, WEIGHT_DECAY = 0.9, 0.9994, 0.01  # from the description of the arrays
PHASES = ("warm", "main")


def released_name(names):
    """Name in our online network -> name in the recorded arrays."""
    table = {}
    for old in names:
        if old.startswith("encoder.head."):
            continue
        (new,) = rename({old: torch.zeros(1)}, KEYMAP)
        table[new.replace("/", ".")] = old
    return table


class Iteration:
    """The recorded iteration, repeated with our method."""

    def __init__(self, golden, phase, **changes):
        self.z = golden("cosa")("train_step.npz")
        weights = golden("cosa")("tiny_weights.npz")
        names = golden("cosa")("train_step_param_names.txt").read_text().split()
        self.names, self.phase = names, phase
        network = tiny_network(weights)
        config = replace(
            PRESETS["voc-released"],
            hidden=network.seg_head.conv1.out_channels,
            decay=DECAY,
            low=0.25,
            high=0.7,
            aux_low=0.25,
            aux_high=0.7,
            **changes,
        )
        self.method = method = CoSA(network.backbone, network.tag_head.linear.out_features, config)
        method.online.load_state_dict(network.state_dict())
        slow = {key: TEACHER_SHARE * value for key, value in network.state_dict().items()}
        method.assignment.network.load_state_dict(slow)
        one = torch.ones(3, 1, 1)
        used = network.backbone.input_mean, network.backbone.input_std
        mean, std = (one * torch.tensor(v)[:, None, None] for v in used)
        self.batch = {
            "images": torch.from_numpy(self.z["wimg"]) * std + mean,
            "strong": torch.from_numpy(self.z["simg"]) * std + mean,
            "tags": torch.from_numpy(self.z["cls_labels"]),
            "boxes": torch.from_numpy(self.z["img_box"]).long(),
        }
        method.train()
        self.step = int(self.z[f"{phase}_n_iter"])
        self.out = method.training_step(self.batch, self.step)

    def recorded(self, name):
        return torch.from_numpy(np.atleast_1d(self.z[f"{self.phase}_{name}"]))


@pytest.fixture(params=PHASES)
def iteration(request, golden):
    return Iteration(golden, request.param)


def test_cosa_step_losses(iteration):
    """Recorded: cls, cls_aux, seg(final), seg(aux), seg, cam, reg, total."""
    losses = dict(
        zip(
            ("tags", "aux_tags", "_", "_", "seg", "cam", "energy", "total"),
            iteration.recorded("losses"),
            strict=True,
        )
    )
    parts = iteration.out.parts
    for name in set(parts) & set(losses):
        torch.testing.assert_close(parts[name].detach(), losses[name], rtol=2e-5, atol=1e-8)
    assert {"tags", "aux_tags", "seg", "cam", "energy"} <= set(parts)
    total = iteration.out.loss.detach()
    torch.testing.assert_close(total, losses["total"], rtol=1e-5, atol=1e-6)


def test_cosa_step_assignments(golden):
    """Labels and targets of the teacher; the arrays store three classes of the maps."""
    it = Iteration(golden, "main")
    labels = it.out.panels["labels"]
    for i, name in enumerate(("label", "label_aux")):
        wrong = labels[:, i] != torch.from_numpy(it.z[name]).long()
        assert wrong.float().mean() < 1e-3, name
    target = torch.from_numpy(it.z["seg_target"]).float()
    small = torch.nn.functional.interpolate(
        target[:, 1:], it.out.panels["target"].shape[-2:], mode="bilinear"
    )
    index = it.out.panels["classes"][:, :, None, None].expand_as(it.out.panels["target"])
    torch.testing.assert_close(it.out.panels["target"], small.gather(1, index), rtol=0, atol=3e-3)


def test_cosa_step_gradients(iteration):
    iteration.out.loss.backward()
    own = dict(iteration.method.online.named_parameters())
    norms = dict(zip(iteration.names, iteration.recorded("gradnorms"), strict=True))
    compared = 0
    for name, old in released_name(iteration.names).items():
        if not own[name].requires_grad:
            assert norms[old] < 0, old  # -1: no gradient
            continue
        grad = own[name].grad
        torch.testing.assert_close(grad.norm(), norms[old], rtol=2e-3, atol=1e-7, msg=old)
        if f"{iteration.phase}_grad__{old}" in iteration.z:
            expected = iteration.recorded(f"grad__{old}").view_as(grad)
            scale = float(expected.abs().max())
            torch.testing.assert_close(grad, expected, rtol=1e-3, atol=5e-4 * scale + 1e-12)
            compared += 1
    assert compared


@pytest.mark.parametrize("skip", [False, True])
@pytest.mark.parametrize("phase", PHASES)
def test_cosa_step_weights_and_teacher(golden, phase, skip):
    """AdamW and the slow average; the same whether warm-up runs the teacher or not."""
    it = Iteration(golden, phase, quirks=replace(RELEASED, full_warmup=not skip))
    it.out.loss.backward()
    groups = it.method.param_groups(0.0, 0.0, WEIGHT_DECAY)
    for group, lr in zip(groups, it.recorded("lr"), strict=True):
        group["lr"] = float(lr)
    torch.optim.AdamW(groups).step()
    it.method.after_step(it.step)
    table = released_name(it.names)
    networks = {"new": it.method.online, "ema": it.method.assignment.network}
    grads = {name: weight.grad for name, weight in it.method.online.named_parameters()}
    lr = float(it.recorded("lr").max())
    compared = 0
    for kind, network in networks.items():
        state = network.state_dict()
        for name, old in table.items():
            if f"{phase}_{kind}__{old}" not in it.z:
                continue
            error = (state[name] - it.recorded(f"{kind}__{old}").view_as(state[name])).abs()
            # the first step of AdamW is as large as the learning rate in every entry, however
            # small the gradient: where that is 0 or rounding (biases of keys), its sign is open
            grad = grads[name]
            assert error.max() < 2.1 * lr, (kind, old)  # opposite signs at worst
            if grad is not None and grad.any():
                error = error[grad.abs() > 1e-4 * grad.abs().max()]
                assert len(error) > 0.6 * grad.numel(), old
            assert error.max() < 1e-2 * lr + 2e-7, (kind, old)
            compared += 1
    for key in it.z:  # the first filters of a large weight
        if key.startswith(f"{phase}_new_sub__"):
            (name,) = [n for n, old in table.items() if key.endswith(f"__{old}")]
            part = it.recorded(key.removeprefix(f"{phase}_"))
            error = (networks["new"].state_dict()[name][: len(part)] - part).abs()
            assert error.max() < 2.01 * lr, key
            assert error.median() < 1e-2 * lr, key
    assert compared
