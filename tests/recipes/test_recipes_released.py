"""Files of the authors' codes: loaded by name, scored with and without true tags, or refused."""

import argparse
import json
import os
import pathlib
import pickle

import numpy as np
import pytest
import torch
from released_files import recorded_shapes, released_state, tiny_presets
from tiny_recipes import NAMES, recipe_of

from wsss_lab.__main__ import main
from wsss_lab.data.catalog import VOC_CLASSES
from wsss_lab.data.masks import read_mask
from wsss_lab.data.toy import write_voc
from wsss_lab.evaluate.inference import multi_scale_predict
from wsss_lab.recipes.acr.recipe import Localiser
from wsss_lab.runs.weights import ScoreConfig, load_trained

VAL = 3


@pytest.fixture(scope="module")
def voc(tmp_path_factory):
    """A folder in VOC's layout and with VOC's classes: the toy world's masks, ids 1 to 10."""
    folder = tmp_path_factory.mktemp("voc")
    write_voc(folder, split="val", count=VAL, size=64)
    (folder / "classes.txt").unlink()
    (folder / "tags.csv").unlink()
    return folder


def content(name, state):
    """As the released code saves it."""
    if name == "cosa":
        args = argparse.Namespace(crop_size=448, work_dir=pathlib.PurePosixPath("/out"))
        return {"model": state, "args": args, "epoch": 24_000, "result": np.float64(76.2)}
    return {f"module.{key}": value for key, value in state.items()} if name == "tscd" else state


@pytest.fixture(params=NAMES)
def released(request, tmp_path, monkeypatch):
    """(method, file, the network that is in it)."""
    config = tiny_presets(request.param, monkeypatch)
    state, method = released_state(request.param, config)
    file = tmp_path / "voc_weights.pth"
    torch.save(content(request.param, state), file)
    return request.param, file, method


def score(name, file, voc, *more):
    words = ["eval", name, "--weights", file, "--data.root", voc, "--data.tags", "masks"]
    return main([str(word) for word in (*words, *more)])


def test_both_protocols_side_by_side(released, voc, capsys):
    name, file, _ = released
    assert score(name, file, voc) == 0
    text = capsys.readouterr().out
    assert "no true tags  true tags (oracle)" in text
    assert "tags at test: yes" in text or name == "acr"
    assert recipe_of(name).tags_note in text
    if name != "acr":
        assert text.count("aeroplane") == text.count("tvmonitor") >= 4


def test_numbers_with_the_crf_and_as_json(released, voc, tmp_path, capsys):
    name, file, _ = released
    out = tmp_path / "found.json"
    more = ["--crf", "cosa-eval", "--json", "--out", out, "--first", 2]
    assert score(name, file, voc, *more) == 0
    found = json.loads(capsys.readouterr().out)
    assert found == json.loads(out.read_text())
    assert (found["method"], found["released"]) == (name, True)
    results = found["results"]
    if name == "acr":
        assert set(results) >= {"cam", "cam+true tags"}
        return
    assert set(results) >= {"seg", "seg+true tags", "seg+crf", "seg+crf+true tags", "cam"}
    assert results["seg"]["protocol"]["images"] == 2
    assert results["seg+crf"]["protocol"]["crf"] == "cosa-eval"
    told, honest = results["seg+true tags"], results["seg"]
    assert told["protocol"]["tags_at_test"] is True
    assert honest["protocol"]["tags_at_test"] is False
    assert told["miou"] != honest["miou"]


def test_it_is_the_network_that_was_saved(released):
    name, file, method = released
    found = load_trained(file, name)
    assert found.classes == ("background", *VOC_CLASSES)
    assert found.released
    images = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    wanted = Localiser(method) if name == "acr" else method
    one, other = (
        multi_scale_predict(m.predict, images, found.views) for m in (found.method, wanted)
    )
    for kind in ("logits", "cam", "tag_logits"):
        a, b = getattr(one, kind), getattr(other, kind)
        assert (a is None) == (b is None)
        if a is not None:
            assert torch.allclose(a, b, atol=1e-5)


def test_masks_for_photos(released, voc, tmp_path):
    _, file, _ = released
    out = tmp_path / "masks"
    assert (
        main(["predict", str(voc / "JPEGImages"), "--weights", str(file), "--out", str(out)]) == 0
    )
    for image in (voc / "JPEGImages").iterdir():
        assert read_mask(out / f"{image.stem}.png", 21, check_palette=True).shape == (64, 64)


