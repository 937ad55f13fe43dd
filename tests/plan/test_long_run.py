"""What the notebooks share: settings, plans that count kinds of steps, probes without data."""

import dataclasses
import json
import math

import pytest
import torch
from tiny_recipes import option, step_kind

from wsss_lab import viz
from wsss_lab.__main__ import main
from wsss_lab.data.config import DataConfig
from wsss_lab.data.random_images import RandomImages, random_data
from wsss_lab.methods.tscd.method import TSCD
from wsss_lab.plan.long_run import LEFT_OUT, PARAMETERS, LongRun, configure, make_plan
from wsss_lab.runs.folder import RunFolder
from wsss_lab.runs.recipe import find_preset
from wsss_lab.runs.settings import plain

MORE = {
    "cam_baseline": {"mask_steps": 2, "cam_scales": [1.0]},
    "tscd": {"method.scales": [1.0], "method.warmup": 0, "method.view_scale": 0.6},
    "asdt": {"report": 2, "method.scales": [1.0], "method.warmup": 0, "method.period": 2},
    "acr": {"mask_steps": 2, "affinity.steps": 2, "affinity.batch": 2, "affinity.walk": 4},
    "cosa": {"method.scales": [1.0], "method.warmup": 0, "method.queue_rows": 8},
}
LABELS = {"cam_baseline": "labels", "acr": "propagated"}
"""Method of several stages -> folder of the labels that its segmentation network learns."""
TRAININGS = {"cam_baseline": ["tags", "masks"], "acr": ["fit", "affinity", "masks"]}
TINY = {"data.size": 64, "data.crop": 64, "data.count": 4, "data.val_count": 2}
TINY |= {"run.steps": 4, "run.batch": 2, "run.log_every": 1, "run.save_every": 2}


def parameters(name, folder, **values):
    """As the cells of a notebook leave them."""
    report = {"report_train": 2} if name in LABELS else {}
    given = {"preset": "toy", "data": "", "root": "", "weights": "", "out": str(folder)}
    given |= {"probe_only": False, "more": TINY | MORE[name] | report, "viz": None}
    return given | values


def test_settings_come_from_parameters(tmp_path):
    config = configure("cosa", parameters("cosa", tmp_path, steps=7, scales=[1.0, 2.0], devices=2))
    assert (config.run.steps, config.run.devices) == (4, 2)  # `more` has the last word
    assert config.method.scales == (1.0,)
    assert (config.data.name, config.data.root, config.weights) == ("toy", None, "toy")
    given = parameters("tscd", tmp_path, weights="random", data="voc", root="there", more={})
    config = configure("tscd", given)
    assert (config.weights, config.data.name, str(config.data.root)) == ("random", "voc", "there")
    with pytest.raises(ValueError, match=r"run\.steps: expected int, got '7'"):
        configure("tscd", given | {"steps": "7"})
    with pytest.raises(ValueError, match=r"affinity\.steps"):
        configure("tscd", given | {"affinity_steps": 3})
    names = {name.split(".")[0] for name in PARAMETERS.values()}
    configs = (find_preset(name, "toy") for name in ("acr", "asdt"))
    assert names <= {f.name for config in configs for f in dataclasses.fields(config)}


@pytest.mark.parametrize(
    ("name", "preset", "kind", "count"),
    [
        ("tscd", "voc", "fit, tags only", 2001),  # steps 0 to 2000
        ("tscd", "voc-released", "fit, tags only", 0),  # computes everything, and weighs it by 0
        ("cosa", "coco", "fit, tags only", 10_001),
        # pulses of 25 steps start at 1050, 1200, ..., 19 950: 127 of them
        ("asdt", "voc", "fit, both teachers", 127 * 25),
        ("asdt", "voc-released", "fit, both teachers", 127 * 25),  # labels that no loss uses
    ],
)
def test_kinds_of_steps_are_counted(name, preset, kind, count):
    config = find_preset(name, preset)
    kinds = [step_kind(name)(config, step) for step in range(config.run.steps)]
    assert kinds.count(kind) == count
    assert len(set(kinds)) == 1 + (count > 0)


