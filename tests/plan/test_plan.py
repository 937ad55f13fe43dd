"""The plan of a run: data that is read before, hours that add up, and a run that stays the same."""

import dataclasses
import hashlib
import math

import pytest
import torch

from wsss_lab.__main__ import main
from wsss_lab.config import RunConfig
from wsss_lab.data.config import DataConfig
from wsss_lab.data.errors import DataError
from wsss_lab.data.toy import write_voc
from wsss_lab.plan.plan import Plan, Stage, data_report, steps_done
from wsss_lab.plan.probe import Probe, _together
from wsss_lab.recipes.cam_baseline.config import Config
from wsss_lab.recipes.cam_baseline.plan import plan
from wsss_lab.recipes.cam_baseline.recipe import train
from wsss_lab.runs.examples import examples
from wsss_lab.runs.images import load_data
from wsss_lab.runs.launch import follow, run_or_resume
from wsss_lab.runs.settings import plain
from wsss_lab.train.log import read_log
from wsss_lab.viz import gallery, png_bytes, training_curves


def settings(world, **run):
    values = {"steps": 3, "batch": 2, "log_every": 2, "save_every": 1, **run}
    return Config(
        data=DataConfig(name="voc", root=world, train_split="train", crop=48),
        run=RunConfig(**values),
        cam_scales=(1.0,),
        report_train=0,
    )


@pytest.fixture(scope="module")
def done(world, tmp_path_factory):
    out = tmp_path_factory.mktemp("run") / "A"
    train(settings(world), out, log=lambda line: None)
    return out


def test_data_report(world):
    text = data_report(settings(world).data)
    assert "list 'train', 6 images, 10 classes; 6 opened" in text
    assert "list 'val', 3 images, 10 classes; 3 opened" in text
    assert "2 opened" in data_report(settings(world).data, look=2)


def test_data_report_names_what_is_missing(world, tmp_path):
    data = settings(world).data
    with pytest.raises(DataError, match="JPEGImages"):
        data_report(dataclasses.replace(data, root=tmp_path))
    with pytest.raises(ValueError, match="python -m wsss_lab data voc --root DIR"):
        data_report(dataclasses.replace(data, root=None))
    write_voc(tmp_path / "w", split="train", count=4, size=48)
    write_voc(tmp_path / "w", split="val", count=2, size=48)
    files = sorted((tmp_path / "w" / "JPEGImages").glob("*.jpg"))
    files[0].write_bytes(files[0].read_bytes()[:200])
    files[-1].write_bytes(b"")
    with pytest.raises(DataError) as caught:
        data_report(dataclasses.replace(data, root=tmp_path / "w"), look=-1)
    assert files[0].name in str(caught.value)
    assert files[-1].name in str(caught.value)


def test_lists_with_other_classes_are_refused(tmp_path):
    import shutil

    write_voc(tmp_path / "w", split="train", count=2, size=48)
    images = sorted((tmp_path / "w" / "JPEGImages").glob("*.jpg"))
    (tmp_path / "own" / "images").mkdir(parents=True)
    (tmp_path / "own" / "masks").mkdir()
    for image in images:
        shutil.copy(image, tmp_path / "own" / "images")
        mask = tmp_path / "w" / "SegmentationClass" / f"{image.stem}.png"
        shutil.copy(mask, tmp_path / "own" / "masks")
    one, two = (image.stem for image in images)
    (tmp_path / "own" / "tags_train.csv").write_text(f"name,cat,dog\n{one},1,0\n")
    (tmp_path / "own" / "tags_val.csv").write_text(f"name,cat,cow\n{two},1,0\n")
    with pytest.raises(DataError, match=r"classes\.txt"):
        data_report(DataConfig(name="folder", root=tmp_path / "own"), look=0)


def test_the_plan_adds_up():
    probe = Probe(seconds=2.0, memory=1.0)
    half = Stage("tags", 1000, "steps", 100, probe)
    rest = Stage("labels", 450, "images", 0, Probe(4.0, 1.0))
    assert Plan((half, rest), "cpu", 1.0, 9.0).hours == pytest.approx(1.0)
    assert "1:00:00" in str(Plan((half, rest), "cpu", 1.0, 9.0))
    unknown = Plan((half, Stage("labels", 1, "images")), "cpu", 10.0, 9.0)
    assert math.isnan(unknown.hours)
    assert "not timed" in str(unknown)
    assert "disk is too small" in str(unknown)
    assert Plan((Stage("tags", 5, "steps", 5),), "cpu", 1.0, 9.0).hours == 0


