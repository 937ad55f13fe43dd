"""Whose checkpoint a file is: every kind by its released keys, and files that must not be read."""

import argparse
import json
import os
import pathlib
import pickle

import numpy as np
import pytest
import safetensors.torch
import timm
import torch

from wsss_lab.__main__ import main
from wsss_lab.config import RunConfig
from wsss_lab.methods.cam_baseline import SegNetwork, TagClassifier
from wsss_lab.models.backbones import build_backbone
from wsss_lab.runs.identify import Record, identify, read_checkpoint
from wsss_lab.runs.weights_file import save_weights

KEYS = pathlib.Path(__file__).parent.parent / "models" / "state_keys"


def released(method, variant=None):
    """Tensors without storage of their own, in the shapes of a released checkpoint."""
    shapes = json.loads((KEYS / f"{method}.json").read_text())
    shapes = shapes[variant] if variant else shapes
    return {key: torch.zeros(()).expand(shape) for key, shape in shapes.items()}


def saved(path, content):
    torch.save(content, path)
    return path


def check(path, kind, network, classes):
    found = identify(path)
    assert kind in found.kind
    assert found.network.startswith(network)
    assert found.classes == classes
    assert found.tensors > 0
    assert found.parameters > 0
    return found


def test_tscd(tmp_path):
    state = {f"module.{k}": v for k, v in released("tscd").items()}
    check(saved(tmp_path / "a.pth", state), "TSCD or AFA", "mit_b1", 20)


def test_cosa_with_its_settings(tmp_path):
    """Its files hold an `argparse.Namespace`, maybe paths and NumPy numbers: read as records."""
    args = argparse.Namespace(lr=6e-5, work_dir=pathlib.PurePosixPath("/out"), crop_size=448)
    content = {"model": released("cosa"), "args": args, "iter": np.float64(3.5), "optimizer": {}}
    path = saved(tmp_path / "best_seg.pth", content)
    found = check(path, "CoSA", "vit_b16", 20)
    assert found.details["beside"]["args"]["crop_size"] == 448
    assert found.details["beside"]["wrapper"] == "model"
    _, rest = read_checkpoint(path)
    assert type(rest["args"]) is Record
    assert type(rest["args"].work_dir) is Record


@pytest.mark.parametrize(
    ("variant", "network"), [("vitb_hybrid_nc20", "r50_vit_b16"), ("deit_nc20", "vit_b16 or")]
)
def test_acr(tmp_path, variant, network):
    check(saved(tmp_path / "a.pth", released("acr", variant)), "ACR", network, 20)


def released_wrn38():
    from wsss_lab.models import keymaps

    layers = {new: old for old, new in keymaps._WRN_LAYERS.items()}
    state = {}
    with torch.device("meta"):
        own = build_backbone("wrn38").net.state_dict()
    for key, value in own.items():
        first, _, rest = key.partition(".")
        name = f"{ {'stem': 'conv1a', 'norm': 'bn7'}.get(first) }.{rest}"
        if first == "stages":
            stage, block, rest = rest.split(".", 2)
            layer, _, last = rest.rpartition(".")
            block = "" if block == "0" else f"_{block}"
            name = f"b{int(stage) + 2}{block}.{layers[layer]}.{last}"
        state[name] = torch.zeros(()).expand(value.shape)
    return state


def test_psa_and_asdt(tmp_path):
    state = released_wrn38() | {"fc8.weight": torch.zeros(()).expand(20, 4096, 1, 1)}
    check(saved(tmp_path / "res38_cls.pth", state), "PSA", "wrn38", 20)
    for i, (out, width) in enumerate([(512, 4096), (21, 512)] * 2, 1):
        state[f"fc8_seg_conv{i}.weight"] = torch.zeros(()).expand(out, width, 3, 3)
        state[f"fc8_seg_conv{i}.bias"] = torch.zeros(out)
    check(saved(tmp_path / "asdt.pth", state), "ASDT", "wrn38", 20)


def test_segformer_encoder(tmp_path):
    prefix = "encoder."
    state = {k.removeprefix(prefix): v for k, v in released("tscd").items() if prefix in k}
    check(saved(tmp_path / "mit_b1.pth", state), "SegFormer MiT", "mit_b1", None)


@pytest.mark.parametrize(
    ("name", "network"), [("resnet18", "resnet18"), ("deit_small_patch16_224", "deit_s")]
)
def test_timm(tmp_path, name, network):
    path = tmp_path / "model.safetensors"
    safetensors.torch.save_file(timm.create_model(name).state_dict(), path)
    check(path, "timm", network, None)


