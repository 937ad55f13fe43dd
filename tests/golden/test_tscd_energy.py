"""The dense energy against TSCD's regularisation loss."""

import pytest
import torch

from wsss_lab.cam import box_to_valid
from wsss_lab.refine import DenseEnergyLoss, Lattice, bilateral_features, exact_filter

MEAN = torch.tensor([123.675, 116.28, 103.53])[:, None, None]
STD = torch.tensor([58.395, 57.12, 57.375])[:, None, None]


@pytest.fixture
def recorded(golden):
    return {k: torch.from_numpy(v) for k, v in golden("tscd")("energy_loss.npz").items()}


def test_tscd_energy_and_gradient(recorded):
    z = recorded
    loss_of = DenseEnergyLoss()
    constants = loss_of.weight, loss_of.sigma_rgb, loss_of.sigma_xy, loss_of.scale
    assert constants == pytest.approx(z["params"].tolist(), rel=1e-6)
    logits = z["logits"].requires_grad_()
    valid = box_to_valid(z["img_box"], tuple(logits.shape[-2:]))
    loss = loss_of(logits.softmax(1), z["img"] * STD + MEAN, valid, z["label"])
    loss.backward()
    assert loss.item() == pytest.approx(z["loss"].item(), rel=1e-5)
    scale = z["grad_logits"].abs().max().item()
    torch.testing.assert_close(logits.grad, z["grad_logits"], rtol=1e-4, atol=1e-5 * scale)


def test_tscd_filter_and_its_ratio_to_the_exact_kernel(recorded):
    z = recorded
    _, sigma_rgb, sigma_xy, scale = z["params"].tolist()
    step = round(1 / scale)
    small = (z["img"] * STD + MEAN)[..., ::step, ::step]
    features = bilateral_features(small, sigma_xy * scale, sigma_rgb)
    segments = z["prob_half"] * z["roi_half"][:, None]
    out = Lattice(features).filter(segments)
    largest = z["filtered"].max().item()
    torch.testing.assert_close(out, z["filtered"], rtol=1e-4, atol=1e-5 * largest)
    exact = exact_filter(features.flatten(2), segments.flatten(2))
    wanted = z["filtered_exact_kernel"].flatten(2)
    torch.testing.assert_close(exact, wanted, rtol=1e-3, atol=1e-4)
