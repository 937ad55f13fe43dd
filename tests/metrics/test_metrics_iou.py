"""IoU per class and its mean, and what absent classes do to the mean."""

import math

import pytest
import torch

from wsss_lab.metrics import ABSENT_POLICIES, mean_iou

# class 3 is in the prediction only, class 4 nowhere
CONFUSION = torch.tensor(
    [
        [50, 5, 0, 2, 0],
        [10, 20, 0, 0, 0],
        [0, 4, 6, 1, 0],
        [0, 0, 0, 0, 0],
        [0, 0, 0, 0, 0],
    ]
)


def test_absent_classes_four_ways():
    ious = [50 / 67, 20 / 39, 6 / 11, 0.0]
    expected = {
        "skip": sum(ious[:3]) / 3,
        "nanmean": sum(ious) / 4,
        "zero": sum(ious) / 5,
        "nan": math.nan,
    }
    assert set(expected) == set(ABSENT_POLICIES)
    for policy, value in expected.items():
        iou, miou = mean_iou(CONFUSION, policy)
        assert float(miou) == pytest.approx(value, nan_ok=True), policy
        assert iou.tolist()[:4] == pytest.approx(ious)
        assert math.isnan(iou[4]) == (policy != "zero")


def test_leading_axes_are_independent():
    stack = torch.stack([CONFUSION, CONFUSION.T])
    iou, miou = mean_iou(stack, "nanmean")
    for i, one in enumerate(stack):
        torch.testing.assert_close(iou[i], mean_iou(one, "nanmean")[0], equal_nan=True)
        assert miou[i] == mean_iou(one, "nanmean")[1]


def test_unknown_policy():
    with pytest.raises(ValueError, match="absent must be one of"):
        mean_iou(CONFUSION, "drop")
