"""Runs that go on from the end of a warm-up."""

import dataclasses
import json
from pathlib import Path

import pytest
import safetensors.torch
import torch
from tiny_recipes import recipe_of, tiny_config

import wsss_lab
from wsss_lab.data.config import DataConfig
from wsss_lab.data.toy import ToyWorld
from wsss_lab.methods.cosa.config import PRESETS as COSA
from wsss_lab.methods.cosa.method import TEACHER, CoSA
from wsss_lab.methods.cosa.network import cosa_backbone
from wsss_lab.methods.tscd.config import PRESETS as TSCD_PRESETS
from wsss_lab.methods.tscd.method import TSCD
from wsss_lab.methods.tscd.network import tscd_backbone
from wsss_lab.runs.settings import with_changes
from wsss_lab.runs.start import read_start, start_method

WEIGHTS = Path(wsss_lab.__file__).parent / "weights"


def _tscd(seed: int) -> TSCD:
    torch.manual_seed(seed)
    config = TSCD_PRESETS["toy"]
    return TSCD(tscd_backbone(config, "random"), 10, config)


def _cosa(seed: int) -> CoSA:
    torch.manual_seed(seed)
    config = COSA["toy"]
    return CoSA(cosa_backbone(config, "random"), 10, config)


def _save(state, file):
    safetensors.torch.save_file({name: v.contiguous() for name, v in state.items()}, file)


def test_a_run_starts_from_the_tensors_of_another(tmp_path):
    first, second = _tscd(0), _tscd(1)
    _save(first.state_dict(), tmp_path / "model.safetensors")
    start_method(second, str(tmp_path), "tscd", "toy_mit2")
    own = second.state_dict()
    assert all(torch.equal(own[name], value) for name, value in first.state_dict().items())


def test_nothing_happens_without_a_start():
    method, same = _tscd(0), _tscd(0)
    start_method(method, "", "tscd", "toy_mit2")
    for one, other in zip(method.parameters(), same.parameters(), strict=True):
        assert torch.equal(one, other)


def test_both_networks_of_cosa_start_as_the_slow_one():
    first, second = _cosa(0), _cosa(1)
    with torch.no_grad():
        for value in first.assignment.network.buffers():
            value.add_(1)
    second.start_from(first.state_dict())
    slow = first.assignment.network.state_dict()
    for network in (second.online, second.assignment.network):
        assert all(torch.equal(value, slow[k]) for k, value in network.state_dict().items())
    assert all(name.startswith(TEACHER) for name in first.state_dict() if "network" in name)


def test_half_precision_is_widened(tmp_path):
    file = tmp_path / "packed.safetensors"
    _save({k: v.half() for k, v in _tscd(0).state_dict().items()}, file)
    assert {v.dtype for v in read_start(str(file), "tscd", "toy_mit2").values()} <= {
        torch.float32,
        torch.int64,
    }


@pytest.mark.parametrize(
    ("source", "words"),
    [("toy", "no weights of asdt"), ("nowhere", "expected 'toy' or the folder of a run")],
)
def test_a_missing_start_is_named(source, words):
    with pytest.raises(FileNotFoundError, match=words):
        read_start(source, "asdt", "toy_cnn")


def test_other_tensors_are_refused(tmp_path):
    safetensors.torch.save_file({"a": torch.zeros(1)}, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match="start of TSCD"):
        start_method(_tscd(0), str(tmp_path), "tscd", "toy_mit2")


@pytest.mark.parametrize(
    ("name", "backbone"),
    [
        ("tscd", "toy_mit2"),
        ("tscd", "toy_mit"),
        ("acr", "toy_vit2"),
        ("acr", "toy_vit"),
        ("cosa", "toy_cnn"),
        ("cosa", "toy_vit"),
    ],
)
def test_packaged_starts_fit_and_know_the_tags(name, backbone):
    recipe = recipe_of(name)
    config = with_changes(recipe.preset("toy"), recipe.warm_ups[backbone])
    method = recipe.build(config, 10, False)
    start_method(method, "toy", name, backbone)
    world = ToyWorld("val", 24)
    samples = [world[i] for i in range(24)]
    images = torch.stack([sample["image"] for sample in samples]).float() / 255
    tags = torch.stack([sample["tags"] for sample in samples])
    with torch.no_grad():
        logits = (
            method.eval()(images) if name == "acr" else method.eval().predict(images).tag_logits
        )
    assert ((logits > 0) == (tags > 0)).float().mean() > 0.85
    record = json.loads((WEIGHTS / f"{backbone}_{name}.json").read_text())
    assert record["method"] == name
    assert record["results"]["val"]["tags"]["map"] > 0.85


def test_acr_can_stop_at_its_maps(tmp_path):
    config = dataclasses.replace(
        tiny_config("acr"),
        data=DataConfig(count=4, val_count=2, size=64, crop=64),
        start="toy",
        until="maps",
        report_train=2,
    )
    metrics = recipe_of("acr").train(config, tmp_path / "A", log=lambda line: None)
    assert set(metrics["results"]) == {"val", "train_maps"}
    assert "seg" not in metrics["results"]["val"]
    assert not (tmp_path / "A" / "labels").exists()
    with pytest.raises(ValueError, match="until"):
        dataclasses.replace(config, until="labels")
