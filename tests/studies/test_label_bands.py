"""Bands of TSCD's labels on photographs."""

import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from wsss_lab.data.datasets import ImageTagDataset
from wsss_lab.data.open_photos import FOLDER
from wsss_lab.data.toy import ToyWorld
from wsss_lab.metrics import ConfusionMatrix, mean_iou
from wsss_lab.records import load_record
from wsss_lab.runs.recipe import find_preset, find_recipe
from wsss_lab.studies.declare import read_declaration
from wsss_lab.studies.photos import label_bands
from wsss_lab.studies.photos.label_bands import (
    REFINERS,
    LabelBands,
    best_of,
    everywhere,
    labels_at,
    with_refiner,
)
from wsss_lab.studies.photos.vit_start import square

ROOT = Path(__file__).parents[2]


def maps_of(method, batch):
    with torch.no_grad():
        return method.maps(method.normalize(batch["images"]), everywhere(batch))


@pytest.fixture(scope="module")
def method_and_batch():
    torch.manual_seed(0)
    config = find_preset("tscd", "toy")
    config = dataclasses.replace(config, method=dataclasses.replace(config.method, scales=(1.0,)))
    method = with_refiner(find_recipe("tscd").build(config, 10, False), "none")
    world = ToyWorld("train", 2, seed=3).tensors()
    return method, {"images": world["image"].float() / 255, "tags": world["tags"].float()}


def test_the_band_stands_around_the_best_threshold():
    found = best_of({0.3: 0.2, 0.4: 0.5, 0.5: 0.4})
    assert (found["threshold"], found["miou"], found["band"]) == (0.4, 0.5, [0.3, 0.5])
    assert found["scores"] == {"0.30": 0.2, "0.40": 0.5, "0.50": 0.4}


def test_a_higher_threshold_names_less_and_no_pixel_is_undecided(method_and_batch):
    method, batch = method_and_batch
    before = method.config
    found = labels_at(method, batch, maps_of(method, batch), (0.2, 0.5, 0.8))
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
    cam = maps_of(method, batch)
    assert torch.equal(cam, maps_of(other, batch))  # so that they are computed once
    assert not torch.equal(*(labels_at(m, batch, cam, (0.5,))[0.5] for m in (method, other)))


def test_the_record_holds_a_band_for_every_refiner(tmp_path, monkeypatch):
    """The untrained preset on two open photos, at one scale."""
    config = find_preset("tscd", "voc-mini")
    config = dataclasses.replace(config, method=dataclasses.replace(config.method, scales=(1.0,)))
    method = find_recipe("tscd").build(config, 20, True).eval()
    photos = ImageTagDataset.voc(FOLDER, "masked", masks=True)
    monkeypatch.setattr(label_bands, "load_data", lambda data, role, masks: photos)
    monkeypatch.setattr(label_bands, "load_trained", lambda *args: SimpleNamespace(method=method))
    monkeypatch.setattr(label_bands, "THRESHOLDS", (0.3, 0.6))
    out, lines = tmp_path / "bands.json", []
    options = LabelBands(root=tmp_path, weights=tmp_path, out=out, photos=2, batch=2)
    label_bands.main(options, lines.append)
    bands = json.loads(out.read_text())["bands"]
    assert list(bands) == [line.split(":")[0] for line in lines[-2:]] == list(REFINERS)
    assert str(tmp_path) not in out.read_text()

    images = torch.cat([square(photos[i]["image"][None].float() / 255) for i in (0, 1)])
    truth = torch.cat([square(photos[i]["mask"][None, None].float(), nearest=True) for i in (0, 1)])
    batch = {"images": images, "tags": torch.stack([photos[i]["tags"] for i in (0, 1)]).float()}
    for refiner in REFINERS:
        alone = with_refiner(method, refiner)
        labels = labels_at(alone, batch, maps_of(alone, batch), (0.3, 0.6))
        for at in (0.3, 0.6):
            counts = ConfusionMatrix(21)
            counts.update(labels[at], truth[:, 0].long())
            expected = pytest.approx(float(mean_iou(counts.counts)[1]))
            assert bands[refiner]["scores"][f"{at:.2f}"] == expected
    assert bands["none"]["scores"] != bands["varm"]["scores"]


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
