"""Boundary F against Euclidean distance transforms."""

import math

import numpy as np
import pytest
import torch
from scipy.ndimage import binary_erosion, distance_transform_edt

from wsss_lab.metrics import BoundaryScore, boundary_counts

K1 = 5


def map_of_boxes(h=60, w=80, ignored=False):
    labels = torch.zeros(h, w, dtype=torch.int64)
    for c in torch.randint(1, K1 - 1, (4,)).tolist():  # the last class never occurs
        y, x = int(torch.randint(0, h - 20, ())), int(torch.randint(0, w - 25, ()))
        labels[y : y + 20, x : x + 25] = c
    if ignored:
        labels[:, 30:34] = 255
    return labels


def by_hand(pred, truth, tolerance):
    """Outlines by SciPy's erosion with a 4-neighbour cross, distances by its exact transform."""
    radius = tolerance * math.hypot(*truth.shape)
    rows = np.zeros((4, K1), dtype=int)
    for c in range(K1):
        masks = [(labels == c).numpy() for labels in (truth, pred)]
        if not masks[0].any():
            continue
        masks[1] &= (truth != 255).numpy()
        lines = [m & ~binary_erosion(m, border_value=1) for m in masks]
        near = [
            distance_transform_edt(~line) <= radius if line.any() else np.zeros_like(line)
            for line in lines
        ]
        rows[:, c] = [
            (lines[0] & near[1]).sum(),
            lines[0].sum(),
            (lines[1] & near[0]).sum(),
            lines[1].sum(),
        ]
    return rows


@pytest.mark.parametrize("tolerance", [0.0, 0.0075, 0.02, 0.05])
@pytest.mark.parametrize("ignored", [False, True])
def test_counts_against_distance_transforms(tolerance, ignored):
    truth, pred = map_of_boxes(ignored=ignored), map_of_boxes()
    counts = boundary_counts(pred, truth, K1, tolerance=tolerance)
    expected = by_hand(pred, truth, tolerance)
    got = [counts.true_hits, counts.true, counts.predicted_hits, counts.predicted]
    np.testing.assert_array_equal(torch.stack(got).numpy(), expected)


def test_score_averages_images_that_show_the_class():
    score, rows = BoundaryScore(K1), []
    for _ in range(4):
        truth, pred = map_of_boxes(), map_of_boxes()
        score.update(pred, truth)
        hit, true, predicted_hit, predicted = by_hand(pred, truth, 0.0075)
        f = np.full(K1, np.nan)
        for c in range(K1):
            if true[c]:
                recall, precision = hit[c] / true[c], predicted_hit[c] / max(predicted[c], 1)
                both = precision + recall
                f[c] = 2 * precision * recall / both if both else 0.0
        rows.append(f)
    per_class, mean = score.compute()
    expected = np.array(rows)
    seen = ~np.isnan(expected).all(0)
    assert not seen[-1]
    np.testing.assert_allclose(per_class[seen], np.nanmean(expected[:, seen], axis=0), rtol=1e-6)
    assert mean == pytest.approx(np.nanmean(expected[:, seen], axis=0).mean())


def test_perfect_and_slightly_and_far_shifted():
    truth = torch.zeros(100, 100, dtype=torch.int64)
    truth[30:60, 30:60] = 1
    radius = 0.0075 * math.hypot(100, 100)  # 1.06 px
    assert 1 < radius < 2
    for shift, low, high in ((0, 1.0, 1.0), (1, 1.0, 1.0), (5, 0.0, 0.3)):
        pred = truth.roll((shift, 0), (0, 1)) if shift < 2 else truth.roll((shift, shift), (0, 1))
        _, mean = BoundaryScore(2).update(pred, truth).compute()
        assert low <= mean <= high, shift


def test_a_missing_class_scores_zero_and_merging_adds():
    truth = map_of_boxes()
    first, second = BoundaryScore(K1), BoundaryScore(K1)
    first.update(torch.zeros_like(truth), truth)
    second.update(truth, truth)
    per_class, _ = first.merge(second).compute()
    shown = [c for c in truth.unique().tolist() if c]
    assert per_class[shown] == pytest.approx(0.5)
    assert (first.reset().sums == 0).all()


def test_bad_arguments():
    truth = map_of_boxes()
    with pytest.raises(ValueError, match="of one image"):
        boundary_counts(truth[None], truth[None], K1)
    with pytest.raises(ValueError, match="tolerance"):
        boundary_counts(truth, truth, K1, tolerance=-1.0)
    with pytest.raises(ValueError, match="same classes"):
        BoundaryScore(3).merge(BoundaryScore(4))
