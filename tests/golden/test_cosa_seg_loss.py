"""Segmentation loss of CoSA's released code."""

import numpy as np
import pytest
import torch

from wsss_lab import IGNORE
from wsss_lab.losses import balanced_pixel_loss, pixel_loss


@pytest.mark.parametrize(("name", "weight"), [("seg_loss_a50", 0.5), ("seg_loss_a30", 0.3)])
def test_cosa_seg_loss(golden, name, weight):
    z = golden("cosa")("losses.npz")
    logits = torch.from_numpy(z["seg_pred"]).requires_grad_()
    loss = balanced_pixel_loss(logits, torch.from_numpy(z["mask_label"]).long(), weight)
    loss.backward()
    np.testing.assert_allclose(loss.item(), z[name], rtol=1e-6)
    np.testing.assert_allclose(logits.grad, z[f"{name}_grad"], rtol=1e-4, atol=1e-8)


def test_cosa_unbalanced_seg_loss(golden):
    z = golden("cosa")("losses.npz")
    logits = torch.from_numpy(z["seg_pred"]).requires_grad_()
    loss = pixel_loss(logits, torch.from_numpy(z["mask_label"]).long())
    loss.backward()
    np.testing.assert_allclose(loss.item(), z["seg_lossv2"], rtol=1e-6)
    np.testing.assert_allclose(logits.grad, z["seg_lossv2_grad"], rtol=1e-4, atol=1e-8)


def test_cosa_seg_loss_without_labels_or_foreground(golden):
    z = golden("cosa")("losses.npz")
    logits, label = torch.from_numpy(z["seg_pred"]), torch.from_numpy(z["mask_label"]).long()
    nothing = balanced_pixel_loss(logits, torch.full_like(label, IGNORE))
    np.testing.assert_allclose(nothing, z["seg_loss_allignore"], atol=1e-7)
    background = torch.where((label > 0) & (label != IGNORE), 0, label)
    found = balanced_pixel_loss(logits, background)
    np.testing.assert_allclose(found, z["seg_loss_nofg"], rtol=1e-5)
