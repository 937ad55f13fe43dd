"""Over- and under-activation, distance bands, near and far recall, activation on contexts."""

import math

import numpy as np
import pytest
import torch
from scipy.ndimage import distance_transform_cdt

from wsss_lab.metrics import (
    context_activation,
    dilate,
    distance_bands,
    near_far_recall,
    over_activation,
    under_activation,
)


def distance(mask):
    """Chebyshev distance of every pixel to the mask, by SciPy."""
    return np.stack([distance_transform_cdt(~m, metric="chessboard") for m in mask.numpy()])


def blobs(b=3, h=40, w=52, number=3):
    mask = torch.zeros(b, h, w, dtype=torch.bool)
    for i in range(b):
        for _ in range(number):
            y, x = int(torch.randint(0, h - 5, ())), int(torch.randint(0, w - 6, ()))
            mask[i, y : y + 5, x : x + 6] = True
    return mask


def test_areas_by_counting():
    pred, truth = blobs(), blobs()
    for i in range(3):
        area = int(truth[i].sum())
        false = sum(map(int, (pred[i] & ~truth[i]).flatten()))
        missed = sum(map(int, (truth[i] & ~pred[i]).flatten()))
        assert float(over_activation(pred, truth)[i]) == pytest.approx(false / area)
        assert float(under_activation(pred, truth)[i]) == pytest.approx(missed / area)
    assert (over_activation(truth, truth) == 0).all()
    assert (under_activation(~truth, truth) == 1).all()


@pytest.mark.parametrize("radius", [0, 1, 4, 11])
def test_dilation_against_distances(radius):
    mask = blobs()
    assert torch.equal(dilate(mask, radius), torch.from_numpy(distance(mask) <= radius))
    assert torch.equal(dilate(mask[0], radius), dilate(mask, radius)[0])


def test_bands_against_distances():
    mask = blobs(number=1)
    away = distance(mask)
    bands = distance_bands(mask, (3, 8, 20)).numpy()
    expected = np.select([away == 0, away <= 3, away <= 8, away <= 20], [0, 1, 2, 3], 4)
    np.testing.assert_array_equal(bands, expected)
    assert (distance_bands(torch.zeros(4, 4, dtype=torch.bool), (2,)) == 2).all()


def test_near_and_far_recall_against_distances():
    truth, pred = dilate(blobs(number=1), 12), torch.rand(3, 40, 52) < 0.6
    part = blobs(number=1) & truth
    part[2] = False  # an image whose distinctive part is hidden counts as neither
    found = near_far_recall(pred, truth, part, near=4, far=10)
    counts = [0, 0, 0, 0]
    for i in range(3):
        if not part[i].any():
            continue
        away = torch.from_numpy(distance(part[i][None])[0])
        for k, where in enumerate((away <= 4, away > 10)):
            counts[2 * k] += int((pred[i] & truth[i] & where).sum())
            counts[2 * k + 1] += int((truth[i] & where).sum())
    assert min(counts[1], counts[3]) > 0
    assert [found.near_hits, found.near_pixels, found.far_hits, found.far_pixels] == counts
    assert found.near == counts[0] / counts[1]
    assert found.far == counts[2] / counts[3]


def test_near_far_adds_up_over_images():
    truth, pred, part = dilate(blobs(), 6), torch.rand(3, 40, 52) < 0.5, blobs()
    parts = [near_far_recall(pred[i], truth[i], part[i]) for i in range(3)]
    assert parts[0] + parts[1] + parts[2] == near_far_recall(pred, truth, part)
    empty = near_far_recall(pred, truth, torch.zeros_like(part))
    assert math.isnan(empty.near)
    assert math.isnan(empty.far)


@pytest.mark.parametrize("edges", [(0, 3, 8), (3, 8), (0,), (5,)])
def test_context_activation_by_hand(edges):
    cam, objects = torch.rand(3, 40, 52), blobs(number=2)
    context, ignore = torch.rand(3, 40, 52) < 0.5, torch.rand(3, 40, 52) < 0.1
    found = context_activation(cam, objects, context, edges=edges, ignore=ignore)
    away = torch.from_numpy(distance(objects))
    ends = [*edges[1:], 10**6]
    for i, (low, high) in enumerate(zip(edges, ends, strict=True)):
        ring = (away > low) & (away <= high) & ~ignore
        assert int(found.context_pixels[i]) == int((ring & context).sum())
        assert float(found.context[i]) == pytest.approx(float(cam[ring & context].mean()), rel=1e-5)
        assert float(found.other[i]) == pytest.approx(float(cam[ring & ~context].mean()), rel=1e-5)


def test_context_activation_adds_up_and_ignores_a_pure_halo():
    objects = blobs(number=1)
    halo = torch.exp(-torch.from_numpy(distance(objects)).float() / 5)
    context = torch.rand(3, 40, 52) < 0.4
    whole = context_activation(halo, objects, context, edges=(0, 4, 8, 12))
    parts = [
        context_activation(halo[i], objects[i], context[i], edges=(0, 4, 8, 12)) for i in range(3)
    ]
    total = parts[0] + parts[1] + parts[2]
    torch.testing.assert_close(total.context_sum, whole.context_sum)
    assert torch.equal(total.other_pixels, whole.other_pixels)
    # a map that depends on distance alone is the same on and off the context, band by band
    torch.testing.assert_close(whole.context[:3], whole.other[:3], rtol=0.1, atol=0)


def test_bad_arguments():
    mask = blobs()
    for call, match in (
        (lambda: dilate(mask, -1), "radius"),
        (lambda: distance_bands(mask, (8, 3)), "edges"),
        (lambda: distance_bands(mask, (0, 3)), "edges"),
        (lambda: near_far_recall(mask, mask, mask, near=9, far=3), "near must not exceed"),
        (lambda: near_far_recall(mask, mask[:1], mask), "same shape"),
        (lambda: over_activation(mask.float(), mask), "pred must be boolean"),
        (lambda: context_activation(mask.float(), mask, mask, edges=()), "edges must start"),
        (lambda: context_activation(mask.float(), mask, mask, edges=(-1, 3)), "edges must start"),
    ):
        with pytest.raises(ValueError, match=match):
            call()
    one = context_activation(mask.float(), mask, mask)
    with pytest.raises(ValueError, match="edges must agree"):
        _ = one + context_activation(mask.float(), mask, mask, edges=(0, 5))
