"""ASDT's two-part cross-entropy and its commented-out student term, with gradients."""

import pytest
import torch

from wsss_lab.methods.asdt.losses import first_part, hard_distillation, two_part_ce
from wsss_lab.runs.recipe import find_preset


def test_asdt_two_part_ce(golden):
    z = {k: torch.from_numpy(v) for k, v in golden("asdt")("joint_loss.npz").items()}
    cases = [name[:-4] for name in z if name.endswith("_ori")]
    assert cases
    for case in cases:
        logits, labels = z[f"{case}_seg"].requires_grad_(), z[f"{case}_seg_label"].long()
        first = first_part(logits.shape[1], background=True)
        loss = two_part_ce(logits, labels, first)
        loss.backward()
        assert loss.item() == pytest.approx(float(z[f"{case}_ce"]), rel=1e-5)
        torch.testing.assert_close(logits.grad, z[f"{case}_g_ce"], atol=1e-6, rtol=0)


def test_asdt_distillation_in_a_pulse(golden):
    z = {k: torch.from_numpy(v) for k, v in golden("asdt")("distill_pulse.npz").items()}
    logits = z["student_logits"].requires_grad_()
    weight = find_preset("asdt", "voc").method.kd_weight
    assert weight == pytest.approx(float(z["w_pgt"]))
    loss = weight * hard_distillation(logits, z["teacher2_label"].long())
    loss.backward()
    assert loss.item() == pytest.approx(float(z["loss"]), rel=1e-5)
    torch.testing.assert_close(logits.grad, z["grad"], atol=1e-6, rtol=0)