def test_a_probe_times_the_kind_it_names(tmp_path, monkeypatch):
    told = []
    step_of = TSCD.training_step
    monkeypatch.setattr(
        TSCD,
        "training_step",
        lambda self, batch, step: told.append(step) or step_of(self, batch, step),
    )
    config = configure("tscd", parameters("tscd", tmp_path))
    config = dataclasses.replace(config, method=dataclasses.replace(config.method, warmup=1))
    made = make_plan("tscd", config, tmp_path / "new", 1, 1)
    assert not (tmp_path / "new").exists()
    assert told == [0, 1, 0, 2, 3, 2]  # one step to time and two before it, of each kind
    assert [(s.name, s.amount) for s in made.stages] == [
        ("fit, tags only", 2),
        ("fit, all losses", 2),
        ("evaluate", 2),
    ]
    assert made.stages[0].images_per_second == pytest.approx(2 / made.stages[0].probe.seconds)
    assert math.isnan(make_plan("tscd", config, tmp_path / "new", 0, 1).hours)


def test_the_plan_of_a_method_that_is_not_there(tmp_path):
    with pytest.raises(ValueError, match="expected one of cam_baseline, tscd"):
        make_plan("magic", None, tmp_path, 1, 1)


@pytest.mark.parametrize("name", MORE)
def test_probe_from_the_command_line(name, tmp_path, capsys):
    changes = [word for item in (TINY | MORE[name]).items() for word in option(*item)]
    words = ["plan", name, "--timed-steps", "1", "--timed-images", "1"]
    assert main([*words, "--out", str(tmp_path / "a" / "p.json"), *changes]) == 0
    printed = capsys.readouterr()
    found = json.loads(printed.out)
    assert found == json.loads((tmp_path / "a" / "p.json").read_text())
    assert (found["method"], found["weights"], found["batch"]) == (name, "random", 2)
    assert found["data"] == "random images of 64 x 64 px in the place of toy"
    for stage in found["stages"]:
        assert stage["images_per_s"] > 0
        assert stage["memory_gb"] > 0
        assert stage["done"] == 0
    hours = sum(stage["hours_left"] for stage in found["stages"])
    assert found["hours_left"] == pytest.approx(hours, rel=1e-3)
    assert "images/s" in printed.err


