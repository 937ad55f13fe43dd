"""The dense energy against ASDT's, with both ways PyTorch has halved odd sizes."""

import pytest
import torch
import torch.nn.functional as F

from wsss_lab.refine import DenseEnergyLoss
from wsss_lab.runs.recipe import find_preset


@pytest.mark.parametrize("sampling", ["legacy", "modern"])
def test_asdt_energy_and_gradient(golden, sampling):
    z = {k: torch.from_numpy(v) for k, v in golden("asdt")("joint_loss.npz").items()}
    config = find_preset("asdt", "voc-released").method
    assert config.energy_weight == pytest.approx(float(z["weight"]))
    loss_of = DenseEnergyLoss(
        config.energy_weight,
        config.energy_sigma_rgb,
        config.energy_sigma_xy,
        old_resize=sampling == "legacy",
    )
    cases = [name[:-4] for name in z if name.endswith("_ori")]
    assert cases
    for case in cases:
        logits, image = z[f"{case}_seg"].requires_grad_(), z[f"{case}_ori"]
        full = F.interpolate(logits, image.shape[-2:], mode="bilinear", align_corners=False)
        valid, labels = z[f"{case}_cropping"].bool(), z[f"{case}_seg_label"]
        loss = loss_of(full.softmax(1), image, valid, labels)
        loss.backward()
        assert loss.item() == pytest.approx(float(z[f"{case}_dense_{sampling}"]), rel=1e-5)
        wanted = z[f"{case}_g_dense_{sampling}"]
        scale = wanted.abs().max().item()
        torch.testing.assert_close(logits.grad, wanted, rtol=1e-4, atol=1e-5 * scale)
