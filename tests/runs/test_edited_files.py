"""What a file of a run holds never ends in a traceback: one line with its name and a remedy."""

import json
import shutil

import pytest
import safetensors.torch
import torch

from wsss_lab.__main__ import main
from wsss_lab.methods.cam_baseline import TagClassifier
from wsss_lab.models.backbones import build_backbone
from wsss_lab.recipes.cam_baseline.config import PRESETS
from wsss_lab.runs.folder import RunFolder
from wsss_lab.runs.settings import plain
from wsss_lab.runs.weights import load_trained
from wsss_lab.runs.weights_file import METADATA, save_weights, tensors_digest


@pytest.fixture
def folder(tmp_path):
    """A run that has only begun."""
    RunFolder(tmp_path / "run", "cam_baseline", PRESETS["toy"], False).begin()
    return tmp_path / "run"


def resume(folder, capsys):
    assert main(["train", "cam_baseline", "--out", str(folder), "--resume"]) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    return told


EDITS = {
    ("config", "run", "steps"): ("6", "run.steps: expected int, got '6'"),
    ("config", "run", "batch"): (0, "run.batch: expected at least 1"),
    ("config", "run"): (None, "run: expected settings by name, got None"),
    ("config", "data"): (None, "data: expected settings by name, got None"),
    ("config",): ([], "entry config: expected a dict, got []"),
    ("method",): ({}, "entry method: expected a str"),
    ("config", "optim", "betas"): (5, "optim.betas: expected"),
    ("config", "optim", "lr"): ("fast", "optim.lr: expected float, got 'fast'"),
    ("config", "weights"): (None, "weights: expected str, got None"),
    ("config", "cam_scales"): (["a"], "cam_scales: expected float"),
    ("config", "data", "root"): (5, "data.root: expected Path, got 5"),
    ("config", "threshold"): (float("nan"), "threshold: expected a number in [0, 1], got nan"),
    ("config", "band"): ([0.9, 0.1], "band: expected values that do not fall"),
    ("config", "test", "new"): (1, "TestConfig has no settings ['test.new']"),
    ("config", "data", "name"): ("vox", "data.name: expected one of toy"),
}


@pytest.mark.parametrize("path", list(EDITS), ids=".".join)
def test_an_edited_config_is_refused_in_one_line(path, folder, capsys):
    value, message = EDITS[path]
    file = folder / "config.json"
    content = inner = json.loads(file.read_text())
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    file.write_text(json.dumps(content))
    told = resume(folder, capsys)
    assert message in told
    assert str(file) in told


@pytest.mark.parametrize(
    "data",
    [b"", b"\xff\xfe", b"[" * 100_000, b'{"a":' * 100_000, b"5", b"null", b"[]", b"9" * 5000, b"{"],
    ids=["empty", "binary", "deep list", "deep object", "5", "null", "list", "digits", "open"],
)
def test_a_config_that_is_no_object_is_refused_in_one_line(data, folder, capsys):
    (folder / "config.json").write_bytes(data)
    told = resume(folder, capsys)
    assert f"{folder / 'config.json'}: damaged" in told
    assert "choose another folder" in told


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    file = tmp_path_factory.mktemp("trained") / "model.safetensors"
    config = PRESETS["toy"]
    names = ["background", *(f"class {c}" for c in range(3))]
    facts = {"method": "cam_baseline", "part": "TagClassifier", "classes": names, "config": config}
    save_weights(file, TagClassifier(build_backbone("toy_cnn"), 3), facts | {"weights": "toy"})
    return file


DESCRIPTIONS = {
    "classes": [None, 5, "cat", [1, 2], [], ["background"], ["x"] * 300, {"a": 1}],
    "config": [None, [], 5, {"run": None}, {"hidden": "x"}, {"backbone": 5}, {"backbone": "none"}],
    "part": [None, 5, []],
    "method": [None, 5, "other", {}],
}


@pytest.mark.parametrize(
    ("entry", "value"), [(k, v) for k, values in DESCRIPTIONS.items() for v in values], ids=repr
)
def test_an_edited_description_of_weights_is_refused_by_name(entry, value, trained, tmp_path):
    state = safetensors.torch.load_file(trained)
    with safetensors.safe_open(trained, "pt") as file:
        facts = json.loads(file.metadata()[METADATA])
    target = tmp_path / "model.safetensors"
    changed = plain(facts | {entry: value})
    safetensors.torch.save_file(state, target, {METADATA: json.dumps(changed)})
    with pytest.raises(ValueError, match=r"model\.safetensors"):
        load_trained(target)


def altered(trained, target, state, hashed=True):
    """Write other tensors with the description of a file, and their own hash or the old one."""
    with safetensors.safe_open(trained, "pt") as file:
        facts = json.loads(file.metadata()[METADATA])
    new = {"sha256": tensors_digest(state)} if hashed else {}
    safetensors.torch.save_file(state, target, {METADATA: json.dumps(facts | new)})
    return target


def test_weights_that_are_not_finite_are_not_loaded(trained, tmp_path):
    state = safetensors.torch.load_file(trained)
    state["head.linear.weight"][0, 0] = float("nan")
    target = tmp_path / "model.safetensors"
    with pytest.raises(ValueError, match=r"model\.safetensors.*1 not finite \(head\.linear"):
        load_trained(altered(trained, target, state))
    with pytest.raises(ValueError, match=r"model\.safetensors: damaged .*the hash"):
        load_trained(altered(trained, target, state, hashed=False))


def test_weights_of_another_type_are_not_cast_in_silence(trained, tmp_path):
    state = safetensors.torch.load_file(trained)
    for dtype, shown in ((torch.float64, "float64"), (torch.float16, "float16")):
        other = state | {"head.linear.weight": state["head.linear.weight"].to(dtype)}
        target = altered(trained, tmp_path / f"{shown}.safetensors", other)
        with pytest.raises(ValueError, match=f"head.linear.weight is {shown}, needs float32"):
            load_trained(target)


def test_weights_that_are_not_finite_are_not_saved(tmp_path):
    classifier = TagClassifier(build_backbone("toy_cnn"), 3)
    with torch.no_grad():
        classifier.head.linear.weight[0] = float("inf")
    with pytest.raises(FloatingPointError, match=r"1 of \d+ tensors are not finite .*head\.linear"):
        save_weights(tmp_path / "model.safetensors", classifier, {})
    assert not list(tmp_path.iterdir())


def test_a_run_whose_weights_are_damaged_names_the_file(trained, tmp_path, capsys):
    shutil.copy(trained, tmp_path / "model.safetensors")
    (tmp_path / "model.safetensors").write_bytes(trained.read_bytes()[:900])
    arguments = ["predict", "x.jpg", "--out", str(tmp_path / "out"), "--weights", str(tmp_path)]
    assert main(arguments) == 2
    told = capsys.readouterr().err
    assert str(tmp_path / "model.safetensors") in told
    assert told.count("\n") == 1
