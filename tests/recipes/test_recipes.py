"""Run folders, the CAM baseline on a small world, and every way in which a run may not start."""

import errno
import json
import os

import numpy as np
import pytest
import torch

import wsss_lab.runs.folder as folder_module
from wsss_lab.__main__ import main
from wsss_lab.config import OptimConfig, RunConfig
from wsss_lab.data.catalog import TOY_CLASSES
from wsss_lab.data.config import DataConfig
from wsss_lab.data.masks import read_mask
from wsss_lab.data.toy import write_voc
from wsss_lab.recipes.cam_baseline.config import PRESETS, Config, TestConfig
from wsss_lab.recipes.cam_baseline.recipe import train
from wsss_lab.runs.folder import RunFolder, read_run
from wsss_lab.runs.recipe import RECIPES, find_preset, find_recipe
from wsss_lab.runs.settings import plain, restore
from wsss_lab.runs.stages import silent
from wsss_lab.runs.weights import load_trained
from wsss_lab.runs.weights_file import read_facts

CLASSES = 10


def settings(world, **changes):
    values = {
        "data": DataConfig(name="voc", root=world, train_split="train", crop=48),
        "run": RunConfig(steps=2, batch=2, log_every=0),
        "cam_scales": (1.0,),
        "test": TestConfig(tags_at_test=True),
        "report_train": 4,
    }
    return Config(**{**values, **changes})


@pytest.fixture(scope="module")
def done(world, tmp_path_factory):
    """A finished run, what it returned, and what it logged."""
    out, lines = tmp_path_factory.mktemp("runs") / "A", []
    return out, train(settings(world), out, log=lines.append), "\n".join(lines)


def test_the_folder_holds_what_it_should(done, world):
    out, metrics, _ = done
    assert json.loads((out / "metrics.json").read_text()) == json.loads(json.dumps(plain(metrics)))
    assert {"method", "config", "git", "versions", "seed", "device", "weights", "results"} <= set(
        metrics
    )
    assert metrics["weights"] == "toy"
    assert restore(Config, metrics["config"]) == settings(world)
    assert metrics["git"] == read_run(out)["git"]
    assert (out / "tags" / "log.csv").is_file()
    names = (world / "ImageSets" / "Segmentation" / "train.txt").read_text().split()
    for name in names:
        assert read_mask(out / "labels" / f"{name}.png", CLASSES + 1, check_palette=True).shape == (
            48,
            48,
        )


def test_reports_say_what_they_are(done):
    _, metrics, log = done
    val = metrics["results"]["val"]
    assert set(val) == {"seg", "seg+true tags", "cam", "cam+true tags", "tags"}
    for kind in ("seg", "cam"):
        assert val[kind]["protocol"]["tags_at_test"] is False
        assert val[f"{kind}+true tags"]["protocol"]["tags_at_test"] is True
        assert val[kind]["protocol"]["images"] == 3
    pseudo = metrics["results"]["pseudo_labels"]["cam+true tags"]
    assert pseudo["protocol"]["images"] == 4
    assert pseudo["protocol"]["thresholds"] == "fixed at 0.4"
    assert 0 <= pseudo["best_threshold_on_truth"] < 1
    assert "chosen on the truth" in log
    assert "tags at test: yes" in log


def test_refined_maps_give_other_labels_and_are_reported_so(done, world, tmp_path):
    out, _, _ = done
    metrics = train(settings(world, refine_steps=3), tmp_path / "R", log=silent)
    pseudo = metrics["results"]["pseudo_labels"]["cam+true tags"]
    assert pseudo["protocol"]["thresholds"] == "fixed at 0.4, after PAR, 3 steps"
    files = sorted((out / "labels").glob("*.png"))
    assert files
    for file in files:
        assert (tmp_path / "R" / "labels" / file.name).is_file()
    assert any(
        (read_mask(file, 11) != read_mask(tmp_path / "R" / "labels" / file.name, 11)).any()
        for file in files
    )


