"""Losses against loops and PyTorch."""

import pytest
import torch
import torch.nn.functional as F

from wsss_lab import IGNORE
from wsss_lab.methods.asdt.losses import (
    first_part,
    fused_probs,
    hard_distillation,
    soft_distillation,
    two_part_ce,
)


def test_two_part_ce_by_loops():
    torch.manual_seed(0)
    logits, labels = torch.randn(2, 4, 6, 6), torch.randint(0, 4, (2, 6, 6))
    labels[0, 0] = IGNORE
    first = first_part(4, background=False, things=2)
    log_probs, sums = logits.log_softmax(1), {True: [], False: []}
    for n, y, x in (labels != IGNORE).nonzero().tolist():
        label = int(labels[n, y, x])
        sums[label < 2].append(-log_probs[n, label, y, x])
    wanted = torch.stack(sums[True]).mean() + torch.stack(sums[False]).mean()
    torch.testing.assert_close(two_part_ce(logits, labels, first), wanted)


def test_soft_distillation():
    torch.manual_seed(0)
    logits = torch.randn(2, 4, 3, 3, requires_grad=True)
    q = torch.rand(2, 2, 6, 6).softmax(1)
    classes = torch.tensor([[0, 3], [0, 1]])
    mask = torch.rand(2, 6, 6) > 0.5
    loss = soft_distillation(logits, q, classes, mask, temperature=2.0)
    full = torch.zeros(2, 4, 6, 6)
    for n in range(2):
        full[n, classes[n]] = q[n]
    up = F.interpolate(logits, (6, 6), mode="bilinear") / 2
    each = F.kl_div(up.log_softmax(1), full, reduction="none").sum(1)
    torch.testing.assert_close(loss, 4 * each[mask].mean())
    itself = soft_distillation(full.clamp(min=1e-12).log(), q, classes, mask)
    assert itself.item() == pytest.approx(0, abs=1e-6)
    assert soft_distillation(logits, q, classes, mask & False).item() == 0


def test_confidence_masks_pixels():
    torch.manual_seed(0)
    logits, label = torch.randn(1, 3, 4, 4), torch.randint(0, 3, (1, 4, 4))
    confidence = torch.rand(1, 4, 4)
    masked = hard_distillation(logits, label, confidence, 0.5)
    each = F.cross_entropy(logits, label, reduction="none")
    torch.testing.assert_close(masked, each[confidence >= 0.5].mean())


def test_fused_probs():
    torch.manual_seed(0)
    one, two = torch.randn(2, 1, 3, 4, 4)
    fused = fused_probs(one, two, (8, 8))
    assert (fused.sum(1) >= 1 - 1e-6).all()
    torch.testing.assert_close(fused_probs(one, one, (4, 4)), one.softmax(1))
