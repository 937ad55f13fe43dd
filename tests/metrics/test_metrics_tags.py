"""Tag scores against scikit-learn."""

import pytest
import torch
from sklearn.metrics import average_precision_score, f1_score

from wsss_lab.metrics import average_precision, tag_f1, tag_map


@pytest.mark.parametrize("levels", [None, 4, 1])
def test_average_precision_against_sklearn(levels):
    scores, targets = torch.randn(60, 7), (torch.rand(60, 7) < 0.3).float()
    if levels:  # ties
        scores = torch.randint(0, levels, (60, 7)).float()
    expected = [average_precision_score(targets[:, c], scores[:, c]) for c in range(7)]
    assert average_precision(scores, targets).tolist() == pytest.approx(expected, abs=1e-12)
    assert float(tag_map(scores, targets)) == pytest.approx(sum(expected) / 7)


def test_classes_without_positives_are_left_out_of_the_mean():
    scores, targets = torch.randn(20, 3), (torch.rand(20, 3) < 0.5).float()
    targets[:, 1] = 0
    ap = average_precision(scores, targets)
    assert ap.isnan().tolist() == [False, True, False]
    assert float(tag_map(scores, targets)) == pytest.approx(float((ap[0] + ap[2]) / 2))


def test_perfect_order_is_one_and_the_order_alone_counts():
    targets = torch.tensor([[1.0], [1], [0], [0]])
    scores = torch.tensor([[4.0], [3], [2], [1]])
    assert average_precision(scores, targets).item() == 1
    scores, targets = torch.randn(30, 4), (torch.rand(30, 4) < 0.4).float()
    torch.testing.assert_close(
        average_precision(scores, targets), average_precision(scores.sigmoid() * 7, targets)
    )


def test_f1_against_sklearn():
    logits, tags = torch.randn(40, 6), (torch.rand(40, 6) < 0.4).float()
    logits[0], tags[0] = -1.0, 0.0
    expected = f1_score(tags, logits > 0, average="samples", zero_division=0)
    assert float(tag_f1(logits, tags)) == pytest.approx(expected)
    assert float(tag_f1(logits.sigmoid(), tags, threshold=0.5)) == pytest.approx(expected)


def test_bad_arguments():
    with pytest.raises(ValueError, match="scores and targets"):
        average_precision(torch.randn(3, 2), torch.zeros(3, 3))
    with pytest.raises(ValueError, match="not empty"):
        average_precision(torch.randn(0, 2), torch.zeros(0, 2))
    with pytest.raises(ValueError, match="NaN"):
        average_precision(torch.full((3, 2), torch.nan), torch.zeros(3, 2))
    with pytest.raises(ValueError, match="logits and tags"):
        tag_f1(torch.randn(3, 2), torch.zeros(3))