def test_labels_do_not_depend_on_the_truth(done, world, tmp_path):
    """The same run on a world without any training mask."""
    out, _, _ = done
    blind = tmp_path / "blind"
    write_voc(blind, split="train", count=6, size=48)
    for mask in (blind / "SegmentationClass").glob("*.png"):
        mask.unlink()
    write_voc(blind, split="val", count=3, size=48)
    lines = []
    data = DataConfig(name="voc", root=blind, train_split="train", crop=48)
    train(settings(world, data=data), tmp_path / "B", log=lines.append)
    for label in (out / "labels").glob("*.png"):
        assert label.read_bytes() == (tmp_path / "B" / "labels" / label.name).read_bytes()
    assert any(line.startswith("no report on the maps of the training") for line in lines)


def test_weights_files_say_what_they_are(done):
    out, _, _ = done
    facts = read_facts(out / "model.safetensors")
    assert (facts["method"], facts["part"]) == ("cam_baseline", "SegNetwork")
    assert len(facts["classes"]) == CLASSES + 1
    trained = load_trained(out)
    method, views, classes = trained.method, trained.views, trained.classes
    output = method.predict(torch.rand(1, 3, 48, 64))
    assert output.logits.shape[1] == len(classes)
    assert views.logits.fuse_scale == "mean"
    trained = load_trained(out / "tags" / "model.safetensors")
    tags, views = trained.method, trained.views
    assert tags.predict(torch.rand(1, 3, 48, 64)).cam.shape[1] == CLASSES
    assert views.cam.flip


def snapshot(folder):
    return {
        str(f.relative_to(folder)): f.read_bytes() for f in sorted(folder.rglob("*")) if f.is_file()
    }


def command(world, out, *more):
    arguments = ["train", "cam_baseline", "--preset", "toy", "--out", str(out)]
    arguments += ["--data.name", "voc", "--data.root", str(world), "--data.train-split", "train"]
    arguments += ["--data.crop", "48", "--run.steps", "2", "--run.batch", "2"]
    arguments += ["--run.log-every", "0", "--cam-scales", "1", "--report-train", "4"]
    return [
        *arguments,
        "--mask-steps",
        "0",
        "--run.save-every",
        "500",
        "--test.tags-at-test",
        *more,
    ]


def refused(arguments, capsys, *words):
    """Exit code 2 and one line on standard error that holds all of these words."""
    capsys.readouterr()
    assert main([str(a) for a in arguments]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1, lines
    for word in words:
        assert word in lines[0], lines[0]


def test_refusals_around_the_folder_leave_it_untouched(done, world, tmp_path, capsys):
    out, _, _ = done
    before = snapshot(out)
    refused(command(world, out), capsys, str(out), "holds a run already", "--resume")
    other = command(world, out, "--resume", "--run.steps", "3", "--threshold", "0.5")
    refused(other, capsys, "other settings", "run.steps is 2 there and 3 here", "threshold")
    assert snapshot(out) == before

    foreign = tmp_path / "foreign"
    foreign.mkdir()
    run = read_run(out) | {"method": "tscd"}
    (foreign / "config.json").write_text(json.dumps(run))
    refused(command(world, foreign, "--resume"), capsys, "holds a run of tscd")
    plain_resume = ["train", "cam_baseline", "--out", foreign, "--resume"]
    refused(plain_resume, capsys, "holds a run of tscd")
    (foreign / "config.json").write_text("{")
    refused(command(world, foreign, "--resume"), capsys, "config.json: damaged")

    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / "cat.jpg").write_bytes(b"x")
    refused(command(world, photos), capsys, "has other content")
    refused(command(world, photos / "cat.jpg"), capsys, "is a file")
    refused(command(world, photos / "cat.jpg" / "A"), capsys, "cannot be written")
    assert [f.name for f in photos.iterdir()] == ["cat.jpg"]


def test_a_finished_run_can_be_resumed_by_its_own_settings(done, capsys):
    out, metrics, _ = done
    assert main(["train", "cam_baseline", "--out", str(out), "--resume"]) == 0
    assert capsys.readouterr().out.count("done already") == 3  # tags, labels, masks
    again = json.loads((out / "metrics.json").read_text())
    assert again["results"] == json.loads(json.dumps(metrics["results"]))


