"""Segmentation loss of TSCD's released code; where that gives NaN, ours gives its sound half."""

import numpy as np
import torch

from wsss_lab.losses import balanced_pixel_loss


def test_tscd_seg_loss(golden):
    z = golden("tscd")("seg_loss.npz")
    logits = torch.from_numpy(z["logits"]).requires_grad_()
    loss = balanced_pixel_loss(logits, torch.from_numpy(z["label"]).long(), align_corners=True)
    loss.backward()
    np.testing.assert_allclose(loss.item(), z["loss"], rtol=1e-6)
    np.testing.assert_allclose(logits.grad, z["grad"], rtol=1e-4, atol=1e-8)


def test_tscd_seg_loss_of_one_sided_crops(golden):
    z = golden("tscd")("seg_loss.npz")
    label = torch.from_numpy(z["label"]).long()
    for value, recorded in ((0, "loss_only_bg"), (1, "loss_only_fg")):
        logits = torch.from_numpy(z["logits"]).requires_grad_()
        loss = balanced_pixel_loss(logits, torch.full_like(label, value))
        loss.backward()
        assert np.isnan(z[recorded])
        half = -0.5 * logits.log_softmax(1)[:, value].mean()
        torch.testing.assert_close(loss, half)
        assert torch.isfinite(logits.grad).all()
