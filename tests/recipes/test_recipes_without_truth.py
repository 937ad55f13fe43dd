"""Own photos by the command line: tags without any mask, and images without any class."""

import json

import numpy as np
import pytest
from PIL import Image
from tiny_recipes import CHANGES, NAMES, SIDE, batch, build

from wsss_lab.__main__ import main
from wsss_lab.data.masks import read_mask, write_mask
from wsss_lab.data.toy import scene
from wsss_lab.evaluate.overlays import legend_entries, with_legend

ALL = ("cam_baseline", *NAMES)


def command(name, root, out, *more):
    words = ["train", name, "--out", out, "--data.name", "folder", "--data.root", root]
    words += ["--data.crop", SIDE, "--run.steps", 2, "--run.batch", 2, "--run.log-every", 0]
    for setting, value in CHANGES.get(name, {}).items():
        values = value if isinstance(value, tuple) else (value,)
        words += [f"--method.{setting.replace('_', '-')}", *values]
    if name == "cam_baseline":
        words += ["--mask-steps", 2]
    if name == "acr":
        words += ["--mask-steps", 2, "--affinity.walk", 4]
        words += ["--affinity.steps", 2, "--affinity.batch", 2]
    return [str(word) for word in (*words, *more)]


@pytest.fixture(scope="module")
def tagged(tmp_path_factory):
    """Photos and `tags.csv`, no mask anywhere."""
    root = tmp_path_factory.mktemp("mine")
    (root / "images").mkdir()
    rows = ["name,there,absent"]
    for index in range(3):
        Image.fromarray(scene(seed=0, index=index, size=SIDE).image).save(
            root / "images" / f"i{index}.png"
        )
        rows.append(f"i{index},1,{index % 2}")
    (root / "tags.csv").write_text("\n".join(rows) + "\n")
    return root


@pytest.mark.parametrize("name", ALL)
def test_tags_alone_give_labels_overlays_and_no_score(name, tagged, tmp_path, capsys):
    out = tmp_path / "run"
    assert main(command(name, tagged, out)) == 0
    printed = capsys.readouterr().out
    assert printed.count("no scores: ") == 1
    assert "mIoU" not in printed

    labels = out / ("propagated" if (out / "propagated").is_dir() else "labels")
    for index in range(3):
        label = read_mask(labels / f"i{index}.png", 3)
        assert label.shape == (SIDE, SIDE)
        assert index % 2 or 2 not in label  # a class without tag has no pixel
        with Image.open(out / "overlays" / f"i{index}_overlay.jpg") as picture:
            legend = legend_entries(label, ["background", "there", "absent"])
            blank = np.zeros((SIDE, SIDE, 3), np.uint8)
            assert picture.size == with_legend(blank, legend).shape[1::-1]
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["results"] == {
        "val": {},
        "no_score": "no pixel truth: the data set has no masks",
    }

    kept = {file: file.read_bytes() for file in out.rglob("*") if file.is_file()}
    assert main(["train", name, "--out", str(out), "--resume"]) == 0
    assert {file: file.read_bytes() for file in out.rglob("*") if file.is_file()} == kept


def test_masks_that_come_later_are_scored_by_a_resumed_run(tagged, tmp_path, capsys):
    root, out = tmp_path / "mine", tmp_path / "run"
    (root / "images").mkdir(parents=True)
    for file in tagged.rglob("*.*"):
        (root / file.relative_to(tagged)).write_bytes(file.read_bytes())
    assert main(command("cam_baseline", root, out)) == 0
    (root / "tags_val.csv").write_bytes((root / "tags.csv").read_bytes())
    for index in range(3):
        label = np.array(scene(seed=0, index=index, size=SIDE).mask)
        write_mask(root / "masks" / f"i{index}.png", np.where(label == 255, 255, label > 0))
    assert main(["train", "cam_baseline", "--out", str(out), "--resume"]) == 0
    assert 0 <= json.loads((out / "metrics.json").read_text())["results"]["val"]["seg"]["miou"] <= 1

    (root / "masks" / "i1.png").unlink()  # some masks, not all: no reason to leave out the score
    assert main(["train", "cam_baseline", "--out", str(out), "--resume"]) == 2
    assert "no mask for 1 of 3 images" in capsys.readouterr().err


