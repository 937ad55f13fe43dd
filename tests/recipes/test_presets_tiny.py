"""The presets `tiny`: toy from a packaged start, short enough for two minutes."""

import dataclasses
import json
import re
from pathlib import Path

import pytest
import torch

from wsss_lab.__main__ import main
from wsss_lab.evaluate.predict import toy_classifier
from wsss_lab.recipes.cam_baseline.config import Config
from wsss_lab.recipes.cam_baseline.recipe import build, find_start
from wsss_lab.runs.recipe import RECIPES, find_preset, find_recipe
from wsss_lab.runs.settings import plain
from wsss_lab.runs.start import start_method

ROOT = Path(__file__).parents[2]
README = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
RECORD = json.loads((ROOT / "benchmarks" / "results" / "tiny.json").read_text(encoding="utf-8"))
TINY = [name for name in RECIPES if "tiny" in find_recipe(name).presets]
SHORT = [
    *("--data.count", "4", "--data.val-count", "2", "--run.batch", "2"),
    *("--run.steps", "1", "--mask-steps", "1", "--report-train", "2"),
]


def run_tiny(out, *more):
    return main(["train", "cam_baseline", "--preset", "tiny", "--out", str(out), *SHORT, *more])


def test_every_method_has_it_or_says_why():
    for name, recipe in RECIPES.items():
        assert "tiny" in recipe.presets or "tiny" in recipe.missing_presets, name
    assert "cam_baseline" in TINY


@pytest.mark.parametrize("name", TINY)
def test_it_is_toy_on_fewer_scenes_with_fewer_steps(name):
    tiny, toy = find_preset(name, "tiny"), find_preset(name, "toy")
    assert tiny.run.steps * tiny.run.batch < 0.2 * toy.run.steps * toy.run.batch
    assert tiny.data.count < toy.data.count
    assert tiny.data.val_count < toy.data.val_count
    for field in ("count", "val_count"):
        tiny = dataclasses.replace(
            tiny, data=dataclasses.replace(tiny.data, **{field: getattr(toy.data, field)})
        )
    assert tiny.data == toy.data
    assert tiny.test == toy.test
    assert plain(tiny)["weights"] == "toy"


@pytest.mark.parametrize("name", TINY)
def test_the_record_is_of_the_preset_as_it_is_and_below_two_minutes(name):
    found, config = RECORD["methods"][name], find_preset(name, "tiny")
    assert found["settings"] == {
        "count": config.data.count,
        "val_count": config.data.val_count,
        "steps": config.run.steps,
        "batch": config.run.batch,
    }
    assert found["processor_s"]["all"] < 120
    assert sum(found["processor_s"]["stages"].values()) == pytest.approx(
        found["processor_s"]["all"], abs=1
    )


def test_seconds_and_scores_of_the_readme_are_recorded():
    found = RECORD["methods"]["cam_baseline"]
    seconds, seg = re.findall(r"took (\d+) processor seconds.*? mIoU of ([\d.]+) %", README)[0]
    assert int(seconds) == round(found["processor_s"]["all"])
    assert float(seg) == found["miou"]["val/seg"]


def rows_of_the_record():
    """Rows of the table in `benchmarks/README.md`."""
    for name, found in RECORD["methods"].items():
        stages, miou = found["processor_s"]["stages"], found["miou"]
        training = sum(stages.get(stage, 0) for stage in ("train", "fit", "tags", "masks"))
        seconds = f"{found['processor_s']['all']:.0f} | {stages['start']:.0f}; {training:.0f}"
        scores = [f"{miou[key]:.1f}" if key in miou else "–" for key in ("val/seg", "val/cam")]
        yield f"| {name} | {seconds} | {' | '.join(scores)} |"


def test_the_table_of_the_benchmark_is_the_record():
    page = (ROOT / "benchmarks" / "README.md").read_text(encoding="utf-8")
    table = page.partition("## `tiny.py`")[2].partition("\n## ")[0]
    assert [row for row in table.splitlines() if row.startswith("| ")][1:] == [
        *rows_of_the_record()
    ]


def test_the_baseline_begins_with_the_packaged_classifier():
    config = find_preset("cam_baseline", "tiny")
    torch.manual_seed(1)
    classifier = build(config, 10)
    start_method(classifier, *find_start(config), config.backbone)
    wanted = toy_classifier().state_dict()
    assert classifier.state_dict().keys() == wanted.keys()
    for name, value in classifier.state_dict().items():
        assert torch.equal(value, wanted[name]), name


def test_it_runs_to_its_end_and_another_run_goes_on_from_it(tmp_path, capsys):
    out = tmp_path / "A"
    assert run_tiny(out) == 0
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["config"]["start"] == "toy"
    assert len(list((out / "labels").glob("*.png"))) == 4
    assert find_start(Config(start=str(out))) == (str(out / "tags"), "cam_baseline")
    assert run_tiny(tmp_path / "B", "--start", str(out), "--until", "tags") == 0
    capsys.readouterr()
    masks = str(out / "model.safetensors")
    assert run_tiny(tmp_path / "C", "--start", masks) == 2
    assert "start of TagClassifier" in capsys.readouterr().err
    assert run_tiny(tmp_path / "D", "--start", "toy", "--backbone", "toy_mit2") == 2
    assert "no weights of tags on toy_mit2" in capsys.readouterr().err
    assert not (tmp_path / "C").exists()
    assert not (tmp_path / "D").exists()
