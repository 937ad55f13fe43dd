"""Every paper's method from the command line: trains, learns, resumes exactly, can be used."""

import json
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_recipes import CHANGES, CLASSES, NAMES, SIDE, batch, build, optim, recipe_of

from wsss_lab.__main__ import main
from wsss_lab.config import OptimConfig, RunConfig
from wsss_lab.data.config import DataConfig
from wsss_lab.data.masks import read_mask
from wsss_lab.data.toy import ToyWorld, write_voc
from wsss_lab.evaluate.predict import toy_classifier
from wsss_lab.methods.cam_baseline import TagClassifier
from wsss_lab.models.backbones import build_backbone
from wsss_lab.recipes.acr import recipe as acr
from wsss_lab.runs.images import CachedToyWorld, load_data
from wsss_lab.runs.weights_file import save_weights
from wsss_lab.train.fit import fit

VAL = 3


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    write_voc(folder, split="train", count=6, size=SIDE)
    write_voc(folder, split="val", count=VAL, size=SIDE)
    return folder


def command(name, world, out, *more):
    words = ["train", name, "--preset", "toy", "--out", out, "--data.name", "voc"]
    words += ["--data.root", world, "--data.train-split", "train", "--data.crop", SIDE]
    words += ["--run.steps", 2, "--run.batch", 2, "--run.log-every", 1, "--test.tags-at-test"]
    for setting, value in CHANGES[name].items():
        values = value if isinstance(value, tuple) else (value,)
        words += [f"--method.{setting.replace('_', '-')}", *values]
    if name == "acr":
        words += ["--mask-steps", 2, "--report-train", 2, "--affinity.walk", 4]
        words += ["--affinity.steps", 2, "--affinity.batch", 2]
    return [str(word) for word in (*words, *more)]


@pytest.fixture(scope="module", params=NAMES)
def done(request, world, tmp_path_factory):
    """A finished run of two steps."""
    out = tmp_path_factory.mktemp("runs") / request.param
    assert main(command(request.param, world, out)) == 0
    return request.param, out


def test_a_run_leaves_network_and_scores(done):
    name, out = done
    metrics = json.loads((out / "metrics.json").read_text())
    val = metrics["results"]["val"]
    assert {"seg", "seg+true tags", "cam", "cam+true tags"} <= set(val)
    for kind in ("seg", "seg+true tags"):
        assert val[kind]["protocol"]["images"] == VAL
        assert val[kind]["protocol"]["tags_at_test"] is kind.endswith("true tags")
    assert (metrics["method"], metrics["weights"]) == (name, "toy")
    log = out / "fit" / "log.csv" if name == "acr" else out / "log.csv"
    assert len(log.read_text().splitlines()) == 3


