"""CoSA: every loss of the training step, with its gradient, and the segmentation targets."""

import re

import pytest
import torch
import torch.nn.functional as F

from wsss_lab.cam import normalize_cam
from wsss_lab.losses import pixel_loss, tag_loss
from wsss_lab.methods.cosa.labels import soft_target
from wsss_lab.methods.cosa.losses import balanced_mean, pixel_entropy, swapped_cam_loss
from wsss_lab.methods.cosa.values import LOSS_NORMALIZATION
from wsss_lab.runs.recipe import find_preset


@pytest.fixture
def z(golden):
    return {k: torch.from_numpy(v) for k, v in golden("cosa")("losses.npz").items()}


def check(loss, of, z, name):
    torch.testing.assert_close(loss, z[name], rtol=2e-6, atol=1e-6)
    if f"{name}_grad" in z:
        (grad,) = torch.autograd.grad(loss, of)
        expected = z[f"{name}_grad"]
        torch.testing.assert_close(
            grad, expected, rtol=1e-4, atol=2e-6 * float(expected.abs().max())
        )


def balanced(z, logits, labels, **options):
    return balanced_mean(pixel_entropy(logits, labels[:, None])[:, 0], labels, **options)


def test_cosa_balanced_cross_entropy(z):
    labels = z["mask_label"].long()
    names = [name for name in z if re.fullmatch(r"seg_loss_a\d+", name)]
    assert names
    for name in names:
        logits = z["seg_pred"].clone().requires_grad_()
        share = int(name.rpartition("a")[2]) / 100
        check(balanced(z, logits, labels, foreground=share), logits, z, name)


def test_cosa_weighted_cross_entropy(z):
    logits = z["seg_pred"].clone().requires_grad_()
    loss = balanced(z, logits, z["mask_label"].long(), weights=z["mask_weights"])
    check(loss, logits, z, "seg_weightloss_a50")


def test_cosa_cross_entropy_without_one_kind_of_pixel(z):
    labels = z["mask_label"].long()
    nothing = torch.full_like(labels, 255)
    assert balanced(z, z["seg_pred"], nothing) == z["seg_loss_allignore"]
    # either all foreground became background, or it is ignored: the name does not say
    variants = (
        labels.masked_fill((labels > 0) & (labels != 255), 0),
        labels.masked_fill(labels > 0, 255),
        torch.zeros_like(labels),
    )
    errors = [(balanced(z, z["seg_pred"], v) - z["seg_loss_nofg"]).abs() for v in variants]
    assert min(errors) < 1e-5


def test_cosa_plain_cross_entropy(z):
    logits = z["seg_pred"].clone().requires_grad_()
    check(pixel_loss(logits, z["mask_label"].long()), logits, z, "seg_lossv2")


@pytest.mark.parametrize(("name", "floor"), [("cam_loss_v1", True), ("cam_loss_v1_norelu", False)])
def test_cosa_cam_loss(z, name, floor):
    cam = z["cam"].clone().requires_grad_()
    target = F.interpolate(z["seg_ps"][:, 1:], tuple(cam.shape[-2:]), mode="bilinear")
    check(swapped_cam_loss(cam, target, floor), cam, z, name)


def test_cosa_cam_loss_of_normalised_maps(z):
    cam = z["cam"].clone().requires_grad_()
    target = F.interpolate(z["seg_ps"][:, 1:], tuple(cam.shape[-2:]), mode="bilinear")
    check(swapped_cam_loss(normalize_cam(cam, LOSS_NORMALIZATION), target), cam, z, "cam_loss_v2")


def test_cosa_tag_loss(z):
    logits = z["cls_logits"].clone().requires_grad_()
    check(tag_loss(logits, z["cls_target"]), logits, z, "cls_loss")


def test_cosa_segmentation_pseudo_label(golden):
    z = {k: torch.from_numpy(v) for k, v in golden("cosa")("seg_labels.npz").items()}
    tags = z["cls_labels"]
    released = find_preset("cosa", "voc-released").method.temperature
    for name, temperature in (("refine_t001", released), ("refine_t1", 1.0)):
        got = soft_target(z["seg"], tags, temperature)
        torch.testing.assert_close(got, z[name], rtol=1e-5, atol=2e-6)
    after = z["seg"].softmax(1)[:, 1:] * tags[:, :, None, None]  # variant: nothing is masked
    torch.testing.assert_close(after, z["refine_t1_after"][:, 1:], rtol=1e-5, atol=1e-6)
    assert torch.equal(soft_target(z["seg"], tags, 1.0).argmax(1), z["argmax_valid"].long())


def test_cosa_unused_variants_are_the_same_parts_put_together(z):
    """Two losses that no released run calls need no function of their own."""
    logits, soft = z["seg_pred"].clone().requires_grad_(), z["softprobs"]
    entropy = -(soft * logits.log_softmax(1)).sum(1)
    check(balanced_mean(entropy, soft.argmax(1)), logits, z, "seg_softloss_a50")

    cam = z["cam"].clone().requires_grad_()
    sure, label = z["seg_ps"].max(1)
    label = label.masked_fill(sure <= 0.25, 255)
    small = normalize_cam(cam, LOSS_NORMALIZATION)
    scores = torch.cat([1 - small.amax(1, keepdim=True), small], dim=1)
    scores = F.interpolate(scores, tuple(label.shape[-2:]), mode="bilinear")
    check(balanced(z, scores, label), cam, z, "cam_loss_v3")
