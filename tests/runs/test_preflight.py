"""What would stop a run in hours stops it in its first seconds; the setting at fault is named."""

import shutil
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from wsss_lab.__main__ import main
from wsss_lab.config import OptimConfig, RunConfig
from wsss_lab.models import timm_weights
from wsss_lab.runs import images, preflight
from wsss_lab.runs.recipe import RECIPES, find_preset
from wsss_lab.train.checkpoint import save_checkpoint

TINY = ["--data.count", "8", "--data.val-count", "2", "--data.size", "48", "--data.crop", "48"]
TINY += ["--run.batch", "4", "--run.steps", "3"]


@pytest.fixture
def refused(tmp_path, monkeypatch, capsys):
    """Run `train METHOD ...`; it must fail before a scene is drawn, and leave nothing."""

    def drawn(*_, **__):
        raise AssertionError("scenes are drawn")

    monkeypatch.setattr(images.InMemory, "__init__", drawn)
    monkeypatch.setattr(images.CachedToyWorld, "__init__", drawn)

    def run(method, *options):
        out = tmp_path / "run"
        arguments = ["train", method, "--preset", "toy", *TINY, *options, "--out", out]
        assert main([str(a) for a in arguments]) == 2
        assert not out.exists()
        return capsys.readouterr().err

    return run


NAMES = [
    ("cam_baseline", "--backbone", "toy_cmm", "backbone: "),
    ("cam_baseline", "--backbone", "timm:resnot", "backbone: timm has no"),
    ("cam_baseline", "--weights", "imagenett", "weights: "),
    ("cam_baseline", "--weights", "nowhere.pth", "weights: "),
    ("cam_baseline", "--test.crf", "cvpr", "test.crf: "),
    ("tscd", "--method.backbone", "toy_mitt", "method.backbone: "),
    ("asdt", "--weights", "imagenett", "weights: "),
    ("cosa", "--start", "nowhere", "start: "),
    ("acr", "--backbone", "toy_vitt", "backbone: "),
    ("acr", "--affinity.backbone", "toy_cmm", "affinity.backbone: "),
    ("acr", "--affinity.weights", "imagenett", "affinity.weights: "),
    ("acr", "--mask-backbone", "toy_cmm", "mask_backbone: "),
    ("acr", "--mask-weights", "nowhere.pth", "mask_weights: "),
    ("acr", "--label-crf", "cvpr", "label_crf: "),
    ("acr", "--affinity.crf", "cvpr", "affinity.crf: "),
    ("acr", "--affinity.batch", "9", "affinity.batch: 9 images per step"),
    ("acr", "--mask-batch", "9", "mask_batch: 9 images per step"),
    ("acr", "--run.batch", "9", "run.batch: 9 images per step"),
    ("cam_baseline", "--run.batch", "9", "run.batch: 9 images per step"),
    ("cam_baseline", "--run.accumulate", "3", "run.batch: 4 images cannot be shared"),
    ("cam_baseline", "--data.name", "voc", "data.root: "),
]


@pytest.mark.parametrize(("method", "option", "value", "words"), NAMES)
def test_the_setting_at_fault_is_named(method, option, value, words, refused):
    assert refused(method, option, value).startswith(f"error: {words}")


@pytest.mark.parametrize("method", ["cam_baseline", "acr"])
def test_weights_out_of_reach(method, refused, monkeypatch):
    monkeypatch.setattr(timm_weights, "_cached", lambda tag: None)
    monkeypatch.setattr(timm_weights, "_hub_reachable", lambda: False)
    prefix = {"acr": "mask_", "cam_baseline": ""}[method]
    option = prefix.replace("_", "-")
    said = refused(method, f"--{option}backbone", "resnet18", f"--{option}weights", "imagenet")
    assert said.startswith(f"error: {prefix}weights: cannot get the weights resnet18.tv_in1k")


def test_stages_that_a_run_leaves_out_are_not_asked_for():
    config = find_preset("acr", "toy")
    assert len(RECIPES["acr"].stages(config)) == 2 + (config.propagation == "affinity")
    import dataclasses

    short = dataclasses.replace(config, until="maps", mask_backbone="nothing")
    assert [stage.backbone for stage in RECIPES["acr"].stages(short)] == ["backbone"]


def test_every_recipe_of_this_package_is_looked_at_beforehand():
    assert all(recipe.stages for recipe in RECIPES.values())


