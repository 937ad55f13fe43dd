"""Costs of training steps: passes through a backbone are counted, and the record has all steps."""

import torch

from wsss_lab.models.backbones import build_backbone
from wsss_lab.plan import probe
from wsss_lab.records import load_record
from wsss_lab.runs.recipe import find_recipe
from wsss_lab.studies.toy import step_costs


def test_passes_are_counted_by_area_and_by_gradients():
    backbone = build_backbone("toy_cnn")
    with step_costs.backbone_passes(crop=128) as passes:
        backbone(torch.rand(2, 3, 64, 128))
        with torch.no_grad():
            backbone(torch.rand(1, 3, 128, 128))
        torch.nn.Conv2d(3, 1, 1)(torch.rand(1, 3, 128, 128))  # no backbone, so not counted
    assert passes == {"with_gradients": 1.0, "without": 1.0}
    with torch.no_grad():
        backbone(torch.rand(1, 3, 128, 128))
    assert passes["without"] == 1.0  # nothing is counted afterwards


def test_the_probe_is_left_as_it_was():
    fit = probe.fit
    with step_costs.watched(128, []):
        assert probe.fit is not fit
    assert probe.fit is fit


def test_the_record_has_every_step_of_the_presets():
    record = load_record("step_costs")["methods"]
    for method, found in record.items():
        kinds = found["kinds"]
        config = find_recipe(method).preset("toy")
        if method in ("tscd", "asdt", "cosa"):
            assert sum(kind["steps"] for kind in kinds.values()) == config.run.steps, method
            names = list(kinds)
            assert kinds[names[0]]["with_gradients"] >= 1, method
        else:
            assert kinds["masks"]["steps"] == config.mask_steps, method
            assert (kinds["masks"]["with_gradients"], kinds["masks"]["without"]) == (1, 0), method
        assert all(kind["processor_s"] > 0 for kind in kinds.values())
        assert found["peak_mib"] > 100
    # CoSA's slow network looks at three scales and their mirror images, without gradients
    assert record["cosa"]["kinds"]["fit, all losses"]["without"] > 1
