"""Alignment of the mirrored view and the losses on it, with their gradients."""

import numpy as np
import pytest
import torch

from wsss_lab.losses import tag_loss
from wsss_lab.methods.acr.alignment import align_attention
from wsss_lab.methods.acr.losses import activation_consistency, affinity_consistency
from wsss_lab.methods.acr.views import Flip

FILES = ["align_losses_p4.npz", "align_losses_p6.npz"]


@pytest.fixture(params=FILES)
def recorded(golden, request):
    arrays = golden("acr")(request.param)
    return {key: torch.from_numpy(np.asarray(value)) for key, value in arrays.items()}


def square(z):
    return (round((z["attn1"].shape[-1] - 1) ** 0.5),) * 2


def test_acr_permutation(recorded):
    grid = square(recorded)
    tokens = torch.arange(grid[0] * grid[1]).view(grid)
    assert torch.equal(Flip().move(tokens).flatten(), recorded["perm"])


def test_acr_alignment(recorded):
    aligned = align_attention(recorded["attn2"], Flip(), square(recorded))
    assert torch.equal(aligned[..., :1, 1:], recorded["attn2_cls_aligned"])
    assert torch.equal(aligned[..., 1:, 1:], recorded["attn2_aff_aligned"])
    assert torch.equal(recorded["attn1"][..., :1, 1:], recorded["attn1_cls"])


def test_acr_losses_and_gradients(recorded):
    z, grid = recorded, square(recorded)
    inputs = {k: z[k].clone().requires_grad_() for k in ("attn1", "attn2", "logits1", "logits2")}
    pair = inputs["attn1"], inputs["attn2"]
    parts = {
        "cls_align_loss": activation_consistency(*pair, Flip(), grid),
        "aff_align_loss": affinity_consistency(*pair, Flip(), grid),
        "cls_loss_1": tag_loss(inputs["logits1"], z["label"]),
        "cls_loss_2": tag_loss(inputs["logits2"], z["label"]),
    }
    for name, value in parts.items():
        torch.testing.assert_close(value.detach(), z[name], rtol=1e-5, atol=0)
    align = parts["cls_align_loss"] + parts["aff_align_loss"]
    loss = parts["cls_loss_1"] + parts["cls_loss_2"] + z["alpha"] * align
    torch.testing.assert_close(loss.detach(), z["loss"], rtol=1e-5, atol=0)
    loss.backward()
    for name, value in inputs.items():
        expected = z[f"grad_{name}"]
        tolerance = 1e-6 * expected.abs().max()
        torch.testing.assert_close(value.grad, expected, rtol=1e-4, atol=float(tolerance), msg=name)
