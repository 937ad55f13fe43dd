"""Calibration of teacher A's exponents on photographs."""

import dataclasses
from pathlib import Path

import pytest
import torch

from wsss_lab.data.open_photos import FOLDER
from wsss_lab.records import load_record
from wsss_lab.runs.recipe import find_preset, find_recipe
from wsss_lab.studies.photos.teacher_a import (
    best_threshold,
    exponent_of,
    rule,
    scores,
    threshold_of,
)

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("threshold", [0.08, 0.28, 0.5, 0.7])
def test_an_exponent_stands_for_its_threshold(threshold):
    a = exponent_of(threshold)
    assert (1 - threshold) ** a == pytest.approx(threshold)
    assert threshold_of(a) == pytest.approx(threshold)


def test_half_is_the_exponent_one_and_the_rule_stands_to_either_side():
    assert exponent_of(0.5) == pytest.approx(1)
    low, high = rule(0.5)
    assert low < 1 < high
    assert threshold_of(low) == pytest.approx(0.6, abs=0.005)
    assert threshold_of(high) == pytest.approx(0.4, abs=0.005)


def test_the_preset_has_what_the_rule_says_of_the_record():
    record = load_record("teacher_a")
    assert find_preset("asdt", "voc-mini").method.exponents == rule(record["best_threshold"])
    ours, released = record["labels"]["0.63, 2.02"], record["labels"]["4, 32"]
    assert ours["right"] > 0.9 > 0.65 > released["right"]


def test_the_page_on_full_scale_says_what_the_records_say():
    page = " ".join((ROOT / "book" / "full_scale.md").read_text(encoding="utf-8").split())
    record = load_record("teacher_a")
    ours, released = record["labels"]["0.63, 2.02"], record["labels"]["4, 32"]
    assert f"On {record['photos']} photographs of `train`, {100 * released['right']:.0f} %" in page
    assert f"plain maps: {100 * ours['right']:.0f} %" in page
    run = load_record("gallery/asdt_released_exponents")
    assert run["config"]["method"]["exponents"] == [4.0, 32.0]
    assert f"ended at {100 * run['val_miou']['seg']:.1f} mIoU" in page


@pytest.fixture(scope="module")
def method_and_photos():
    config = find_preset("asdt", "voc-mini")
    method = find_recipe("asdt").build(config, 20, True).eval()
    small = dataclasses.replace(method.config, scales=(1.0,))
    method.config = small
    from wsss_lab.data.datasets import ImageTagDataset

    photos = ImageTagDataset.voc(FOLDER, "masked", masks=True)
    return method, [photos[i] for i in (3, 4)]


def test_a_label_of_the_truth_is_right_and_shares_are_shares(method_and_photos, monkeypatch):
    method, samples = method_and_photos
    found = scores(method, samples, [(4.0, 32.0), (0.63, 2.02)], every=1)
    assert list(found) == ["4, 32", "0.63, 2.02"]
    for one in found.values():
        assert all(0 <= value <= 1 for value in one.values())
    # a smaller exponent demands more of a class
    assert found["0.63, 2.02"]["found"] <= found["4, 32"]["found"]

    from wsss_lab.studies.photos import teacher_a

    def truth(pictures, cams, index, present, config):
        sample = next(s for s in samples if s["mask"].shape == pictures.shape[2:])
        return dataclasses.make_dataclass("Label", ["label"])(sample["mask"][None].long())

    monkeypatch.setattr(teacher_a, "teacher_a_label", truth)
    perfect = scores(method, samples[:1], [(1.0, 2.0)], every=1)["1, 2"]
    assert perfect["right"] == perfect["found"] == perfect["labelled"] == 1


def test_the_best_threshold_is_one_of_the_sweep(method_and_photos):
    method, samples = method_and_photos

    class Photos(list):
        num_classes = 20

    best, miou = best_threshold(method, Photos(samples), every=1)
    assert 0 <= best <= 1
    assert 0 < miou <= 1
    assert torch.isfinite(torch.tensor([best, miou])).all()