def test_tensorboard_that_is_not_installed(refused, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    assert refused("tscd", "--run.tensorboard").startswith("error: run.tensorboard: ")


def test_too_little_space_on_the_disk(refused, monkeypatch):
    usage = shutil.disk_usage(".")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1_000_000))
    assert refused("asdt").startswith("error: out: checkpoints and weights of this run need 0.0")


def test_too_few_open_files(refused, monkeypatch):
    resource = pytest.importorskip("resource")
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (256, 256))
    assert refused("cam_baseline", "--run.workers", "8").startswith("error: run.workers: 8 need")


def test_the_limit_of_open_files_is_raised_where_that_is_allowed(monkeypatch):
    resource = pytest.importorskip("resource")
    given = []
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (256, 4096))
    monkeypatch.setattr(resource, "setrlimit", lambda kind, limits: given.append(limits))
    preflight.raise_open_files(8)
    preflight.raise_open_files(0)
    assert given == [(384, 4096)]


def own_folder(root, val="name,tags\ni0,cat\n", classes=("cat", "dog")):
    (root / "images").mkdir(parents=True)
    (root / "masks").mkdir()
    (root / "classes.txt").write_text("".join(f"{name}\n" for name in classes))
    for i in range(8):
        Image.fromarray(np.zeros((48, 48, 3), np.uint8)).save(root / "images" / f"i{i}.png")
        Image.fromarray(np.zeros((48, 48), np.uint8)).save(root / "masks" / f"i{i}.png")
    (root / "tags_train.csv").write_text("name,tags\n" + "".join(f"i{i},cat\n" for i in range(8)))
    (root / "tags_val.csv").write_text(val)
    return "--data.name", "folder", "--data.root", root


def test_a_list_that_is_empty(refused, tmp_path):
    options = own_folder(tmp_path / "mine", val="name,tags\n")
    assert refused("cam_baseline", *options).startswith("error: data.val_split: the list 'val' is")


def test_more_classes_than_label_images_can_hold(refused, tmp_path):
    options = own_folder(tmp_path / "mine", classes=["cat", *(f"c{i}" for i in range(254))])
    assert "names 255 classes, but masks of 8 bits hold 254" in refused("cam_baseline", *options)


def test_the_disk_that_is_asked_for_is_what_a_checkpoint_takes(tmp_path):
    network = torch.nn.Linear(300, 300)
    optimizer = torch.optim.AdamW(network.parameters())
    network(torch.ones(300)).sum().backward()
    optimizer.step()
    content = {"model": network.state_dict(), "optimizer": optimizer.state_dict(), "step": 1}
    size = save_checkpoint(tmp_path, content, 2).stat().st_size
    state = 300 * 301 * 4
    for run, files in (
        (RunConfig(steps=9, save_every=1, keep=2), 3),  # one more while it is written
        (RunConfig(steps=2, save_every=1, keep=4), 2),
        (RunConfig(steps=9, save_every=0), 1),
    ):
        asked = preflight.stage_bytes(network, run, OptimConfig())
        assert asked == pytest.approx(files * size + state, rel=0.01)


@pytest.mark.parametrize(
    ("method", "options", "words"),
    [
        ("cosa", {"method.warmup": 6}, "run.steps is 6, not more than method.warmup (6)"),
        ("cam_baseline", {"optim.warmup": 6}, "optim.warmup is 6"),
        ("cam_baseline", {"mask_optim.warmup": 8, "mask_steps": 8}, "mask_steps is 8"),
        ("acr", {"affinity.optim.warmup": 9, "affinity.steps": 9}, "affinity.steps is 9"),
    ],
)
def test_a_warm_up_that_does_not_end_is_a_warning(method, options, words):
    from wsss_lab.runs.settings import with_changes

    config = with_changes(find_preset(method, "toy"), {"run.steps": 6} | options)
    given = RECIPES[method].stages(config)
    (line,) = preflight.warm_up_warnings(config, given)
    assert line.startswith("WARNING: ")
    assert words in line
    config = with_changes(config, {"run.steps": 100, **dict.fromkeys(options, 5)})
    config = with_changes(config, {name: 90 for name in options if name.endswith("steps")})
    assert preflight.warm_up_warnings(config, RECIPES[method].stages(config)) == []


def test_looking_ahead_draws_no_random_numbers(tmp_path):
    config = find_preset("cam_baseline", "toy")
    before = torch.get_rng_state()
    preflight.preflight(config, tmp_path, RECIPES["cam_baseline"].stages(config), print)
    assert torch.equal(torch.get_rng_state(), before)
