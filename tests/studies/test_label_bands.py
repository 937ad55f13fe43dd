"""Bands of TSCD's labels on photographs."""

import dataclasses
from pathlib import Path

import pytest
import torch

from wsss_lab.data.toy import ToyWorld
from wsss_lab.records import load_record
from wsss_lab.runs.recipe import find_preset, find_recipe
from wsss_lab.studies.declare import read_declaration
from wsss_lab.studies.photos.label_bands import best_of, labels_at, with_refiner

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def method_and_batch():
    torch.manual_seed(0)
    config = find_preset("tscd", "toy")
    method = find_recipe("tscd").build(config, 10, False).eval()
    method = with_refiner(method, "none")
    method.config = dataclasses.replace(method.config, scales=(1.0,))
    world = ToyWorld("train", 2, seed=3).tensors()
    return method, {"images": world["image"].float() / 255, "tags": world["tags"].float()}


def test_the_band_stands_around_the_best_threshold():
    found = best_of({0.3: 0.2, 0.4: 0.5, 0.5: 0.4})
    assert (found["threshold"], found["miou"], found["band"]) == (0.4, 0.5, [0.3, 0.5])
    assert found["scores"] == {"0.30": 0.2, "0.40": 0.5, "0.50": 0.4}


def test_a_higher_threshold_names_less_and_no_pixel_is_undecided(method_and_batch):
    method, batch = method_and_batch
    before = method.config
    found = labels_at(method, batch, (0.2, 0.5, 0.8))
    named = [int((found[at] > 0).sum()) for at in (0.2, 0.5, 0.8)]
    assert named[0] > named[1] > named[2] > 0
    assert all(bool((labels <= 10).all()) for labels in found.values())
    assert method.config == before


def test_another_refiner_keeps_the_weights_and_changes_the_labels(method_and_batch):
    method, batch = method_and_batch
    other = with_refiner(method, "varm")
    assert method.refiner is None
    assert other.refiner is not None
    for name, value in method.state_dict().items():
        assert torch.equal(value, other.state_dict()[name])
    assert not torch.equal(*(labels_at(m, batch, (0.5,))[0.5] for m in (method, other)))


def test_preset_and_study_have_the_bands_of_the_record():
    bands = load_record("label_bands")["bands"]
    preset = find_preset("tscd", "voc-mini").method
    assert [preset.low, preset.high] == bands[preset.refiner]["band"]
    arms = read_declaration("photos_vit").arms
    for name, refiner in (("tscd_base", "none"), ("tscd_varm", "varm"), ("tscd_both", "varm")):
        settings = arms[name].settings
        band = [settings["method.low"], settings["method.high"]]
        assert band == bands[refiner]["band"]


def test_the_page_on_full_scale_says_what_the_record_says():
    page = " ".join((ROOT / "book" / "full_scale.md").read_text(encoding="utf-8").split())
    record = load_record("label_bands")
    varm = record["bands"]["varm"]
    best = f"{100 * varm['miou']:.1f} mIoU at {varm['threshold']:.2f}"
    low, high = varm["band"]
    assert f"labels of {record['config']['photos']} of them reach {best}" in page
    assert f"its band is {low} to {high}" in page
    assert f"at 0.45 they have {100 * varm['scores']['0.45']:.1f}" in page
    former = load_record("presets/former/tscd-band-of-one-scale")["scores"]["masks"]
    assert f"made before this was seen, ended at {former} mIoU" in page
