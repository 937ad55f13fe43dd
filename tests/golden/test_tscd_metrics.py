"""Scores of the original code."""

import pytest
import torch

from wsss_lab.metrics import ConfusionMatrix, Protocol, Report


def test_tscd_scores(golden):
    z = golden("tscd")("scores.npz")
    confusion = ConfusionMatrix(len(z["iou_f64"]))
    for pred, truth in zip(z["pred"], z["gt"], strict=True):
        confusion.update(torch.from_numpy(pred), torch.from_numpy(truth))
    report = Report.from_confusion(confusion.compute(), Protocol(absent_classes="skip"))
    assert report.miou == pytest.approx(float(z["miou_f64"]), abs=1e-12)
    assert report.pixel_accuracy == pytest.approx(float(z["pAcc_f64"]), abs=1e-12)
    assert report.mean_accuracy == pytest.approx(float(z["mAcc_f64"]), abs=1e-12)
    assert report.iou == pytest.approx(tuple(z["iou_f64"]), abs=1e-12, nan_ok=True)
