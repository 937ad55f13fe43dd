"""Scores of the original code."""

import numpy as np
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


def test_tscd_validation_scores(golden):
    """mIoU of the three label maps that training-time validation prints."""
    z = golden("tscd")("validate_tiny.npz")
    truth = torch.from_numpy(z["gt"])
    num_classes = z["cls_label"].shape[1] + 1
    found = []
    for name in ("seg_pred", "cam_label", "ref_label"):
        confusion = ConfusionMatrix(num_classes).update(torch.from_numpy(z[name]), truth)
        found.append(Report.from_confusion(confusion.compute(), Protocol()).miou)
    np.testing.assert_allclose(found, z["miou_f64"], atol=1e-12)