def test_ours(tmp_path):
    weights = pathlib.Path(__file__).parents[2] / "wsss_lab" / "weights"
    check(weights / "toy_cnn.safetensors", "wsss_lab, backbone", "toy_cnn", None)
    check(weights / "toy_cnn_tags.safetensors", "wsss_lab, tag classifier", "toy_cnn", 10)
    classifier = TagClassifier(build_backbone("toy_cnn"), 7)
    content = {"format": 1, "method": "TagClassifier", "step": 5, "model": classifier.state_dict()}
    content |= {"optimizer": {}, "rng": [], "config": {}, "history": []}
    found = check(saved(tmp_path / "step.pt", content), "run in progress", "toy_cnn", None)
    assert found.details["step"] == 5
    assert found.details["method"] == "TagClassifier"


def own_file(path, classes=4, **changes):
    from wsss_lab.recipes.cam_baseline.config import Config

    network = SegNetwork(build_backbone("toy_cnn"), classes)
    names = ["background", "a", "b", "c"]
    facts = {"method": "cam_baseline", "part": "SegNetwork", "classes": names}
    facts |= {"config": Config(run=RunConfig(steps=1)), "weights": "toy"}
    save_weights(path, network, facts | changes)
    return path


def test_a_trained_network(tmp_path):
    found = check(own_file(tmp_path / "m.safetensors"), "cam_baseline", "SegNetwork on toy", 3)
    assert found.details["started from"] == "toy"


def test_equal_networks_give_equal_bytes(tmp_path):
    files = []
    for name in ("a", "b"):
        torch.manual_seed(3)
        files.append(own_file(tmp_path / f"{name}.safetensors").read_bytes())
    assert files[0] == files[1]


class Attack:
    """Pickles as a call of `os.system`."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


class Unknown:
    """A class of somebody's repository."""


def refused(path, capsys, *words):
    capsys.readouterr()
    assert main(["info", "--weights", str(path)]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    lines = printed.err.strip().splitlines()
    assert len(lines) == 1, lines
    for word in (*words, str(path)):
        assert word in lines[0], lines[0]


def test_nothing_in_a_file_is_run(tmp_path, capsys):
    marker = tmp_path / "marker"
    state = released("cosa")
    attack = saved(tmp_path / "attack.pth", {"model": state, "args": Attack(marker)})
    refused(attack, capsys, "not safe to load")
    (tmp_path / "old.pth").write_bytes(pickle.dumps(Attack(marker)))
    refused(tmp_path / "old.pth", capsys)
    inside = argparse.Namespace(hook=Attack(marker))
    refused(saved(tmp_path / "b.pth", {"model": state, "args": inside}), capsys, "not safe")
    assert not marker.exists()
    unknown = saved(tmp_path / "c.pth", {"model": state, "args": Unknown()})
    refused(unknown, capsys, "not safe to load", "Unknown")


def test_files_that_do_not_fit(tmp_path, capsys):
    state = released("tscd")
    key = "decoder.linear_pred.weight"
    refused(
        saved(tmp_path / "a.pth", {k: v for k, v in state.items() if k != key}), capsys, "missing"
    )
    wrong = state | {key: torch.zeros(9, 256, 1, 1)}
    refused(saved(tmp_path / "b.pth", wrong), capsys, "of another shape")
    refused(saved(tmp_path / "c.pth", state | {"surprise": torch.zeros(1)}), capsys, "surprise")
    refused(saved(tmp_path / "d.pth", {"x": torch.zeros(1)}), capsys, "not a checkpoint that is")
    refused(saved(tmp_path / "e.pth", {"x": 1}), capsys, "no tensors by name")
    refused(saved(tmp_path / "f.pth", [1]), capsys, "holds a list")
    refused(own_file(tmp_path / "g.safetensors", classes=5), capsys, "does not fit")
    refused(own_file(tmp_path / "h.safetensors", method="magic"), capsys, "'magic'")
    whole = saved(tmp_path / "i.pth", {"net.x": torch.zeros(100)}).read_bytes()
    (tmp_path / "i.pth").write_bytes(whole[:-200])
    refused(tmp_path / "i.pth", capsys, "truncated or not a weights file")
    (tmp_path / "j.safetensors").write_bytes(b"\xff" * 64)
    refused(tmp_path / "j.safetensors", capsys, "truncated or not a weights file")
    refused(tmp_path / "nowhere.pth", capsys, "there is no weights file")


def test_info_prints_what_it_found(tmp_path, capsys):
    path = own_file(tmp_path / "m.safetensors")
    assert main(["info", "--weights", str(path)]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["classes"] == 3
    assert facts["kind"] == "wsss_lab, cam_baseline"