def test_a_checkpoint_of_another_method_is_refused(world, tmp_path, capsys):
    out = tmp_path / "A"
    folder = RunFolder(out, "cam_baseline", settings(world), resume=False)
    folder.begin(TOY_CLASSES)
    checkpoints = out / "tags" / "checkpoints"
    checkpoints.mkdir(parents=True)
    content = {"format": 1, "method": "Tscd", "step": 1, "optimizer": {}, "rng": []}
    content |= {
        "model": {"a": torch.zeros(1)},
        "config": {"run": {}, "optim": {}},
        "history": [],
        "scaler": {},
    }
    torch.save(content, checkpoints / "step_00000001.pt")
    before = snapshot(out)
    arguments = ["train", "cam_baseline", "--out", out, "--resume"]
    refused(arguments, capsys, "Tscd", "TagClassifier")
    assert snapshot(out) == before


def test_settings_that_do_not_fit(world, tmp_path, capsys):
    out = tmp_path / "A"
    refused(command(world, out, "--run.batch", 0), capsys, "batch: expected at least 1, got 0")
    refused(command(world, out, "--run.batch", 7), capsys, "run.batch: 7", "only 6")
    refused(command(world, out, "--run.batch", 3, "--run.accumulate", 2), capsys, "multiple of 2")
    refused(
        command(world, out, "--threshold", 2),
        capsys,
        "threshold: expected a number in [0, 1], got 2",
    )
    refused(command(world, out, "--test.crf", "sharper"), capsys, "crf: expected one of")
    refused(command(world, out, "--backbone", "resnet7"), capsys, "resnet7")
    refused(command(world, out, "--weights", "nowhere.pth"), capsys, "no weights file nowhere.pth")
    refused(command(world, out, "--data.root", tmp_path / "no"), capsys, str(tmp_path / "no"))
    refused(command(world, out, "--preset", "voc-released"), capsys, "no single released code")
    refused(command(world, out, "--run.stepz", 1), capsys, "--run.stepz", "--run.steps")
    assert not out.exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="for machines without a GPU")
def test_a_missing_gpu_is_said(world, tmp_path, capsys):
    out = tmp_path / "A"
    refused(command(world, out, "--run.accelerator", "cuda"), capsys, "GPU", "has 0")
    images = ["predict", world / "JPEGImages", "--out", out, "--device", "cuda"]
    refused(images, capsys, "no usable GPU")


def test_a_wrong_number_of_classes(world, tmp_path, capsys):
    """Training masks, and predicted ones, with more classes than are named."""
    fewer = tmp_path / "fewer"
    write_voc(fewer, split="train", count=4, size=48)
    classes = (fewer / "classes.txt").read_text().split()[:-1]
    (fewer / "classes.txt").write_text("\n".join(classes))
    rows = [r.rpartition(",")[0] for r in (fewer / "tags.csv").read_text().splitlines()]
    (fewer / "tags.csv").write_text("\n".join(rows) + "\n")
    data = ["--data.root", fewer, "--data.val-split", "train", "--report-train", 0]
    refused(command(fewer, tmp_path / "A", *data), capsys, "class")
    listed = world / "ImageSets" / "Segmentation" / "val.txt"
    truth = ["--truth", world / "SegmentationClass", "--list", listed]
    pred = ["eval", "--pred", world / "SegmentationClass", *truth, "--classes", 3]
    capsys.readouterr()
    assert main([str(a) for a in pred]) == 2
    assert "classes: expected 11 with background" in capsys.readouterr().err


def test_read_only_folder(world, tmp_path, capsys):
    out = tmp_path / "locked"
    out.mkdir()
    out.chmod(0o555)
    if os.access(out, os.W_OK):
        out = "/proc/locked"  # not even an administrator can make folders there
        if not os.path.isdir("/proc"):
            pytest.skip("no folder here that cannot be written")
    refused(command(world, out), capsys, str(out), "cannot be written")