class Attack:
    """Pickles as a call of `os.system`."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


def refused(words, capsys, *parts):
    capsys.readouterr()
    assert main([str(word) for word in words]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert len(printed.err.strip().splitlines()) == 1, printed.err
    for part in parts:
        assert str(part) in printed.err, printed.err


def each_way(name, file, tmp_path):
    """Every command that takes a weights file of a method."""
    yield ["eval", name, "--weights", file]
    yield ["predict", tmp_path, "--weights", file, "--out", tmp_path / "masks"]


def test_files_that_are_not_read(released, tmp_path, capsys):
    name, file, _ = released
    state, marker = torch.load(file, weights_only=False), tmp_path / "marker"
    (tmp_path / "image.png").write_bytes(b"")
    attacks = [
        {"model": state, "args": Attack(marker)},
        {"model": state, "args": argparse.Namespace(hook=Attack(marker))},
    ]
    for number, attack in enumerate(attacks):
        bad = tmp_path / f"attack{number}.pth"
        torch.save(attack, bad)
        for words in each_way(name, bad, tmp_path):
            refused(words, capsys, "not safe to load", bad)
    old = tmp_path / "old.pth"
    old.write_bytes(pickle.dumps(Attack(marker)))
    short = tmp_path / "short.pth"
    short.write_bytes(file.read_bytes()[:-500])
    for bad, what in ((old, "old.pth"), (short, "truncated or not a weights file")):
        for words in each_way(name, bad, tmp_path):
            refused(words, capsys, what, bad)
    assert not marker.exists()
    assert not (tmp_path / "masks").exists()
    refused(["eval", name, "--weights", tmp_path / "no.pth"], capsys, "there is no", "no.pth")


def test_files_that_do_not_fit(released, voc, tmp_path, capsys, monkeypatch):
    name, file, _ = released
    config = recipe_of(name).presets["voc-released"]
    for other in NAMES:
        if other != name:
            refused(["eval", other, "--weights", file], capsys, f"is of {name}, not of {other}")
    seven, _ = released_state(name, config, classes=7)
    torch.save(content(name, seven), tmp_path / "seven.pth")
    refused(["eval", name, "--weights", tmp_path / "seven.pth"], capsys, "has 7 classes", "seven")
    toy = ["eval", name, "--weights", file, "--data.name", "toy", "--data.val-count", 2]
    refused(toy, capsys, "has other classes", "lacks aeroplane", "adds plane", "--data.name")
    state, _ = released_state(name, config)
    lost = next(key for key in state if "norm" in key or "bn" in key)
    partial = {key: value for key, value in state.items() if key != lost}
    torch.save(content(name, partial), tmp_path / "part.pth")
    refused(["eval", name, "--weights", tmp_path / "part.pth"], capsys, "missing", "part.pth")
    torch.save({"conv.weight": torch.zeros(1)}, tmp_path / "odd.pth")
    refused(["eval", name, "--weights", tmp_path / "odd.pth"], capsys, "not a checkpoint that is")


def test_an_encoder_is_no_trained_method(tmp_path, capsys):
    weights = pathlib.Path(__file__).parents[2] / "wsss_lab" / "weights" / "toy_cnn.safetensors"
    refused(["eval", "cosa", "--weights", weights], capsys, "backbone (toy_cnn)", "trained method")
    refused(["eval", "magic", "--weights", weights], capsys, "METHOD: expected one of")
    refused(["eval", "cosa"], capsys, "--weights")
    refused(["eval", "cosa", "--weights", tmp_path], capsys, "there is no", "model.safetensors")


@pytest.mark.parametrize(
    ("name", "variant", "backbone"),
    [
        ("tscd", None, "mit_b1"),
        ("cosa", None, "vit_b16"),
        ("acr", "vitb_hybrid_nc20", "r50_vit_b16"),
        ("acr", "vitb_nc20", "vit_b16"),
        ("acr", "deit_nc20", "vit_b16"),
    ],
)
def test_released_presets_fit_the_recorded_checkpoints(name, variant, backbone):
    """Names and shapes of the real files, in networks of the real size."""
    recipe = recipe_of(name)
    with torch.device("meta"):
        method, config = recipe.load_released(recorded_shapes(name, variant))
    inner = method.acr if name == "acr" else method.online if name == "cosa" else method.network
    assert inner.backbone.name == backbone
    assert config.data.name == "voc"
    assert config.data.form == "released"


def test_the_released_preset_of_asdt_fits_a_checkpoint_of_its_size():
    recipe = recipe_of("asdt")
    with torch.device("meta"):
        state, _ = released_state("asdt", recipe.presets["voc-released"])
        method, _ = recipe.load_released(state)
    assert method.network.backbone.net.widths[-1] == 4096


@pytest.mark.parametrize("change", [{"batch": 0}, {"first": -1}, {"workers": -1}])
def test_bad_settings(change):
    with pytest.raises(ValueError, match=f"{next(iter(change))}: expected at least"):
        ScoreConfig(recipe_of("cosa").presets["toy"].data, **change)
