"""Scores of the original code: with and without ignored predictions, and sample-wise AP."""

import numpy as np
import pytest
import torch

from wsss_lab.metrics import ConfusionMatrix, Protocol, Report, average_precision


def score(z, prediction, unlabelled, absent="skip", num_classes=None):
    confusion = ConfusionMatrix(num_classes or len(z["f64_iou"]), unlabelled=unlabelled)
    i = 0
    while f"gt{i}" in z:
        confusion.update(
            *(torch.from_numpy(z[f"{name}{i}"].squeeze()) for name in (prediction, "gt"))
        )
        i += 1
    return Report.from_confusion(confusion.compute(), Protocol(absent_classes=absent))


def test_cosa_scores(golden):
    z = golden("cosa")("metrics.npz")
    report = score(z, "pred", "error")
    assert report.miou == pytest.approx(float(z["f64_miou"]), abs=1e-12)
    assert report.pixel_accuracy == pytest.approx(float(z["f64_pacc"]), abs=1e-12)
    assert report.mean_accuracy == pytest.approx(float(z["f64_macc"]), abs=1e-12)
    assert report.iou == pytest.approx(tuple(z["f64_iou"]), abs=1e-12, nan_ok=True)


def test_cosa_pseudo_scores_leave_out_abstentions(golden):
    z = golden("cosa")("metrics.npz")
    report = score(z, "pred_ign", "ignored")
    assert report.miou == pytest.approx(float(z["f64_pseudo_miou"]), abs=1e-12)
    assert report.iou == pytest.approx(tuple(z["f64_pseudo_iou"]), abs=1e-12, nan_ok=True)


def test_cosa_printed_mean(golden):
    """The printed table rounds per-class percent to two digits and takes a plain mean."""
    z = golden("cosa")("metrics.npz")
    report = score(z, "pred", "error", absent="nan")
    printed = float(z["f64_format_tabs_miou"].item())
    assert np.isnan(report.miou) == np.isnan(printed)
    if not np.isnan(printed):
        assert 100 * report.miou == pytest.approx(printed, abs=0.01)


def test_cosa_sample_wise_average_precision(golden):
    z = golden("cosa")("metrics.npz")
    score, target = (torch.from_numpy(z[name]) for name in ("ap_score", "ap_target"))
    ap = average_precision(score.T, target.T)
    np.testing.assert_allclose(ap[~ap.isnan()].numpy(), z["f64_ap"], atol=1e-7)


@pytest.mark.parametrize("kind", ["seg_ps", "seg_vd", "cam", "cam_aux", "seg_crf"])
def test_cosa_evaluation_end_to_end(golden, kind):
    z = golden("cosa")("evaluate.npz")
    expected = z[f"f64_iou_{kind}"]
    report = score(z, f"pred_{kind}", "error", absent="nan", num_classes=len(expected))
    np.testing.assert_allclose(report.iou, expected, atol=1e-9)
    printed = {"seg_vd": 0, "cam": 1}
    if kind in printed:
        mean = float(z["f64_ret"][printed[kind]])
        assert 100 * report.miou == pytest.approx(mean, abs=0.01, nan_ok=True)
