"""Records of runs of the presets on photos, and their table on the page on full scale."""

import dataclasses
import importlib
import json
from pathlib import Path

import pytest

from wsss_lab.config import RunConfig
from wsss_lab.data.config import DataConfig
from wsss_lab.recipes.cam_baseline.config import Config, TestConfig
from wsss_lab.recipes.cam_baseline.recipe import train
from wsss_lab.records import load_record
from wsss_lab.runs.recipe import RECIPES, find_preset
from wsss_lab.studies.photos import preset_runs
from wsss_lab.studies.photos.preset_runs import HEAD, keep, load_records, record_of, rows, table

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def run(world, tmp_path_factory):
    """A finished run of a preset that is small, and its settings."""
    config = Config(
        data=DataConfig(name="voc", root=world, train_split="train", crop=48),
        run=RunConfig(steps=2, batch=2, log_every=1),
        test=TestConfig(tags_at_test=True),
        cam_scales=(1.0,),
        report_train=4,
    )
    out = tmp_path_factory.mktemp("runs") / "A"
    train(config, out, log=lambda _: None)
    return out, config


@pytest.fixture
def preset(run, monkeypatch):
    """Make its settings those of the preset."""
    monkeypatch.setattr(preset_runs, "find_preset", lambda *_: run[1])
    return run[1]


def test_numbers_are_those_of_the_run(run, preset):
    out = run[0]
    record = record_of(out, "quiet")
    results = json.loads((out / "metrics.json").read_text())["results"]
    told = "cam+true tags"
    wanted = {
        "tags": results["val"]["tags"]["map"],
        "maps": results["val"][told]["miou"],
        "labels": results["pseudo_labels"][told]["miou"],
        "masks": results["val"]["seg"]["miou"],
    }
    for name, value in wanted.items():
        assert record["scores"][name] == round(100 * value, 1), name
    assert set(record["minutes"]) >= {"tags", "masks"}
    stages = [json.loads((out / name / "stage.json").read_text()) for name in ("tags", "masks")]
    memory = [stage["peak_memory_gb"] for stage in stages]
    assert record["memory_gb"] == max(memory)
    assert record["changes"] == []
    assert str(out) not in json.dumps(record)
    assert str(preset.data.root) not in json.dumps(record)


def test_labels_with_a_threshold_count_where_maps_have_none(run, preset):
    file = run[0] / "metrics.json"
    before = file.read_text()
    metrics = json.loads(before)
    metrics["results"]["train_labels"] = {"maps": {"miou": 0.25}, "sure": {"miou": 0.75}}
    file.write_text(json.dumps(metrics))
    try:
        assert record_of(run[0])["scores"]["labels"] == 25.0
    finally:
        file.write_text(before)


def test_a_run_of_other_settings_or_one_that_is_not_done_is_refused(run, preset, monkeypatch):
    out, config = run
    other = dataclasses.replace(config, threshold=0.7)
    monkeypatch.setattr(preset_runs, "find_preset", lambda *_: other)
    with pytest.raises(ValueError, match=r"no run of the preset voc-mini: threshold is 0\.4"):
        record_of(out)
    seeded = dataclasses.replace(config, run=dataclasses.replace(config.run, seed=3))
    monkeypatch.setattr(preset_runs, "find_preset", lambda *_: seeded)
    assert record_of(out)["changes"] == ["run.seed"]
    metrics = (out / "metrics.json").rename(out / "elsewhere.json")
    try:
        with pytest.raises(ValueError, match="not finished; go on with it by --resume"):
            record_of(out)
    finally:
        metrics.rename(out / "metrics.json")


def test_a_record_fills_the_row_of_its_method(run, preset, tmp_path):
    path = keep(run[0], tmp_path, "beside other work")
    record = json.loads(path.read_text())
    assert path.name == "cam_baseline-toy_cnn-seed0.json"
    found = {row[0]: row for row in rows([record])}
    assert set(found) == {name for name, recipe in RECIPES.items() if "voc-mini" in recipe.presets}
    cells = dict(zip(HEAD, found["cam_baseline"], strict=True))
    assert cells["masks"] == f"{record['scores']['masks']:.1f}"
    assert cells["minutes"] == f"{sum(record['minutes'].values()):.0f}"
    assert all(row[2] == "not run yet" for name, row in found.items() if name != "cam_baseline")
    assert "seed 0" in table([record])
    assert "beside other work" in table([record])
    lacking = record | {"minutes": {"tags": None}, "memory_gb": None}
    assert rows([lacking])[0][2:5] == ("–", str(record["threads"]), "–")


def test_the_page_shows_the_records(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "book" / "_ext")
    module = importlib.import_module("preset_table")
    page = (ROOT / "book" / "full_scale.md").read_text(encoding="utf-8")
    assert module.with_table(page) == page, "run book/_ext/preset_table.py"
    for record in load_records():
        assert not [value for value in record["scores"].values() if value and value > 100]
        assert record["preset"] == "voc-mini"
    with pytest.raises(ValueError, match="once each"):
        module.with_table("no table")


def test_the_preset_and_the_page_have_what_was_calibrated():
    preset = find_preset("cam_baseline", "voc-mini")
    records = {
        name: found["maps_with_true_tags_on_train_by_steps"][name]
        for name, found in load_record("photo_refinement").items()
    }
    record, steps = records["two"], str(preset.refine_steps)
    further = record["60"]["miou"] - record[steps]["miou"]
    assert round(100 * further, 1) == 0.4
    assert round(100 * (records["wide"]["20"]["miou"] - record["20"]["miou"]), 1) == 1.7
    assert round(100 * records["one"][steps]["miou"], 1) == 41.1
    chosen = record[str(preset.refine_steps)]
    assert preset.cam_scales == tuple(record["scales"])
    assert preset.threshold == chosen["threshold"]
    page = " ".join((ROOT / "book" / "full_scale.md").read_text(encoding="utf-8").split())
    for sentence in (
        f"after {preset.refine_steps} steps of PAR",
        f"cut at {preset.threshold}.",
        f"on {record['photos']} of its 550 photographs",
        f"reach {100 * record['0']['miou']:.1f} mIoU without PAR and "
        f"{100 * chosen['miou']:.1f} with it",
    ):
        assert sentence in page, sentence
