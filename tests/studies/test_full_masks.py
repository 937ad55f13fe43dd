"""Full masks as the ceiling of the preset for photographs."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch

from wsss_lab.data.datasets import ImageTagDataset
from wsss_lab.data.open_photos import FOLDER
from wsss_lab.recipes.cam_baseline import recipe
from wsss_lab.records import load_record
from wsss_lab.runs.recipe import find_preset
from wsss_lab.studies.photos import full_masks
from wsss_lab.studies.photos.full_masks import FullMasks, settings_of

ROOT = Path(__file__).parents[2]


def test_only_the_labels_differ_from_the_preset(tmp_path):
    config, preset = settings_of(FullMasks(root=tmp_path)), find_preset("cam_baseline", "voc-mini")
    data = dataclasses.replace(preset.data, root=tmp_path, train_split="train")
    assert config == dataclasses.replace(preset, data=data)
    assert data.train_split != preset.data.split_of("train")  # that one has photos without a mask


@pytest.fixture(scope="module")
def photos():
    return ImageTagDataset.voc(FOLDER, "masked", masks=True)


def test_the_record_holds_what_was_trained_on_the_masks(tmp_path, photos, monkeypatch):
    seen = {}

    def loaded(data, role, masks):
        seen[role] = (data.split_of(role), masks)
        return photos

    small = settings_of(FullMasks(root=tmp_path, steps=2))
    run = dataclasses.replace(small.run, batch=2, log_every=1)
    small = dataclasses.replace(
        small, run=run, data=dataclasses.replace(small.data, crop=64, balance=False)
    )
    monkeypatch.setattr(full_masks, "load_data", loaded)
    monkeypatch.setattr(full_masks, "settings_of", lambda options: small)
    kept = {}

    def scored(config, network, val, say):
        kept["network"], kept["val"] = network, val
        return real(config, network, _First(val, 2), say)

    real = full_masks.evaluate
    monkeypatch.setattr(full_masks, "evaluate", scored)
    out, lines = tmp_path / "found.json", []
    full_masks.main(FullMasks(root=tmp_path, out=out, steps=2, note="test"), lines.append)
    found = json.loads(out.read_text())
    assert seen == {"train": ("train", True), "val": ("val", True)}
    assert (found["photos"], found["steps"], found["note"]) == (len(photos), 2, "test")
    assert set(found["val_miou"]) == {"seg", "seg+true tags"}
    assert all(0 <= value <= 1 for value in found["val_miou"].values())
    assert str(tmp_path) not in out.read_text()
    assert any(line.startswith("step     2/2") for line in lines)
    # trained, and ready to be scored
    untrained = recipe.build_network(small, photos.num_classes + 1)
    trained = kept["network"]
    assert not trained.training
    before, after = untrained.state_dict(), trained.state_dict()
    assert any(not torch.equal(before[name], after[name]) for name in before)


class _First:
    def __init__(self, images, count):
        self.images, self.count = images, count
        self.num_classes, self.class_names = images.num_classes, images.class_names

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        return self.images[index]


def test_record_and_page_are_of_the_preset():
    found = load_record("full_masks")
    assert found["steps"] == find_preset("cam_baseline", "voc-mini").mask_steps
    page = " ".join((ROOT / "book" / "full_scale.md").read_text(encoding="utf-8").split())
    seg, told = (100 * found["val_miou"][name] for name in ("seg", "seg+true tags"))
    assert f"the true masks of the {found['photos']} photographs that have them" in page
    assert f"reaches {seg:.1f} mIoU on `val`, {told:.1f} if it is told the true tags" in page
    baseline = load_record("presets/voc-mini/cam_baseline-lite0-seed0")["scores"]["masks"]
    assert f"tags cost the baseline {seg - baseline:.0f} points" in page