def test_its_weights_are_told_scored_and_used(done, world, tmp_path, capsys):
    name, out = done
    capsys.readouterr()
    assert main(["info", "--weights", str(out)]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["kind"] == f"wsss_lab, {name}"
    assert facts["classes"] == CLASSES

    assert main(["eval", name, "--weights", str(out), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["results"]
    stated = json.loads((out / "metrics.json").read_text())["results"]["val"]
    for kind in ("seg", "seg+true tags"):
        assert found[kind]["miou"] == pytest.approx(stated[kind]["miou"], abs=1e-6)

    images = str(world / "JPEGImages")
    assert main(["predict", images, "--weights", str(out), "--out", str(tmp_path)]) == 0
    for file in (world / "JPEGImages").iterdir():
        assert read_mask(tmp_path / f"{file.stem}.png", CLASSES + 1).shape == (SIDE, SIDE)


def test_a_finished_run_resumes_to_the_same_scores(done, capsys):
    name, out = done
    before, weights = (out / "metrics.json").read_text(), (out / "model.safetensors").read_bytes()
    assert main(["train", name, "--out", str(out), "--resume"]) == 0
    assert "done already" in capsys.readouterr().out
    assert (out / "metrics.json").read_text() == before
    assert (out / "model.safetensors").read_bytes() == weights


def test_refusals_leave_the_run_alone(done, world, tmp_path, capsys):
    name, out = done
    files = {f: f.read_bytes() for f in out.rglob("*") if f.is_file()}
    other = NAMES[(NAMES.index(name) + 1) % len(NAMES)]
    for words, message in (
        (command(name, world, out), "holds a run already"),
        (command(name, world, out, "--resume", "--run.seed", "5"), "run.seed is 0 there and 5"),
        (command(other, world, out, "--resume"), f"holds a run of {name}"),
        (command(name, world, tmp_path / "A", "--run.batch", "7"), "run.batch: 7"),
        (command(name, world, tmp_path / "A", "--weights", "no.pth"), "no weights file no.pth"),
        (command(name, world, tmp_path / "A", "--test.crf", "soft"), "crf: expected one of"),
        (command(name, world, tmp_path / "A", "--test.views", "x"), "views: expected one of"),
        (["eval", other, "--weights", str(out)], f"is of {name}, not of {other}"),
    ):
        capsys.readouterr()
        assert main(words) == 2
        error = capsys.readouterr().err
        assert message in error
        assert len(error.splitlines()) == 1
    assert not (tmp_path / "A").exists()
    assert files == {f: f.read_bytes() for f in out.rglob("*") if f.is_file()}


@pytest.mark.parametrize("name", NAMES)
def test_one_batch_can_be_learned_by_heart(name):
    method, same = build(name), batch(count=4)
    slow = OptimConfig(lr=2e-4, warmup=0, schedule="constant") if name == "asdt" else optim(name)
    run = RunConfig(steps=16, batch=4, log_every=1)
    history = fit(method, lambda step: same, run, slow, log=None)
    losses = [entry["loss"] for entry in history]
    assert np.isfinite(losses).all()
    # from step 2 on all terms are there
    assert np.mean(losses[-3:]) < 0.6 * np.mean(losses[2:4]), losses
    assert history[-1]["tags"] < 0.6 * history[0]["tags"]


@pytest.mark.parametrize("name", NAMES)
def test_an_interrupted_run_ends_with_the_same_bits(name, tmp_path):
    run = RunConfig(steps=5, batch=2, save_every=2, log_every=1)
    whole = build(name)
    expected = fit(whole, batch, run, optim(name), out=tmp_path / "whole", log=None)

    def stops(step):
        if step == 3:
            raise KeyboardInterrupt
        return batch(step)

    out = tmp_path / "broken"
    with pytest.raises(KeyboardInterrupt):
        fit(build(name), stops, run, optim(name), out=out, log=None)
    torch.manual_seed(99)  # a new process knows nothing of the old one
    again = build(name, seed=7)
    history = fit(again, batch, run, optim(name), out=out, log=None)
    one, other = whole.state_dict(), again.state_dict()
    assert one.keys() == other.keys()
    for key, value in one.items():
        assert torch.equal(value, other[key]), key
    for a, b in zip(expected, history, strict=True):
        assert {**a, "images_per_s": 0} == {**b, "images_per_s": 0}


@pytest.mark.parametrize("name", NAMES)
def test_all_that_a_method_knows_is_in_its_state(name):
    """A fresh method with the state of a trained one does the very same step."""
    method = build(name)
    fit(method, batch, RunConfig(steps=4, batch=2, log_every=0), optim(name), log=None)
    fresh = build(name, seed=5).to(memory_format=torch.channels_last)
    fresh.load_state_dict(method.state_dict())
    found = []
    for each in (method, fresh):
        torch.manual_seed(11)
        each.train()
        output = each.training_step(batch(4), 4)
        output.loss.backward()
        grads = [p.grad.norm() for p in each.parameters() if p.grad is not None]
        found.append([output.loss.detach(), *output.parts.values(), *grads[:9]])
    # the first one keeps gradients of `fit` at None, so the lists have the same entries
    assert len(found[0]) == len(found[1])
    for a, b in zip(*found, strict=True):
        assert torch.equal(a.detach(), b.detach())


def test_two_processes_train_and_score_together(world, tmp_path):
    words = command("cosa", world, tmp_path / "A", "--run.devices", 2, "--run.accelerator", "cpu")
    done = subprocess.run(
        [sys.executable, "-m", "wsss_lab", *words],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    metrics = json.loads((tmp_path / "A" / "metrics.json").read_text())
    assert metrics["results"]["val"]["seg"]["protocol"]["images"] == VAL
    assert done.stdout.count("validation list") == 1
    assert main(["eval", "cosa", "--weights", str(tmp_path / "A")]) == 0


def test_labels_of_acr_follow_the_tags_and_leave_out_doubt():
    config = acr.Config(label_crf="none", background=(1.0, 12.0))
    cam = torch.zeros(2, 3, 1, 4)
    cam[0, 1] = torch.tensor([0.9, 0.3, 0.02, 0.0])
    cam[0, 2] = 1.0  # no tag
    cam[1, 0] = torch.tensor([0.2, 0.0, 0.8, 0.6])
    cam[1, 2] = torch.tensor([0.1, 0.0, 0.9, 0.5])
    tags = torch.tensor([[0.0, 1, 0], [1, 0, 1]])
    images = torch.zeros(2, 3, 1, 4, dtype=torch.uint8)
    labels = acr.label_rule(config)(images, cam, tags)
    assert labels[:, 0].tolist() == [[2, 255, 0, 0], [255, 0, 3, 1]]


def test_labels_of_acr_through_the_crf():
    """Where maps are sure everywhere, the CRF has nothing to change."""
    config = acr.Config()
    assert config.label_crf == "acr-cam"
    cam = torch.zeros(1, 4, 8, 8)
    cam[0, 2, :, :4] = 1.0
    images = torch.zeros(1, 3, 8, 8, dtype=torch.uint8)
    images[..., :4] = 255
    labels = acr.label_rule(config)(images, cam, torch.tensor([[0.0, 1, 1, 0]]))
    assert (labels[..., :4] == 3).all()
    assert (labels[..., 4:] == 0).all()


def test_a_short_run_draws_no_scene_that_it_does_not_need():
    data = DataConfig(count=5, size=48)
    few = load_data(data, "train", wanted=3)
    assert isinstance(few, CachedToyWorld)
    drawn = ToyWorld("train", 5, size=48, masks=False)
    for index in (2, 4, 2):
        one, other = few[index], drawn[index]
        assert one["name"] == other["name"] == few.names[index]
        assert torch.equal(one["image"], other["image"])
        assert torch.equal(one["tags"], other["tags"])
        one.pop("tags")  # what a caller does to a sample stays his own
    assert sorted(few._drawn) == [2, 4]
    assert not isinstance(load_data(data, "train", wanted=5), CachedToyWorld)


def test_asdt_starts_from_a_tag_classifier(tmp_path):
    recipe, config = recipe_of("asdt"), recipe_of("asdt").presets["toy"]
    packaged = toy_classifier().state_dict()
    network = recipe.build(config, CLASSES, True).network
    assert torch.equal(network.tag_head.linear.weight, packaged["head.linear.weight"])
    key = "stage1.0.conv1.weight"
    assert torch.equal(network.backbone.net.state_dict()[key], packaged[f"backbone.net.{key}"])

    own = TagClassifier(build_backbone("toy_cnn"), 4)
    save_weights(tmp_path / "model.safetensors", own, {"method": "cam_baseline"})
    named = replace(config, weights=str(tmp_path / "model.safetensors"))
    same = recipe.build(named, 4, True).network
    assert torch.equal(same.tag_head.linear.weight, own.head.linear.weight)
    other = recipe.build(named, 5, True).network
    assert other.tag_head.linear.weight.shape[0] == 5
    assert torch.equal(other.backbone.net.state_dict()[key], own.backbone.net.state_dict()[key])
