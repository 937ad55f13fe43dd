"""Networks that come with the package, by name."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from wsss_lab.__main__ import main
from wsss_lab.data import open_photos
from wsss_lab.data.catalog import DATASETS, TOY_CLASSES
from wsss_lab.data.images import read_image
from wsss_lab.evaluate.inference import multi_scale_predict
from wsss_lab.models.state import read_state_dict
from wsss_lab.recipes.asdt import PRESETS, build
from wsss_lab.runs.default_network import (
    default_network,
    is_packaged_name,
    shows_toy_world,
)
from wsss_lab.runs.packaged import PACKAGED, load_packaged, packaged_file

PHOTOS = open_photos.FOLDER / "JPEGImages"


def test_the_photo_network_names_animals_of_the_open_photos():
    trained = load_packaged("voc-mini")
    assert trained.classes == ("background", *DATASETS["voc"].classes)
    assert trained.config.data.name == "voc-mini"
    for name, animal in (("cat", "cat"), ("cow", "cow"), ("horse", "horse"), ("sheep", "sheep")):
        image = torch.from_numpy(read_image(PHOTOS / f"gcompris_animals_{name}.jpg").copy())
        pixels = image.permute(2, 0, 1)[None].float() / 255
        with torch.no_grad():
            logits = multi_scale_predict(trained.method.predict, pixels, trained.views).tag_logits
        assert trained.classes[1 + int(logits[0].argmax())] == animal


def test_predict_takes_a_packaged_network_by_name(tmp_path, capsys):
    photo = PHOTOS / "gcompris_animals_cat.jpg"
    assert main(["predict", str(photo), "--weights", "voc-mini", "--out", str(tmp_path)]) == 0
    printed = capsys.readouterr()
    assert printed.out.splitlines()[-1] == f"{photo.name}: cat"
    assert printed.err.startswith("note: network voc-mini: finds the 20 classes of VOC in photos")
    with Image.open(tmp_path / "gcompris_animals_cat.png") as mask:
        values = np.unique(np.array(mask))
    assert set(values) == {0, 1 + DATASETS["voc"].classes.index("cat")}


@pytest.mark.parametrize(
    ("classes", "toy"),
    [
        (None, False),
        ("\n".join(("background", *TOY_CLASSES)), True),
        ("\n".join(TOY_CLASSES[::-1]), False),  # other values in the masks
        ("\n".join(DATASETS["voc"].classes), False),
        ("", False),  # cannot be read
    ],
)
def test_images_are_photos_unless_they_are_of_a_toy_world(tmp_path, classes, toy):
    folder = tmp_path / "world" / "JPEGImages"
    folder.mkdir(parents=True)
    if classes is not None:
        (tmp_path / "world" / "classes.txt").write_text(classes)
    for images in (folder, folder / "a.jpg", folder.parent):
        assert shows_toy_world(images) is toy
        network = default_network(images)
        assert (network.trained is None) is toy
        assert network.note.startswith("network toy" if toy else "network voc-mini")
        assert "--weights voc-mini" in network.note or not toy


def test_predict_on_photos_needs_no_name(tmp_path, capsys):
    photo = PHOTOS / "gcompris_animals_cat.jpg"
    named, unnamed, toy = (tmp_path / name for name in ("named", "unnamed", "toy"))
    base = ["predict", str(photo), "--out"]
    assert main([*base, str(named), "--weights", "voc-mini"]) == 0
    assert main([*base, str(unnamed)]) == 0
    (note,) = capsys.readouterr().err.splitlines()[1:]
    assert note.startswith("note: network voc-mini (none named; for drawings --weights toy)")
    mask = f"{photo.stem}.png"
    assert (named / mask).read_bytes() == (unnamed / mask).read_bytes()
    assert main([*base, str(toy), "--weights", "toy"]) == 0
    assert capsys.readouterr().err.startswith("note: network toy: ")
    assert (toy / mask).read_bytes() != (named / mask).read_bytes()


def test_a_run_or_a_file_of_that_name_comes_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    toy = Path("toy")
    toy.mkdir()
    assert is_packaged_name(toy)  # an exported toy world
    (toy / "config.json").write_text("{}")
    assert not is_packaged_name(toy)
    Path("voc-mini").write_text("")
    assert not is_packaged_name(Path("voc-mini"))
    assert not is_packaged_name(Path("toys"))


def test_asdt_on_photos_starts_from_it():
    method = build(PRESETS["voc-mini"], 20, True)
    state = read_state_dict(packaged_file("voc-mini"))
    assert torch.equal(method.network.tag_head.linear.weight, state["head.linear.weight"].float())
    own = method.network.backbone.state_dict()
    assert all(torch.equal(own[k], state[f"backbone.{k}"].to(own[k].dtype)) for k in own)


def test_names_and_cards():
    with pytest.raises(FileNotFoundError, match="expected one of voc-mini"):
        packaged_file("toys")
    for file in PACKAGED.values():
        card = json.loads(file.with_suffix(".json").read_text())
        assert {"what", "data", "start", "terms", "limits"} <= set(card["card"])
        scores = card["calibration"]["maps_with_true_tags_on_train"]
        assert 0.3 < scores["two"]["miou"] < 0.5
        assert file.stat().st_size < 8e6