def test_reading_and_computing_happen_at_once_with_workers(monkeypatch):
    monkeypatch.setattr("os.cpu_count", lambda: 8)
    assert _together(3.0, 1.0, RunConfig(workers=0))[0] == 4.0
    assert _together(3.0, 1.0, RunConfig(workers=2))[0] == 1.5
    assert _together(3.0, 1.0, RunConfig(workers=100))[0] == 1.0  # 8 cores read in 3/8 s
    bound = _together(3.0, 0.5, RunConfig(workers=100, accelerator="cpu", devices=4))
    assert bound[0] == 1.5  # each of 4 has two cores
    assert bound[1].startswith("reading")


def test_a_probe_changes_nothing(world, done, tmp_path):
    """The run after a plan has the bytes of the run without one; and nothing is written before."""
    out, config = tmp_path / "B", settings(world)
    made = plan(config, out, steps=1, images=1)
    assert not out.exists()
    assert made.hours > 0
    assert [stage.name for stage in made.stages] == ["tags", "labels", "masks", "evaluate"]
    run_or_resume("cam_baseline", config, out, log=lambda line: None)
    for name in ("model.safetensors", "tags/model.safetensors", "metrics.json"):
        digests = [hashlib.sha256((f / name).read_bytes()).hexdigest() for f in (done, out)]
        assert digests[0] == digests[1], name


def test_what_is_done_is_left_out(world, done):
    finished = plan(settings(world), done, steps=0)
    assert [stage.done for stage in finished.stages] == [3, 6, 3, 0]
    assert steps_done(None, "model.safetensors", 3) == 0
    assert steps_done(done / "tags", "no such file", 10) == 3  # its newest checkpoint
    assert steps_done(done / "nowhere", "model.safetensors", 10) == 0


def test_several_devices_are_left_to_the_command_line(world, tmp_path, monkeypatch):
    """With one device put in place of two, the command does the rest in this process."""
    commands = []

    def follow_here(command, log):
        commands.append(command)
        assert command[1:5] == ["-m", "wsss_lab", "train", "cam_baseline"]
        at = command.index("--run.devices") + 1
        assert command[at] == "2"
        assert main([*command[3:at], "1", *command[at + 1 :]]) == 0

    monkeypatch.setattr("wsss_lab.runs.launch.follow", follow_here)
    out, config = tmp_path / "two", settings(world, accelerator="cpu", devices=2)
    metrics = run_or_resume("cam_baseline", config, out)
    assert metrics["config"] == plain(config)
    assert metrics["results"]["val"]["seg"]["protocol"]["images"] == 3
    assert len(commands) == 1


def test_a_command_that_fails_says_why():
    import sys

    lines = []
    with pytest.raises(RuntimeError, match="exit code 3: the reason"):
        follow([sys.executable, "-c", "print('the reason'); raise SystemExit(3)"], lines.append)
    assert lines == ["the reason"]


def test_examples_curves_and_gallery(world, done):
    logs = {part: read_log(done / part / "log.csv") for part in ("tags", "masks")}
    assert [entry["step"] for entry in logs["tags"]] == [0, 2]
    assert png_bytes(training_curves(logs))[:4] == b"\x89PNG"
    images = load_data(settings(world).data, "train", masks=True)
    maps, labels = done / "tags" / "model.safetensors", done / "labels"
    shown = examples(images, [0, 2], done, maps=maps, labels=labels, tell_tags=True)
    for example in shown:
        shapes = {key: tuple(example[key].shape) for key in example if key != "name"}
        assert shapes.pop("image") == (3, 48, 48)
        assert set(shapes.values()) == {(48, 48)}
        assert 0 <= example["cam"].min() <= example["cam"].max() <= 1
    assert png_bytes(gallery(shown, classes=("background", *images.class_names)))[:4] == b"\x89PNG"
    (val,) = examples(load_data(settings(world).data, "val"), [1], done, maps=maps)
    assert val["pseudo_label"] is None
    assert len(gallery([val]).axes) == 4
    alone = examples(images, [0], done)[0]
    assert alone["cam"] is None  # the segmentation network has no class maps
    assert torch.equal(alone["prediction"], shown[0]["prediction"])


def test_pictures_of_nothing_are_refused():
    with pytest.raises(ValueError, match="at least one stage"):
        training_curves({"tags": []})
    with pytest.raises(ValueError, match="at least one example"):
        gallery([])
    with pytest.raises(ValueError, match="columns"):
        gallery([{"image": torch.zeros(3, 4, 4)}], ["photo"])