def test_a_wrong_probe_is_one_line(capsys):
    assert main(["plan", "tscd", "--preset", "stuff10k"]) == 2
    assert main(["plan", "tscd", "--run.batch", "many"]) == 2
    assert main(["plan", "tscd", "--data.name", "folder"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3
    assert all(line.startswith("error: ") for line in lines)


def test_random_images_stand_for_a_data_set():
    train, val = random_data(DataConfig(name="voc"))
    assert (len(train), len(val)) == (10_582, 1449)
    assert train.num_classes == 20
    sample, held = train[10_000], val[7]
    assert sample["image"].shape == (3, 375, 500)
    assert "mask" not in sample
    values = set(held["mask"].unique().tolist())
    assert values <= {0, *(held["tags"].nonzero()[:, 0] + 1).tolist()}
    assert len({train.names[i] for i in (0, 16, 10_581)}) == 3
    stuff = random_data(DataConfig(name="stuff10k", convention="things"))[0]
    assert stuff.num_classes == 80
    with pytest.raises(ValueError, match="val_split"):
        random_data(DataConfig(name="coco", val_split="mine"))


def test_random_images_are_smooth_and_repeatable():
    made = [RandomImages((40, 60), 5, "abcd", tags=2.0, seed=3) for _ in range(2)]
    assert torch.equal(made[0].images, made[1].images)
    assert torch.equal(made[0].tags, made[1].tags)
    assert (made[0].tags.sum(1) >= 1).all()
    pixels = made[0].images.float()
    assert (pixels.diff(dim=-1).abs().mean() < 0.3 * pixels.std()).item()


@pytest.fixture(scope="module", params=["cam_baseline", "acr", "tscd"])
def done(request, tmp_path_factory):
    """A finished run, and what its notebook prints."""
    folder = tmp_path_factory.mktemp("runs") / request.param
    run = LongRun.of(request.param, parameters(request.param, folder))
    return run, run.train()


def test_what_a_notebook_shows(done):
    run, metrics = done
    assert metrics["config"] == plain(run.config)
    labelled = run.method in LABELS
    assert list(run.logs()) == TRAININGS.get(run.method, ["fit"])
    assert viz.png_bytes(viz.training_curves(run.logs()))[:4] == b"\x89PNG"
    rows, classes = run.examples("train", 1)
    assert (len(rows), len(classes)) == (1, 11)
    assert (rows[0]["pseudo_label"] is not None) == labelled
    assert rows[0]["cam"] is not None
    assert rows[0]["truth"] is not None
    assert len(run.examples("val", 5)[0]) == 2
    assert viz.png_bytes(viz.gallery(rows, classes=classes))[:4] == b"\x89PNG"
    assert "metrics.json" in run.files()
    assert labelled == (f"4 files  {LABELS.get(run.method)}/" in run.files())
    table = run.beside_published(metrics)
    assert f"{100 * metrics['results']['val']['seg']['miou']:.1f}" in table
    assert "no true tags" in table
    assert ("labels, toy train" in table) == labelled
    assert ("TRUE TAGS" in table) == labelled  # its labels are of images whose tags are given


def test_what_is_done_is_not_planned_again(done):
    run, _ = done
    made = make_plan(run.method, run.config, run.folder, 0, 1)
    left = {stage.name: stage.amount - stage.done for stage in made.stages}
    assert left.pop("evaluate") == 2
    assert set(left.values()) == {0}
    assert run.check(2).count("opened") == 2


def test_acr_may_stop_at_its_maps(tmp_path):
    run = LongRun.of("acr", parameters("acr", tmp_path / "out"))
    config = dataclasses.replace(run.config, until="maps", report_train=0)
    made = make_plan("acr", config, run.folder, 1, 1)
    assert [stage.name for stage in made.stages] == ["fit", "evaluate"]
    run = dataclasses.replace(run, config=config)
    assert "acr, seg" not in run.beside_published(run.train())
    rows, _ = run.examples("train", 1)
    assert rows[0]["cam"] is not None
    assert rows[0]["prediction"] is None


def test_a_plan_is_kept_beside_the_run(tmp_path):
    out = tmp_path / "out"
    run = LongRun.of("cosa", parameters("cosa", out))
    run.plan(0, 1)
    assert not out.exists()  # nothing was timed
    run.plan(1, 1)
    kept = json.loads((out / "plan.json").read_text())
    assert (kept["method"], kept["batch"], kept["crop"]) == ("cosa", 2, 64)
    assert sum(stage["amount"] for stage in kept["stages"]) == 4 + 2  # steps, images
    RunFolder(out, "cosa", run.config, resume=False).begin()  # the folder is free for the run
    (out / "plan.json").write_text("{}")
    run.plan(1, 1)
    assert (out / "plan.json").read_text() == "{}"
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "mine.txt").touch()
    dataclasses.replace(run, folder=tmp_path / "other").plan(1, 1)
    assert [file.name for file in (tmp_path / "other").iterdir()] == ["mine.txt"]


def test_probe_only_reads_and_trains_nothing(tmp_path):
    out = tmp_path / "out"
    given = parameters("cosa", out, probe_only=True, data="voc", root="nowhere", crop=64)
    run = LongRun.of("cosa", given | {"more": TINY | MORE["cosa"] | {"data.crop": 64}})
    assert "no data set is read" in run.check(5)
    text = run.plan(1, 1)
    assert text.startswith("random images of 500 x 375 px in the place of voc")
    written = json.loads((out / "probe.json").read_text())
    assert [stage["amount"] for stage in written["stages"]] == [1, 3, 1449]
    assert run.train() == {}
    assert run.beside_published({}) == LEFT_OUT
    assert run.examples("val", 0) == ([], ())
    assert [file.name for file in out.iterdir()] == ["probe.json"]
