"""COCO-Stuff 10K from its archive to scores, for ASDT, by both readings of its classes.

The archive is written here in the official format, with small images.
"""

import json

import numpy as np
import pytest
import torch

from wsss_lab.__main__ import main
from wsss_lab.data.datasets import ImageTagDataset
from wsss_lab.data.masks import read_mask
from wsss_lab.data.prepare import prepare_stuff10k

pytest.importorskip("scipy")
from official_archives import catalogue, place, stuff_archive

SIDE = 64
PERSON, SIGN, BRUSH, BANNER, SKY, WOOD = 1, 13, 90, 92, 157, 182  # official ids
READINGS = {"stuff10k": 172, "stuff10k-things": 81}
"""Preset -> values that a mask may have: without background, 0 is never one."""


def label(top, bottom, thing):
    """Two kinds of stuff, a thing on them, an unlabelled corner; 64 x 72."""
    s = np.full((SIDE, SIDE + 8), top)
    s[40:] = bottom
    s[20:50, 24:54] = thing
    s[:8, :8] = 0
    return s


SCENES = {
    "COCO_train2014_000000000077": label(SKY, WOOD, PERSON),
    "COCO_train2014_000000000099": label(SKY, BANNER, SIGN),
    "COCO_train2014_000000000113": label(WOOD, BANNER, BRUSH),
    "COCO_train2014_000000000151": label(SKY, WOOD, SKY),  # no thing at all
    "COCO_train2014_000000000201": label(SKY, BANNER, PERSON),
    "COCO_train2014_000000000202": label(BANNER, WOOD, BRUSH),
}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stuff10k")
    files = stuff_archive(labels=SCENES, dtype=np.uint16, test=2)
    place(files, folder)
    text = prepare_stuff10k(folder, False, archives=catalogue(files, md5=False), workers=1)
    assert "train 4, test 2" in text
    assert main(["data", "check", "--root", str(folder)]) == 0
    return folder


@pytest.fixture(scope="module", params=list(READINGS))
def done(request, root, tmp_path_factory):
    """Four steps, teacher B among them, of a small network on all 171 classes or on 80."""
    out = tmp_path_factory.mktemp("runs") / request.param
    words = ["train", "asdt", "--preset", request.param, "--out", out, "--data.root", root]
    words += ["--weights", "random", "--data.crop", SIDE, "--method.backbone", "toy_cnn"]
    words += ["--method.hidden", 8, "--method.scales", 1.0, 0.5, "--method.warmup", 1]
    words += ["--method.period", 2, "--method.duty", 0.5, "--run.workers", 0, "--report", 4]
    words += ["--run.steps", 4, "--run.batch", 2, "--run.log-every", 1, "--run.save-every", 2]
    assert main([str(word) for word in words]) == 0
    return request.param, out


def test_the_run_hears_both_teachers_and_scores_by_its_reading(done, root):
    preset, out = done
    metrics = json.loads((out / "metrics.json").read_text())
    rows = (out / "log.csv").read_text().splitlines()
    shares = [row.split(",")[rows[0].split(",").index("share")] for row in rows[1:]]
    assert shares == ["0.0", "0.0", "1.0", "0.0"]
    val = metrics["results"]["val"]
    assert {"seg", "seg+crf", "seg+true tags", "seg+crf+true tags", "cam+true tags"} <= set(val)
    convention = metrics["config"]["data"]["convention"]
    data = ImageTagDataset.stuff10k(root, "test", masks=True, convention=convention)
    values = torch.cat([data[i]["mask"].flatten() for i in range(len(data))])
    wanted = torch.bincount(values[values != 255], minlength=READINGS[preset])
    assert val["seg"]["pixels"] == wanted.tolist()
    assert val["seg"]["pixels"][0] == (0 if preset == "stuff10k" else wanted[0])
    # told the tags, nothing else can win: at worst each class of an image for another of its own
    assert val["seg+true tags"]["miou"] > val["seg"]["miou"]
    voices = metrics["results"]["voices"]
    assert voices["val"]["fused"]["miou"] == pytest.approx(val["seg"]["miou"])
    assert voices["train"]["protocol"]["images"] == 4


def test_background_is_a_class_for_things_only(done):
    """With 171 classes no pixel is ever called background; with 80, all stuff is."""
    preset, out = done
    with np.load(out / "per_image.npz") as file:
        predicted, true = file["fused"][:, 1:].swapaxes(0, 1)
    assert true.shape == (4, READINGS[preset])
    if preset == "stuff10k":
        assert not predicted[:, 0].any()
        assert not true[:, 0].any()
        assert true[0].nonzero()[0].size == 3
    else:
        assert true[:, 0].all()
        assert true[3].nonzero()[0].tolist() == [0]  # the scene without things


def test_its_weights_are_told_scored_and_used(done, root, tmp_path, capsys):
    preset, out = done
    capsys.readouterr()
    assert main(["info", "--weights", str(out)]) == 0
    assert json.loads(capsys.readouterr().out)["classes"] == READINGS[preset] - 1
    assert main(["eval", "asdt", "--weights", str(out), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["results"]
    stated = json.loads((out / "metrics.json").read_text())["results"]["val"]
    for kind in ("seg", "seg+crf", "seg+true tags"):
        assert found[kind]["miou"] == pytest.approx(stated[kind]["miou"], abs=1e-6)

    command = ["predict", str(root / "images"), "--weights", str(out), "--out", str(tmp_path)]
    assert main(command) == 0
    for name in SCENES:
        mask = read_mask(tmp_path / f"{name}.png", READINGS[preset])
        assert mask.shape == (SIDE, SIDE + 8)
        assert preset != "stuff10k" or mask.min() > 0


def test_the_wrong_reading_is_said(done, root, tmp_path, capsys):
    """Weights for 171 classes on a data set of 80, and the other way round."""
    preset, out = done
    other = "things" if preset == "stuff10k" else "171"
    capsys.readouterr()
    words = ["eval", "asdt", "--weights", str(out), "--data.convention", other]
    assert main(words) == 2
    error = capsys.readouterr().err
    assert "has other classes than those the network was trained for" in error
    assert "lacks banner" in error if preset == "stuff10k" else "adds banner" in error
    assert len(error.splitlines()) == 1
