"""The dense energy against CoSA's regularisation loss."""

import pytest
import torch

from wsss_lab.cam import box_to_valid
from wsss_lab.refine import DenseEnergyLoss, Lattice, bilateral_features, confidence_gate

MEAN = torch.tensor([123.675, 116.28, 103.53])[:, None, None]
STD = torch.tensor([58.395, 57.12, 57.375])[:, None, None]


@pytest.fixture
def recorded(golden):
    return {k: torch.from_numpy(v) for k, v in golden("cosa")("energy_loss.npz").items()}


def test_cosa_energy_and_gradient(recorded):
    z = recorded
    logits = z["logit"].requires_grad_()
    valid = box_to_valid(z["img_box"], tuple(logits.shape[-2:]))
    images = z["img_norm"] * STD + MEAN
    loss = DenseEnergyLoss()(logits.softmax(1), images, valid, z["label"].long())
    loss.backward()
    assert loss.item() == pytest.approx(z["loss"].item(), rel=1e-5)
    scale = z["grad_logit"].abs().max().item()
    torch.testing.assert_close(logits.grad, z["grad_logit"], rtol=1e-4, atol=1e-5 * scale)


def test_cosa_gate_and_filter(recorded):
    """`seg_masked` is stored in half precision, so the filter's result is close, not equal."""
    z = recorded
    probs = torch.nn.functional.avg_pool2d(z["logit"].softmax(1), 2)
    labels = z["label"][:, ::2, ::2]
    torch.testing.assert_close(confidence_gate(probs, z["scaled_roi"], labels), z["gate"])
    out = Lattice(bilateral_features(z["scaled_img"], 50, 15)).filter(z["seg_masked"])
    torch.testing.assert_close(out, z["AS"], rtol=2e-3, atol=1e-3)
