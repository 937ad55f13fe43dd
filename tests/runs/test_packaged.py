"""Networks that come with the package, by name."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from wsss_lab.__main__ import main
from wsss_lab.data import open_photos
from wsss_lab.data.catalog import DATASETS
from wsss_lab.data.images import read_image
from wsss_lab.evaluate.inference import multi_scale_predict
from wsss_lab.models.state import read_state_dict
from wsss_lab.recipes.asdt import PRESETS, build
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
    assert printed.err.startswith("note: the weights voc-mini")
    with Image.open(tmp_path / "gcompris_animals_cat.png") as mask:
        values = np.unique(np.array(mask))
    assert set(values) == {0, 1 + DATASETS["voc"].classes.index("cat")}


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
