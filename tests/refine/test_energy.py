"""The dense energy: value, both gradients, region, gate, input checks."""

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from wsss_lab.refine import (
    DenseEnergyLoss,
    Lattice,
    bilateral_energy,
    bilateral_features,
    confidence_gate,
    exact_filter,
)


def batch(b=2, k=4, h=16, w=20):
    images = (120 + 30 * torch.randn(b, 3, 4, 5)).clamp(0, 255)
    images = images.repeat_interleave(h // 4, 2).repeat_interleave(w // 5, 3)
    probs = (2 * torch.randn(b, k, h, w)).softmax(1)
    valid = torch.ones(b, h, w, dtype=torch.bool)
    valid[0, :6] = False
    labels = torch.randint(0, k, (b, h, w))
    labels[:, :, ::3] = 255
    return probs, images, valid, labels


def by_hand(probs, images, roi, labels, xy, rgb):
    """Value and released gradient, image by image and class by class."""
    value, grads = 0.0, []
    for p, image, r, y in zip(probs, images, roi, labels, strict=True):
        gate = (r - p.max(0).values).clamp(min=0)
        gate[y == 255] = 1
        lattice = Lattice(bilateral_features(image[None], xy, rgb))
        grad = []
        for channel in p:
            smooth = lattice.filter((channel * r)[None, None])[0, 0]
            value -= float((channel * r * gate * smooth).sum()) / len(probs)
            grad.append(-2 / len(probs) * gate * smooth * r)
        grads.append(torch.stack(grad))
    return value, torch.stack(grads)


def test_value_and_released_gradient():
    probs, images, valid, labels = batch()
    roi = valid.float()
    probs.requires_grad_()
    energy = bilateral_energy(probs, images, roi, labels, sigma_xy=10, sigma_rgb=15)
    (3 * energy).backward()
    value, grad = by_hand(probs.detach(), images, roi, labels, 10, 15)
    assert energy.item() == pytest.approx(value, rel=1e-5)
    torch.testing.assert_close(probs.grad, 3 * grad)


def test_the_loss_is_the_energy_at_half_size():
    probs, images, valid, labels = batch()
    loss = DenseEnergyLoss(weight=1e-3, sigma_rgb=12, sigma_xy=30)(probs, images, valid, labels)
    halves = F.avg_pool2d(probs, 2), images[..., ::2, ::2], valid[:, ::2, ::2], labels[:, ::2, ::2]
    value, _ = by_hand(halves[0], halves[1], halves[2].float(), halves[3], 15, 12)
    assert loss.item() == pytest.approx(1e-3 * value, rel=1e-5)
    assert loss.item() < 0


def test_true_gradient_is_the_derivative():
    probs, images, valid, labels = batch(1, 3, 4, 5)
    probs = probs.double().requires_grad_()

    def energy(p, gradient):
        roi = valid.double()
        return bilateral_energy(
            p, images.double(), roi, labels, sigma_xy=5, sigma_rgb=30, gradient=gradient
        )

    valid[:] = True
    assert torch.autograd.gradcheck(lambda p: energy(p, "true"), probs)
    (true,) = torch.autograd.grad(energy(probs, "true"), probs)
    (released,) = torch.autograd.grad(energy(probs, "released"), probs)
    torch.testing.assert_close(energy(probs, "true"), energy(probs, "released"))
    assert not torch.allclose(true, released, rtol=1e-2)


def test_gradients_agree_where_nothing_is_labelled():
    """With the gate 1 everywhere E is quadratic, and the lattice nearly symmetric."""
    probs, images, valid, labels = batch()
    valid[:], labels[:] = True, 255
    grads = []
    for gradient in ("released", "true"):
        p = probs.clone().requires_grad_()
        DenseEnergyLoss(gradient=gradient)(p, images, valid, labels).backward()
        grads.append(p.grad)
    assert F.cosine_similarity(grads[0].flatten(), grads[1].flatten(), dim=0) > 0.999


def test_scale_of_the_lattice():
    """About half of the energy with the exact kernel, as the module says."""
    probs, images, valid, labels = batch(1, 4, 24, 40)
    roi = valid.float()
    fast = bilateral_energy(probs, images, roi, labels, sigma_xy=50, sigma_rgb=15)
    segments = (probs * roi[:, None]).flatten(2)
    features = bilateral_features(images, 50, 15).flatten(2)
    gate = confidence_gate(probs, roi, labels).flatten(1)[:, None]
    exact = -(segments * gate * exact_filter(features, segments)).sum()
    assert 0.4 < fast / exact < 0.75


def test_gate():
    probs = torch.tensor([0.9, 0.1]).view(1, 2, 1, 1).expand(1, 2, 1, 4)
    roi = torch.tensor([[[1.0, 0.0, 1.0, 0.0]]])
    labels = torch.tensor([[[0, 0, 255, 255]]])
    gate = confidence_gate(probs, roi, labels)
    torch.testing.assert_close(gate, torch.tensor([[[0.1, 0.0, 1.0, 1.0]]]))


def test_padding_gets_no_gradient():
    probs, images, valid, labels = batch()
    probs.requires_grad_()
    DenseEnergyLoss()(probs, images, valid, labels).backward()
    assert (probs.grad[0, :, :6] == 0).all()
    assert (probs.grad[0, :, 6:] != 0).any()
    other = images.clone()
    other[0, :, :6] = 255 - other[0, :, :6]  # nor does its colour matter
    torch.testing.assert_close(
        DenseEnergyLoss()(probs, images, valid, labels),
        DenseEnergyLoss()(probs, other, valid, labels),
        rtol=0.02,
        atol=0,
    )


def test_sure_and_labelled_costs_nothing():
    _, images, valid, _ = batch()
    labels = torch.ones(2, 16, 20, dtype=torch.long)
    probs = F.one_hot(labels, 4).permute(0, 3, 1, 2).float()
    assert DenseEnergyLoss()(probs, images, valid, labels).item() == 0


def test_odd_sizes_and_both_resizes():
    probs, images, valid, labels = (t[..., :15, :19] for t in batch())
    new = DenseEnergyLoss()(probs, images, valid, labels)
    old = DenseEnergyLoss(old_resize=True)(probs, images, valid, labels)
    assert new != old
    assert new.item() == pytest.approx(old.item(), rel=0.1)
    whole = DenseEnergyLoss(scale=1)(probs, images, valid, labels)
    roi = valid.float()
    value, _ = by_hand(probs, images, roi, labels, 100, 15)
    assert whole.item() == pytest.approx(1e-7 * value, rel=1e-5)


def test_autocast_leaves_float32():
    probs, images, valid, labels = batch()
    outside = DenseEnergyLoss()(probs, images, valid, labels)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = DenseEnergyLoss()(probs, images, valid, labels)
        coarse = DenseEnergyLoss()(probs.bfloat16(), images, valid, labels)
    assert inside.dtype == coarse.dtype == torch.float32
    assert torch.equal(inside, outside)
    assert coarse.item() == pytest.approx(outside.item(), rel=0.02)


def bad_calls():
    probs, images, valid, labels = batch()
    return {
        "logits": ((probs.log(), images, valid, labels), "probs.*softmax"),
        "nan": ((probs * math.nan, images, valid, labels), "got nan"),
        "0..1": ((probs, images / 255, valid, labels), "multiply by 255"),
        "normalised": ((probs, (images - 120) / 60, valid, labels), "undo the normalisation"),
        "low resolution": ((probs[..., ::2, ::2], images, valid, labels), "images: expected"),
        "box": ((probs, images, torch.tensor([[0, 6, 0, 9]] * 2), labels), "valid: expected"),
        "float mask": ((probs, images, valid.float(), labels), "box_to_valid"),
        "float labels": ((probs, images, valid, labels.float()), "labels: expected integers"),
        "label channels": ((probs, images, valid, labels[:, None]), "labels: expected"),
        "small labels": ((probs, images, valid, labels[:, ::2]), "labels: expected"),
        "empty": ((probs[:0], images[:0], valid[:0], labels[:0]), "empty"),
        "device": ((probs, images, valid, labels.to("meta")), "device"),
    }


@pytest.mark.parametrize("case", bad_calls())
def test_bad_input(case):
    arguments, words = bad_calls()[case]
    with pytest.raises(ValueError, match=words):
        DenseEnergyLoss()(*arguments)


def test_bad_parameters():
    probs, images, valid, labels = batch()
    with pytest.raises(ValueError, match="roi: expected"):
        bilateral_energy(probs, images, valid[:, 1:], labels, sigma_xy=5, sigma_rgb=5)
    with pytest.raises(ValueError, match="gradient: expected one of released, true"):
        DenseEnergyLoss(gradient="exact")
    with pytest.raises(ValueError, match="scale"):
        replace(DenseEnergyLoss(), scale=0)