@pytest.mark.parametrize("victim", ["config.json", "tags/checkpoints", "labels", "metrics.json"])
def test_disk_full_at_any_stage_then_resumed(world, tmp_path, capsys, monkeypatch, victim):
    """Writing to the victim fails with ENOSPC; what was there stays, and --resume finishes."""
    out = tmp_path / "A"
    replace = os.replace

    def full(source, target, **options):
        if victim in str(target).removeprefix(str(tmp_path)):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(target))
        return replace(source, target, **options)

    rename = type(out).replace
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full)
        patch.setattr(type(out), "replace", lambda self, target: full(self, target))
        refused(command(world, out), capsys, "No space left on device")
        files = snapshot(out)
        assert not any(victim in name for name in files)
        assert not any(name.endswith(".tmp") for name in files)
    assert type(out).replace is rename
    capsys.readouterr()
    resume = () if victim == "config.json" else ("--resume",)  # then there is no run yet
    assert main([str(a) for a in command(world, out, *resume)]) == 0
    assert (out / "metrics.json").is_file()
    later = snapshot(out)
    for name, content in files.items():
        assert later[name] == content or name.endswith(("log.csv", "stage.json"))


def test_settings_survive_json(world):
    for preset in (*PRESETS.values(), settings(world), Config(band=(0.2, 0.6))):
        assert restore(Config, json.loads(json.dumps(plain(preset)))) == preset
    with pytest.raises(ValueError, match=r"has no settings \['speed'\]"):
        restore(OptimConfig, {"speed": 3})


def test_presets_name_exact_weights_and_have_no_released_form():
    assert set(PRESETS) == {"tiny", "toy", "voc-mini", "voc", "coco", "stuff10k"}
    for name in ("voc", "coco", "stuff10k"):
        assert PRESETS[name].weights == "resnet50.tv_in1k"
        assert PRESETS[name].data.crop == 448
        with pytest.raises(ValueError, match="no single released code"):
            find_preset("cam_baseline", f"{name}-released")


def test_the_table_of_methods():
    for name, recipe in RECIPES.items():
        assert recipe.name == name
        assert "toy" in recipe.presets, name
        assert "voc" in recipe.presets or "voc" in recipe.missing_presets, name
        assert all(isinstance(preset, recipe.config) for preset in recipe.presets.values())
        assert callable(recipe.train)
        assert callable(recipe.load_method)
        assert callable(recipe.load_views)
    with pytest.raises(ValueError, match=r"METHOD: expected one of .*cam_baseline"):
        find_recipe("magic")


def test_other_processes_write_nothing(world, tmp_path, monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert not folder_module.is_first_process()
    folder = RunFolder(tmp_path / "A", "cam_baseline", settings(world), resume=False)
    folder.begin()
    folder.write_metrics({})
    assert not (tmp_path / "A").exists()


def test_bad_settings():
    for change, message in (
        ({"threshold": -1}, "threshold"),
        ({"mask_steps": -1}, "mask_steps"),
        ({"hidden": 0}, "hidden"),
    ):
        with pytest.raises(ValueError, match=message):
            Config(**change)


def test_pseudo_labels_use_the_band(world, tmp_path):
    config = settings(world, band=(0.2, 0.6), report_train=0)
    train(config, tmp_path / "A", log=silent)
    values = set()
    for label in (tmp_path / "A" / "labels").glob("*.png"):
        values |= set(np.unique(read_mask(label, CLASSES + 1)).tolist())
    assert 255 in values


EXTRAS = {"distinctive", "context", "instance"}
"""What an evaluation knows of toy scenes beyond their masks."""


def test_toy_scenes_in_memory_are_those_drawn_on_demand():
    from wsss_lab.data.toy import ToyWorld
    from wsss_lab.runs.images import load_data

    data = DataConfig(count=3, val_count=2, size=48)
    for split in ("train", "val"):
        kept = load_data(data, split)
        drawn = ToyWorld(split, len(kept), size=48, masks=split == "val")
        assert kept[0].keys() - drawn[0].keys() == (EXTRAS if split == "val" else set())
        drawn = ToyWorld(split, len(kept), size=48, masks=split == "val", extras=split == "val")
        for one, other in ((kept[i], drawn[i]) for i in range(len(kept))):
            assert one.keys() == other.keys() - {"part"}
            assert one["name"] == other["name"]
            for key in one.keys() - {"name"}:
                assert torch.equal(one[key], other[key])
                assert one[key].dtype == other[key].dtype