def test_a_list_in_voc_layout_needs_no_masks_either(tagged, tmp_path):
    root = tmp_path / "voc"
    (root / "JPEGImages").mkdir(parents=True)
    (root / "ImageSets" / "Segmentation").mkdir(parents=True)
    for file in (tagged / "images").iterdir():
        (root / "JPEGImages" / file.name).write_bytes(file.read_bytes())
    (root / "tags.csv").write_bytes((tagged / "tags.csv").read_bytes())
    (root / "classes.txt").write_text("there\nabsent\n")
    (root / "ImageSets" / "Segmentation" / "train.txt").write_text("i0\ni1\ni2\n")
    words = command("cam_baseline", root, tmp_path / "run", "--data.train-split", "train")
    words[words.index("folder")] = "voc"
    assert main(words) == 0
    assert "no_score" in json.loads((tmp_path / "run" / "metrics.json").read_text())["results"]


@pytest.fixture(scope="module")
def lesions(tmp_path_factory):
    """One class; two images show it, two do not. The list to train on is the list to score."""
    root = tmp_path_factory.mktemp("lesions")
    (root / "images").mkdir()
    for index in range(4):
        drawn = scene(seed=0, index=index, size=SIDE)
        label = np.where(drawn.mask == 255, 255, drawn.mask > 0) * (index < 2)
        Image.fromarray(drawn.image).save(root / "images" / f"i{index}.png")
        write_mask(root / "masks" / f"i{index}.png", label)
    for split in ("train", "val"):
        (root / f"tags_{split}.csv").write_text("name,lesion\ni0,1\ni1,1\ni2,0\ni3,0\n")
    return root


@pytest.mark.parametrize("name", NAMES)
def test_a_step_of_negatives_alone_has_finite_loss_and_gradients(name):
    method, data = build(name).train(), batch(step=3)
    data["tags"].zero_()
    for step in range(4):  # every kind of step
        method.zero_grad()
        loss = method.training_step(data, step).loss
        assert loss.isfinite()
        loss.backward()
        grads = [p.grad for p in method.parameters() if p.grad is not None]
        assert all(grad.isfinite().all() for grad in grads)


@pytest.mark.parametrize("name", ["cam_baseline", "tscd"])
def test_images_without_a_class_are_negatives(name, lesions, tmp_path, capsys):
    out = tmp_path / "run"
    assert main(command(name, lesions, out)) == 0
    assert "negatives: 2 of 4 training images have no class" in capsys.readouterr().out
    val = json.loads((out / "metrics.json").read_text())["results"]["val"]
    for kind in ("seg", "cam"):
        alarms = val[kind]["false_alarms"]
        assert alarms["images"] == 2
        assert 0 <= alarms["pixel_share"] <= alarms["share"] <= 1


def test_a_check_accepts_negatives_and_still_finds_an_empty_cell(lesions, tmp_path, capsys):
    assert main(["data", "check", "--root", str(lesions)]) == 0
    (tmp_path / "images").mkdir()
    (tmp_path / "classes.txt").write_text("cat\ndog\n")
    (tmp_path / "tags.csv").write_text("name,tags\ni0,cat\ni1,\n")
    for index in range(2):
        Image.fromarray(np.zeros((9, 9, 3), np.uint8)).save(tmp_path / "images" / f"i{index}.png")
    assert main(["data", "check", "--root", str(tmp_path)]) == 1
    assert "'i1' has no class" in capsys.readouterr().out


def test_a_list_of_negatives_alone_is_refused(lesions, tmp_path, capsys):
    root = tmp_path / "none"
    (root / "images").mkdir(parents=True)
    for file in (lesions / "images").iterdir():
        (root / "images" / file.name).write_bytes(file.read_bytes())
    (root / "tags.csv").write_text("name,lesion\ni0,0\ni1,0\ni2,0\ni3,0\n")
    assert main(command("cam_baseline", root, tmp_path / "run")) == 2
    assert "no training image has a class" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
