"""Calibration of TSCD's labels and ACR's localisation on photographs."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch

from wsss_lab.data.datasets import ImageTagDataset
from wsss_lab.data.open_photos import FOLDER
from wsss_lab.models.weights import pretrained_backbone
from wsss_lab.records import load_record
from wsss_lab.runs.recipe import find_preset
from wsss_lab.studies.photos.teacher_a import rule, threshold_of
from wsss_lab.studies.photos.vit_start import (
    VitStart,
    best_maps,
    patch_maps,
    read,
    score,
    square,
    token_maps,
    train,
    write,
)

ROOT = Path(__file__).parents[2]


def test_the_best_maps_are_found_by_name():
    scores = {
        "tag_map": 0.9,
        "-2": {"miou": 0.2},
        "-6": {"miou": 0.3},
        "-6 spread": {"miou": 0.1},
    }
    assert best_maps(scores) == (-6, False)
    scores["-1 spread"] = {"miou": 0.4}
    assert best_maps(scores) == (-1, True)


def test_presets_have_what_the_rules_say_of_the_record():
    record = load_record("vit_start")
    acr = find_preset("acr", "voc-mini").method
    assert (acr.start_layer, acr.propagate) == best_maps(record["token"])
    best = record["token"][f"{acr.start_layer}"]["threshold"]
    assert find_preset("acr", "voc-mini").background == rule(best)


def test_the_page_says_what_acrs_sure_pixels_are():
    page = " ".join((ROOT / "book" / "full_scale.md").read_text(encoding="utf-8").split())
    ours = find_preset("acr", "voc-mini").background
    released = find_preset("acr", "voc-released").background
    at = [threshold_of(power) for power in (*ours, *released)]
    assert (
        f"{ours[0]:g} and {ours[1]:g}, object above {at[0]:.2f} and background below {at[1]:.2f}"
        in page
    )
    assert (
        f"the released {released[0]:g} and {released[1]:g}, background only below {at[3]:.2f}"
        in page
    )
    former = load_record("presets/former/acr-released-powers")["scores"]["masks"]
    assert f"ended at {former}." in page


def test_the_page_on_full_scale_says_what_the_record_says():
    page = " ".join((ROOT / "book" / "full_scale.md").read_text(encoding="utf-8").split())
    record = load_record("vit_start")
    cam = record["patches"]["cam"]
    assert f"tags alone for {record['config']['steps']} steps" in page
    assert f"plain maps of {record['photos']} photographs of `train`" in page
    assert f"reach {100 * cam['miou']:.1f} mIoU at the threshold {cam['threshold']:.2f}" in page
    token = {name: 100 * one["miou"] for name, one in record["token"].items() if name != "tag_map"}
    plain = [value for name, value in token.items() if "spread" not in name]
    spread = max(value for name, value in token.items() if "spread" in name)
    assert f"gradients reach {max(plain):.1f}, whatever layer they begin at" in page
    assert f"({min(plain):.1f} to {max(plain):.1f}), and {spread:.1f} at most" in page


def test_a_square_is_the_middle_and_classes_stay_whole():
    image = torch.zeros(1, 1, 20, 40)
    image[..., 10:30] = 7
    torch.testing.assert_close(square(image, 8), torch.full((1, 1, 8, 8), 7.0))
    stripes = torch.arange(40.0).expand(1, 1, 40, 40)
    assert (square(stripes, 13, nearest=True) % 1 == 0).all()


@pytest.fixture(scope="module")
def photos():
    samples = ImageTagDataset.voc(FOLDER, "masked", masks=True)
    some = [samples[i] for i in range(5)]
    return read(pretrained_backbone("lite0_vit"), some[:3], some[3:], lambda _: None)


def test_stems_are_those_of_the_squares(photos):
    assert photos.stems.shape == (5, 1280, 14, 14)
    assert photos.stems.dtype == torch.float16
    assert photos.masks.shape == (3, 224, 224)
    assert 0 <= photos.stems.min() < photos.stems.max() <= 6
    assert photos.tags.sum() >= 5


@pytest.mark.parametrize(("kind", "names"), [("patches", 1), ("token", 12)])
def test_training_learns_tags_and_maps_are_scored(photos, kind, names):
    options = VitStart(Path(), steps=30, batch=2)
    # only photos that are not held out are drawn
    network = train(kind, photos, torch.ones(2), options, lambda _: None)
    with torch.no_grad():
        logits, _ = network(photos.stems[3:].float())
    tags = photos.tags[3:] > 0
    assert logits[tags].min() > logits[~tags].mean() + 1
    found = score(kind, network, photos)
    assert len(found) == names + 1
    assert 0 < found.pop("tag_map") <= 1
    assert all(0 < one["miou"] <= 1 and 0 <= one["threshold"] < 1 for one in found.values())


def test_maps_that_are_the_truth_score_one(photos, monkeypatch):
    from wsss_lab.studies.photos import vit_start

    network = vit_start.Start("patches", 20).eval()
    masks = iter(photos.masks)

    def truth(network, stem, tags):
        mask = next(masks)
        raw = torch.stack([(mask == k + 1).float() for k in range(20)])[None]
        return {"cam": raw}, tags

    monkeypatch.setattr(vit_start, "patch_maps", truth)
    found = score("patches", network, photos)
    assert found["cam"]["miou"] == pytest.approx(1)
    assert found["tag_map"] == pytest.approx(1)


def test_maps_of_both_heads_are_those_of_the_methods(photos):
    from wsss_lab.methods.acr.method import ACR
    from wsss_lab.methods.tscd.network import TSCDNetwork
    from wsss_lab.studies.photos.vit_start import Start

    stem, tags = photos.stems[:1].float(), photos.tags[:1]
    start = Start("token", 20).eval()
    config = dataclasses.replace(find_preset("acr", "voc-mini").method, start_layer=-2)
    acr = ACR(start.backbone, 20, dataclasses.replace(config, propagate=True)).eval()
    acr.head.load_state_dict(start.head.state_dict())
    start.backbone.net.patch_embed.backbone.forward = lambda _: stem
    start.backbone.net.patch_embed.backbone.levels = lambda _: [stem] * 4
    wanted, _ = acr.token_maps(torch.zeros(1, 3, 224, 224), tags)
    found, _ = token_maps(start, stem, tags)
    torch.testing.assert_close(found["-2 spread"], wanted)

    start = Start("patches", 20).eval()
    backbone = start.backbone
    tscd = TSCDNetwork(backbone, 20, 16).eval()
    tscd.tag_head.load_state_dict(start.head.state_dict())
    finer = [torch.zeros(1, d, 56 // s, 56 // s) for d, s in ((24, 1), (40, 2), (112, 4))]
    backbone.net.patch_embed.backbone.levels = lambda _: [*finer, stem]
    maps, logits = patch_maps(start, stem, tags)
    assert tscd(torch.zeros(1, 3, 224, 224)).tag_logits.equal(logits)
    torch.testing.assert_close(maps["cam"], tscd.raw_cam(torch.zeros(1, 3, 224, 224)).relu())
    assert logits.shape == (1, 20)


def test_a_record_says_what_was_found(tmp_path):
    options = VitStart(tmp_path / "photos", tmp_path / "record.json", held=7)
    write(options, 9, {"token": {"tag_map": 0.5}})
    record = json.loads(options.out.read_text())
    assert (record["photos"], record["trained_on"], record["token"]) == (7, 9, {"tag_map": 0.5})
    assert str(tmp_path) not in options.out.read_text()
    assert record["config"]["held"] == 7
