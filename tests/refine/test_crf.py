"""Dense CRF against mean field written out with loops, and its input checks."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from paper_values import ALL_CRFS

from wsss_lab.refine import (
    DenseCRF,
    exact_filter,
    exact_mean_field,
    unary_from_labels,
    unary_from_probs,
)


def scene(b=2, k=4, h=20, w=26):
    """Two colour halves; probabilities that know the halves, with noise."""
    image = 50 + 4 * torch.randn(b, 3, h, w)
    image[..., w // 2 :] += 100
    logits = 1.5 * torch.randn(b, k, h, w)
    logits[:, 0, :, : w // 2] += 1.5
    logits[:, 1, :, w // 2 :] += 1.5
    return image.clamp(0, 255).to(torch.uint8), logits.softmax(1)


def slow_mean_field(crf, image, probs):
    """One image, pixel pairs in loops, float64."""
    k, h, w = probs.shape
    pixels = [(y, x) for y in range(h) for x in range(w)]
    colour = image.double().flatten(1).numpy()
    kernels = np.zeros((2, h * w, h * w))
    for i, (yi, xi) in enumerate(pixels):
        for j, (yj, xj) in enumerate(pixels):
            place = (yi - yj) ** 2 + (xi - xj) ** 2
            tint = ((colour[:, i] - colour[:, j]) ** 2).sum() / crf.bilateral_sigma_rgb**2
            kernels[0, i, j] = math.exp(-place / crf.spatial_sigma**2 / 2)
            kernels[1, i, j] = math.exp(-(place / crf.bilateral_sigma_xy**2 + tint) / 2)
    total = 0
    for kernel, weight in zip(kernels, (crf.spatial_weight, crf.bilateral_weight), strict=True):
        norm = kernel.sum(1)
        total = total + weight * kernel / np.sqrt(norm[:, None] * norm[None])
    unary = -np.log(np.clip(probs.double().flatten(1).numpy(), crf.clip, 1))
    q = np.exp(-unary) / np.exp(-unary).sum(0)
    for _ in range(crf.iterations):
        logits = q @ total - unary
        q = np.exp(logits - logits.max(0))
        q /= q.sum(0)
    return torch.from_numpy(q.reshape(k, h, w))


def test_exact_mean_field_equals_loops():
    crf = DenseCRF(3, 2, 1.5, 8, 20, 2)
    images, probs = scene(2, 3, 5, 6)
    out = exact_mean_field(crf, images, probs.double())
    for i in range(2):
        torch.testing.assert_close(out[i], slow_mean_field(crf, images[i], probs[i]))


def test_exact_mean_field_passes_gradients():
    images, probs = scene(1, 3, 3, 4)
    crf = replace(DenseCRF(2, 2, 1, 8, 20, 1), normalised=False)
    probs = probs.double().requires_grad_()
    assert torch.autograd.gradcheck(lambda p: exact_mean_field(crf, images, p), probs)


@pytest.mark.parametrize("name", ["tscd-cam", "tscd-eval", "cosa-eval", "asdt-seg"])
def test_lattice_follows_exact_mean_field(name):
    """The lattice is an approximation of the kernels; the labels are the same."""
    images, probs = scene()
    fast = ALL_CRFS[name](images, probs)
    exact = exact_mean_field(ALL_CRFS[name], images, probs)
    assert (fast.argmax(1) == exact.argmax(1)).float().mean() > 0.97
    assert (fast - exact).abs().mean() < 0.02


def test_cleans_up_the_halves():
    images, probs = scene()
    truth = (torch.arange(26) >= 13).long().expand(2, 20, 26)
    before = (probs.argmax(1) == truth).float().mean()
    after = (DenseCRF()(images, probs).argmax(1) == truth).float().mean()
    assert before < 0.9 < 0.99 < after


def test_output_is_a_distribution_in_float32():
    images, probs = scene()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = DenseCRF()(images, probs.double())
    assert out.dtype == torch.float32
    assert out.shape == probs.shape
    torch.testing.assert_close(out.sum(1), torch.ones(2, 20, 26))
    torch.testing.assert_close(out, DenseCRF()(images, probs))


def test_zero_iterations_give_the_clipped_probabilities():
    images, probs = scene()
    out = DenseCRF(iterations=0, clip=0.1)(images, probs)
    clipped = probs.clamp(0.1, 1)
    torch.testing.assert_close(out, clipped / clipped.sum(1, keepdim=True))


def test_batch_equals_single_images():
    images, probs = scene(3)
    together = DenseCRF()(images, probs)
    for i in range(3):
        alone = DenseCRF()(images[i : i + 1], probs[i : i + 1])
        torch.testing.assert_close(together[i : i + 1], alone, atol=1e-5, rtol=1e-4)


def test_classes_may_be_reordered():
    images, probs = scene()
    order = torch.tensor([2, 0, 3, 1])
    torch.testing.assert_close(
        DenseCRF()(images, probs)[:, order], DenseCRF()(images, probs[:, order])
    )


def test_uint8_and_float_images_agree():
    images, probs = scene()
    assert torch.equal(DenseCRF()(images, probs), DenseCRF()(images.float(), probs))


def test_unary_from_labels():
    labels = torch.tensor([[[0, 2, 255], [1, 1, 0]]])
    energy = unary_from_labels(labels, 3, 0.6)
    for y in range(2):
        for x in range(3):
            label = int(labels[0, y, x])
            wanted = [1 / 3] * 3 if label == 255 else [0.6 if c == label else 0.2 for c in range(3)]
            torch.testing.assert_close(energy[0, :, y, x], -torch.tensor(wanted).log())
    assert torch.equal(energy, unary_from_labels(labels.to(torch.uint8), 3, 0.6))


def test_unlabelled_pixels_follow_their_colour():
    images, _ = scene(1)
    labels = (torch.arange(26) >= 13).long().expand(1, 20, 26).clone()
    labels[:, 5:15, 3:23] = 255
    out = ALL_CRFS["tscd-label"].from_unary(images, unary_from_labels(labels, 2))
    assert (out.argmax(1) == (torch.arange(26) >= 13)).all()


@pytest.mark.parametrize("name", sorted(ALL_CRFS))
def test_equals_pydensecrf(name):
    densecrf = pytest.importorskip("pydensecrf.densecrf", reason="needs pydensecrf2")
    images, probs = scene(1, 5, 30, 41)
    crf = ALL_CRFS[name]
    field = densecrf.DenseCRF2D(41, 30, 5)
    field.setUnaryEnergy(unary_from_probs(probs)[0].flatten(1).contiguous().numpy())
    field.addPairwiseGaussian(sxy=crf.spatial_sigma, compat=crf.spatial_weight)
    rgb = np.ascontiguousarray(images[0].permute(1, 2, 0).numpy())
    xy, tint = crf.bilateral_sigma_xy, crf.bilateral_sigma_rgb
    field.addPairwiseBilateral(sxy=xy, srgb=tint, rgbim=rgb, compat=crf.bilateral_weight)
    theirs = torch.from_numpy(np.array(field.inference(crf.iterations))).view(5, 30, 41)
    torch.testing.assert_close(crf(images, probs)[0], theirs, atol=1e-4, rtol=0)


def bad_calls():
    images, probs = scene()
    return {
        "size": (images, probs[..., :-1], "resize"),
        "batch": (images[:1], probs, "batch"),
        "channels": (images[:, :2], probs, "images: expected"),
        "empty": (images[:0], probs[:0], "empty"),
        "one image without batch": (images[0], probs, "images: expected"),
        "one map without batch": (images, probs[0], r"probs\[None\]"),
        "logits": (images, 5 * probs, r"\[0, 1\].*softmax"),
        "negative": (images, probs - 0.5, r"\[0, 1\]"),
        "nan": (images, probs * math.nan, r"\[0, 1\], got nan"),
        "not normalised": (images, probs / 2, "sum of 1"),
        "labels": (images, probs.argmax(1, keepdim=True), "unary_from_labels"),
        "image in 0..1": (images / 255, probs, "multiply by 255"),
        "normalised image": ((images - 120.0) / 60, probs, "undo the normalisation"),
        "nan image": (images * math.nan, probs, "0..255"),
        "integer image": (images.long(), probs, "uint8 or float"),
        "device": (images, probs.to("meta"), "device"),
    }


@pytest.mark.parametrize("case", bad_calls())
@pytest.mark.parametrize("run", [DenseCRF(), lambda i, p: exact_mean_field(DenseCRF(), i, p)])
def test_bad_input(case, run):
    images, probs, words = bad_calls()[case]
    with pytest.raises(ValueError, match=words):
        run(images, probs)


def test_bad_parameters():
    with pytest.raises(ValueError, match="bilateral_sigma_rgb"):
        DenseCRF(bilateral_sigma_rgb=0)
    with pytest.raises(ValueError, match="iterations"):
        DenseCRF(iterations=-1)
    with pytest.raises(ValueError, match="confidence"):
        unary_from_labels(torch.zeros(1, 2, 2, dtype=torch.long), 3, 1.0)
    with pytest.raises(ValueError, match="labels"):
        unary_from_labels(torch.zeros(1, 2, 2), 3)
    with pytest.raises(ValueError, match="finite energies"):
        DenseCRF().from_unary(scene()[0], torch.full((2, 4, 20, 26), math.inf))
    with pytest.raises(ValueError, match="unary: expected"):
        DenseCRF().from_unary(scene()[0], torch.zeros(2, 20, 26))
    with pytest.raises(ValueError, match="use Lattice"):
        exact_filter(torch.zeros(1, 2, 20000), torch.zeros(1, 1, 20000))
    with pytest.raises(ValueError, match="values"):
        exact_filter(torch.zeros(1, 2, 20), torch.zeros(1, 1, 21))
