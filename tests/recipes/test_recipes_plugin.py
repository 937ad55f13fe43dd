"""Runs with the consistency plug-in: from the command line, resumed exactly, used without it."""

import json
from dataclasses import replace

import pytest
import torch
from stopped import Stop, stop_at
from tiny_recipes import CHANGES, SIDE, batch, build, optim, tiny_config

from wsss_lab.__main__ import main
from wsss_lab.config import RunConfig
from wsss_lab.methods.acr.plugin import ConsistencyConfig, with_consistency
from wsss_lab.runs.folder import read_run
from wsss_lab.runs.recipe import find_recipe
from wsss_lab.runs.settings import restore, with_changes
from wsss_lab.runs.weights import load_trained
from wsss_lab.train.fit import fit

PLUG = ConsistencyConfig(alpha=20.0, views=("flip", "translation"))


def command(name, out, *more):
    words = ["train", name, "--preset", "toy", "--out", out, "--data.crop", SIDE]
    words += ["--data.size", SIDE, "--data.count", 4, "--data.val-count", 2]
    words += ["--run.steps", 2, "--run.batch", 2, "--run.log-every", 1, "--test.tags-at-test"]
    for setting, value in CHANGES[name].items():
        values = value if isinstance(value, tuple) else (value,)
        words += [f"--method.{setting.replace('_', '-')}", *values]
    return [str(word) for word in (*words, *more)]


@pytest.mark.parametrize(
    ("name", "more", "terms"),
    [
        ("tscd", (), {"acr_affinity"}),
        ("asdt", ("--method.backbone", "toy_vit"), {"acr_activation", "acr_affinity"}),
    ],
)
def test_from_the_command_line_to_a_network_without_it(name, more, terms, tmp_path):
    plug = ("--acr.alpha", 20, "--acr.views", "vflip", "scale")
    assert main(command(name, tmp_path / "run", *more, *plug)) == 0
    there = read_run(tmp_path / "run")
    config = restore(find_recipe(name).config, there["config"])
    assert config.acr == ConsistencyConfig(20.0, views=("vflip", "scale"))
    columns = (tmp_path / "run" / "log.csv").read_text().splitlines()[0].split(",")
    assert {c for c in columns if c.startswith("acr_")} == terms
    trained = load_trained(tmp_path / "run")
    assert type(trained.method).__name__ == {"tscd": "TSCD", "asdt": "ASDT"}[name]
    found = json.loads((tmp_path / "run" / "metrics.json").read_text())["results"]["val"]
    for kind in ("seg", "seg+true tags", "cam", "cam+true tags"):
        assert set(found[kind]["context"]) == {
            *("boat_water", "boat_other", "train_rails", "train_other")
        }
    assert set(found["seg"]["coverage"]) == {"near", "far"}


def test_a_network_without_attention_is_refused_before_anything_is_written(tmp_path, capsys):
    assert main(command("asdt", tmp_path / "run", "--acr.alpha", 1)) == 2
    error = capsys.readouterr().err
    assert "toy_cnn has no attention between all pairs of patches" in error
    assert len(error.splitlines()) == 1
    assert not (tmp_path / "run").exists()


def test_a_stopped_run_goes_on_exactly(tmp_path):
    run = RunConfig(steps=5, batch=2, save_every=2, log_every=0)
    ends = []
    for stop in (None, 3):
        plugged = with_consistency(build("cosa"), PLUG)
        options = {"out": tmp_path / str(stop), "log": None}
        if stop is not None:
            with pytest.raises(Stop):
                fit(plugged, batch, run, optim("cosa"), on_step=stop_at(stop), **options)
            plugged = with_consistency(build("cosa", seed=1), PLUG)
        fit(plugged, batch, run, optim("cosa"), **options)
        ends.append(plugged.method.state_dict())
    for key, value in ends[0].items():
        assert torch.equal(ends[1][key], value), key


def test_settings_of_a_study():
    config = tiny_config("cosa")
    changed = with_changes(config, {"acr.alpha": 10, "acr.views": ["turn90"], "acr.layers": [-1]})
    assert changed == replace(config, acr=ConsistencyConfig(10.0, views=("turn90",), layers=(-1,)))
    with pytest.raises(ValueError, match=r"acr\.views: expected one of flip, vflip"):
        with_changes(config, {"acr.views": ["spin"]})
    acr = with_changes(tiny_config("acr"), {"method.named_views": ["scale", "flip"]})
    assert len(acr.method.views) == 3
    with pytest.raises(ValueError, match=r"method\.named_views: expected one of flip"):
        with_changes(acr, {"method.named_views": ["spin"]})
