"""Confusion matrix: exact counts, nothing lost silently."""

import numpy as np
import pytest
import torch
from sklearn.metrics import confusion_matrix

from wsss_lab.metrics import ConfusionMatrix, pair_counts

K1 = 6


def labels(*shape, ignored=0.1, top=K1):
    truth = torch.randint(0, top, shape)
    return truth.masked_fill(torch.rand(shape) < ignored, 255)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32, torch.int64])
def test_counts_against_sklearn(dtype):
    truth, pred = labels(3, 17, 19), labels(3, 17, 19, ignored=0)
    given = pred.to(dtype), truth.to(dtype)
    counts = ConfusionMatrix(K1).update(*given).compute()
    assert torch.equal(given[0].long(), pred)  # inputs stay as they were
    assert torch.equal(given[1].long(), truth)
    kept = truth != 255
    expected = confusion_matrix(truth[kept], pred[kept], labels=range(K1))
    np.testing.assert_array_equal(counts[:, :K1], expected)
    assert (counts[:, K1] == 0).all()


def test_streaming_merging_and_one_batch_agree():
    truth, pred = labels(6, 8, 9), labels(6, 8, 9, ignored=0)
    whole = ConfusionMatrix(K1).update(pred, truth)
    first, second = ConfusionMatrix(K1), ConfusionMatrix(K1)
    for i in range(6):
        (first if i % 2 else second).update(pred[i], truth[i])
    assert torch.equal(first.merge(second).compute(), whole.compute())
    assert int(whole.reset().compute().sum()) == 0


def test_pairs_counted_elsewhere_are_the_same():
    truth, pred = labels(5, 5), labels(5, 5, ignored=0)
    one = ConfusionMatrix(K1).update(pred, truth).compute()
    assert torch.equal(ConfusionMatrix(K1).update_pairs(pair_counts(pred, truth)).compute(), one)


def test_state_survives_a_checkpoint():
    matrix = ConfusionMatrix(K1).update(labels(4, 4, ignored=0), labels(4, 4))
    other = ConfusionMatrix(K1)
    other.load_state_dict(matrix.state_dict())
    assert torch.equal(other.compute(), matrix.compute())


def test_predictions_of_255():
    truth = torch.tensor([0, 0, 1, 1, 255, 255])
    pred = torch.tensor([0, 255, 1, 255, 0, 255])
    with pytest.raises(ValueError, match="255 on 2 labelled pixels"):
        ConfusionMatrix(2).update(pred, truth)
    wrong = ConfusionMatrix(2, unlabelled="wrong").update(pred, truth).compute()
    assert wrong.tolist() == [[1, 0, 1], [0, 1, 1]]
    ignored = ConfusionMatrix(2, unlabelled="ignored").update(pred, truth).compute()
    assert ignored.tolist() == [[1, 0, 0], [0, 1, 0]]


def test_a_refused_image_is_not_counted():
    matrix = ConfusionMatrix(K1)
    good = torch.zeros(4, dtype=torch.long)
    with pytest.raises(ValueError, match=r"truth has \[7\]"):
        matrix.update(good, torch.tensor([0, 1, 2, 7]))
    with pytest.raises(ValueError, match=r"pred has \[6, 200\]"):
        matrix.update(torch.tensor([0, 200, 6, 3]), good)
    assert int(matrix.compute().sum()) == 0


def test_values_on_ignored_pixels_do_not_matter():
    counts = ConfusionMatrix(2).update(torch.tensor([0, 77]), torch.tensor([0, 255])).compute()
    assert counts.sum() == 1


def test_no_overflow_of_narrow_types():
    """181 x 256 + 181 does not fit into 16 bits, let alone 8."""
    full = torch.full((10,), 181, dtype=torch.uint8)
    assert pair_counts(full, full)[181, 181] == 10
    matrix = ConfusionMatrix(2)
    matrix.counts += 2**40
    assert int(matrix.update(full * 0, full * 0).counts[0, 0]) == 2**40 + 10


@pytest.mark.parametrize(
    ("pred", "truth", "match"),
    [
        (torch.zeros(3, dtype=torch.long), torch.zeros(4, dtype=torch.long), "same shape"),
        (torch.zeros(3), torch.zeros(3, dtype=torch.long), "pred must hold integer"),
        (torch.zeros(3, dtype=torch.long), torch.zeros(3, dtype=torch.bool), "truth must hold"),
        (torch.zeros(1, dtype=torch.long), torch.tensor([-1]), r"truth must be in 0\.\.255"),
        (torch.tensor([256]), torch.zeros(1, dtype=torch.long), r"pred must be in 0\.\.255"),
    ],
)
def test_bad_labels(pred, truth, match):
    with pytest.raises(ValueError, match=match):
        ConfusionMatrix(K1).update(pred, truth)


def test_bad_settings():
    for settings, match in (
        ({"num_classes": 0}, "num_classes"),
        ({"num_classes": 300}, "num_classes"),
        ({"num_classes": 21, "ignore": 3}, "ignore"),
        ({"num_classes": 21, "unlabelled": "maybe"}, "unlabelled"),
    ):
        with pytest.raises(ValueError, match=match):
            ConfusionMatrix(**settings)
    with pytest.raises(ValueError, match="same settings"):
        ConfusionMatrix(3).merge(ConfusionMatrix(4))
