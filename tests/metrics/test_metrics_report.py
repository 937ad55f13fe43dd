"""Scores of a confusion matrix, and the printed protocol."""

import json

import pytest
import torch
from sklearn.metrics import accuracy_score, jaccard_score, precision_score, recall_score

from wsss_lab.metrics import ConfusionMatrix, Protocol, Report

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


def test_scores_against_sklearn():
    truth, pred = torch.randint(0, 4, (500,)), torch.randint(0, 4, (500,))
    counts = ConfusionMatrix(4).update(pred, truth).compute()
    report = Report.from_confusion(counts, Protocol())
    assert report.iou == pytest.approx(jaccard_score(truth, pred, average=None))
    assert report.precision == pytest.approx(precision_score(truth, pred, average=None))
    assert report.recall == pytest.approx(recall_score(truth, pred, average=None))
    assert report.pixel_accuracy == pytest.approx(accuracy_score(truth, pred))
    assert report.mean_accuracy == pytest.approx(recall_score(truth, pred, average="macro"))
    assert report.miou == pytest.approx(jaccard_score(truth, pred, average="macro"))
    for c in range(4):
        area = int((truth == c).sum())
        false = int(((pred == c) & (truth != c)).sum())
        missed = int(((pred != c) & (truth == c)).sum())
        assert report.over_activation[c] == pytest.approx(false / area)
        assert report.under_activation[c] == pytest.approx(missed / area)
        assert report.pixels[c] == area


def test_pixels_without_prediction_are_misses_and_no_false_alarms():
    counts = torch.tensor([[8, 0, 2], [0, 5, 5]])
    report = Report.from_confusion(counts, Protocol())
    assert report.iou == pytest.approx((0.8, 0.5))
    assert report.precision == (1.0, 1.0)
    assert report.pixel_accuracy == pytest.approx(13 / 20)


def test_permuting_classes_permutes_scores():
    order = torch.randperm(5)
    plain = Report.from_confusion(CONFUSION, Protocol())
    permuted = Report.from_confusion(CONFUSION[order][:, order], Protocol())
    expected = [plain.iou[i] for i in order]
    assert permuted.iou == pytest.approx(expected, nan_ok=True)
    assert permuted.miou == pytest.approx(plain.miou)


def test_table_shows_every_class_and_the_whole_protocol():
    protocol = Protocol(
        split="toy val", images=3, scales=(1.0, 0.5), flip=True, tags_at_test=False, crf="none"
    )
    table = Report.from_confusion(CONFUSION, protocol, ["bg", "cat", "dog", "cow", "bee"]).table()
    for name in ("bg", "cat", "dog", "cow", "bee"):
        assert any(line.startswith(f"{name} ") for line in table.splitlines())
    assert "74.63" in table  # IoU of the background, 50 / 67
    for piece in (
        "split: toy val",
        "images: 3",
        "scales: (1.0, 0.5)",
        "flip: yes",
        "tags at test: no",
        "label source: not stated",
        "absent classes: skip: mean over the classes that occur in the truth",
    ):
        assert piece in table, piece
    bee = next(line for line in table.splitlines() if line.startswith("bee"))
    assert bee.split() == ["bee", "-", "-", "-", "-", "-"]


def test_json_is_strict_and_complete():
    report = Report.from_confusion(CONFUSION, Protocol(split="val"))
    values = json.loads(report.to_json(), parse_constant=lambda name: pytest.fail(name))
    assert values["iou"][4] is None
    assert values["over_activation"][3] is None
    assert values["miou"] == pytest.approx(report.miou)
    assert values["protocol"]["split"] == "val"
    assert values["class_names"][:2] == ["background", "class 1"]


def test_bad_arguments():
    with pytest.raises(ValueError, match="absent_classes must be one of"):
        Protocol(absent_classes="drop")
    with pytest.raises(ValueError, match="class_names must have 5"):
        Report.from_confusion(CONFUSION, Protocol(), ["only", "two"])
