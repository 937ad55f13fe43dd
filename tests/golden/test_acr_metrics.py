"""The threshold sweep and the label-map mode of the original evaluation."""

import numpy as np
import pytest
import torch

from wsss_lab.metrics import ConfusionMatrix, Protocol, Report, ThresholdSweep


@pytest.fixture
def recorded(golden):
    return golden("acr")("eval_miou.npz")


def test_acr_sweep(recorded):
    num_classes = recorded["iou_sweep"].shape[1]
    sweep = ThresholdSweep(num_classes, torch.from_numpy(recorded["thresholds"]))
    for j in range(int(recorded["n"])):
        present = torch.from_numpy(recorded[f"cam_classes_{j}"])
        maps = torch.from_numpy(recorded[f"cam_{j}"])
        cam = torch.zeros(1, num_classes - 1, *maps.shape[1:])
        cam[0, present] = maps
        tags = torch.zeros(1, num_classes - 1)
        tags[0, present] = 1
        sweep.update(cam, tags, torch.from_numpy(recorded[f"gt_{j}"])[None])
    result = sweep.compute(absent="zero")
    np.testing.assert_allclose(100 * result.iou, recorded["iou_sweep"], atol=1e-9, rtol=0)
    np.testing.assert_allclose(100 * result.miou, recorded["miou_sweep"], atol=1e-9, rtol=0)
    assert result.best == int(recorded["miou_sweep"].argmax())


def test_acr_default_thresholds_are_the_recorded_ones(recorded):
    assert torch.equal(
        ThresholdSweep(2).thresholds, torch.from_numpy(recorded["thresholds"]).float()
    )


def test_acr_label_maps(recorded):
    confusion = ConfusionMatrix(len(recorded["png_iou"]))
    for j in range(int(recorded["n"])):
        confusion.update(*(torch.from_numpy(recorded[f"{name}_{j}"]) for name in ("pred", "gt")))
    report = Report.from_confusion(confusion.compute(), Protocol(absent_classes="zero"))
    np.testing.assert_allclose(100 * np.array(report.iou), recorded["png_iou"], atol=1e-9)
    assert 100 * report.miou == pytest.approx(float(recorded["png_miou"]), abs=1e-9)
