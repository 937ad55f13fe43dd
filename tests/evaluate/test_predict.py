"""Masks for a folder of images: toy classifier, trained run, weights file; and what is refused."""

import numpy as np
import pytest
import torch
from PIL import Image

from wsss_lab.__main__ import main
from wsss_lab.config import RunConfig
from wsss_lab.data.catalog import TOY_CLASSES
from wsss_lab.data.masks import read_mask
from wsss_lab.data.toy import scene
from wsss_lab.evaluate.overlays import legend_entries, with_legend
from wsss_lab.evaluate.predict import (
    choose_device,
    class_probabilities,
    predict,
    predict_folder,
    toy_classifier,
)
from wsss_lab.methods.cam_baseline import SegNetwork
from wsss_lab.methods.common.base import SegOutput
from wsss_lab.models.backbones import build_backbone
from wsss_lab.recipes.cam_baseline.config import Config, TestConfig
from wsss_lab.runs.folder import RunFolder
from wsss_lab.runs.weights import load_trained
from wsss_lab.runs.weights_file import save_weights


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Images of several sizes and modes, and a file that is none."""
    folder = tmp_path_factory.mktemp("photos")
    for index, size in ((17, (128, 128)), (3, (96, 128)), (5, (70, 50))):
        picture = Image.fromarray(scene(seed=0, index=index).image).resize(size[::-1])
        picture.save(folder / f"scene{index}.jpg", quality=95)
    Image.fromarray(np.full((64, 64), 90, np.uint8)).save(folder / "grey.png")
    Image.new("RGBA", (64, 80), (10, 200, 30, 128)).save(folder / "alpha.webp")
    (folder / "notes.txt").write_text("no image")
    return folder


def run_with(tmp_path, classes=4):
    """A finished run's folder with an untrained network that has a bias towards class 2."""
    out = tmp_path / "run"
    config = Config(run=RunConfig(steps=1), test=TestConfig(scales=(1.0, 0.5), flip=True))
    RunFolder(out, "cam_baseline", config, resume=False).begin()
    torch.manual_seed(0)
    network = SegNetwork(build_backbone("toy_cnn"), classes)
    torch.nn.init.zeros_(network.classify.weight)
    with torch.no_grad():
        network.classify.bias.copy_(torch.tensor([0.0, 0.0, 3.0, 0.0]))
    facts = {"method": "cam_baseline", "part": "SegNetwork", "config": config, "weights": "toy"}
    facts |= {"classes": ["background", "cat", "dog", "cow"]}
    save_weights(out / "model.safetensors", network, facts)
    return out


def test_toy_classifier_on_any_images(photos, tmp_path):
    lines = list(predict_folder(photos, tmp_path / "masks", soft=True))
    assert len(lines) == 5
    for file in photos.iterdir():
        if file.suffix == ".txt":
            continue
        with Image.open(file) as image:
            size = image.size
        label = read_mask(tmp_path / "masks" / f"{file.stem}.png", len(TOY_CLASSES) + 1, True)
        assert label.shape == size[::-1]
        with np.load(tmp_path / "masks" / f"{file.stem}.npz") as soft:
            probs, classes = soft["probs"], list(soft["classes"])
        assert classes == ["background", *TOY_CLASSES]
        assert probs.dtype == np.float16
        assert probs.shape == (len(classes), *label.shape)
        assert (probs.astype(float).argmax(0) == label).mean() > 0.99
    with Image.open(tmp_path / "masks" / "scene17_overlay.jpg") as overlay:
        label = read_mask(tmp_path / "masks" / "scene17.png", len(TOY_CLASSES) + 1, True)
        entries = legend_entries(label, ["background", *TOY_CLASSES])
        wanted = with_legend(np.zeros((128, 128, 3), np.uint8), entries).shape
        assert overlay.size == (wanted[1], wanted[0])
        assert overlay.width == 128
        assert overlay.height > 128  # the legend lies below the picture


def test_masks_are_those_of_predict(photos, tmp_path):
    list(predict_folder(photos / "scene17.jpg", tmp_path))
    with Image.open(photos / "scene17.jpg") as image:
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)
    label, _ = predict(toy_classifier(), pixels)
    assert (read_mask(tmp_path / "scene17.png", 11) == label.numpy()).all()
    assert not (tmp_path / "scene17.npz").exists()


@pytest.mark.parametrize("what", ["folder", "file"])
def test_trained_weights(photos, tmp_path, capsys, what):
    run = run_with(tmp_path)
    weights = run if what == "folder" else run / "model.safetensors"
    arguments = ["predict", photos, "--out", tmp_path / "masks", "--weights", weights, "--soft"]
    assert main([str(a) for a in arguments]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "scene5.jpg: dog"
    label = read_mask(tmp_path / "masks" / "scene5.png", 4)
    assert label.shape == (70, 50)
    assert (label == 2).all()
    with np.load(tmp_path / "masks" / "scene5.npz") as soft:
        expected = torch.tensor([0.0, 0.0, 3.0, 0.0]).softmax(0).numpy()
        np.testing.assert_allclose(soft["probs"][:, 9, 9], expected, atol=1e-3)
    views = load_trained(run).views
    assert views.logits.scales == (1.0, 0.5)
    assert views.logits.flip


def test_probabilities_of_maps_are_the_labels_softly():
    cam = torch.rand(2, 3, 6, 7, generator=torch.Generator().manual_seed(0))
    logits = torch.tensor([[1.0, -1.0, 2.0], [-1.0, -1.0, -1.0]])
    probs = class_probabilities(SegOutput(cam=cam, tag_logits=logits), 0.4)
    torch.testing.assert_close(probs.sum(1), torch.ones(2, 6, 7))
    allowed = cam * torch.tensor([[1.0, 0.0, 1.0], [0.0, 0.0, 0.0]])[:, :, None, None]
    score, winner = allowed.max(1)
    assert torch.equal(probs.argmax(1), torch.where(score > 0.4, winner + 1, 0))
    with pytest.raises(ValueError, match="neither segmentation logits nor class maps"):
        class_probabilities(SegOutput(), 0.4)


def refused(arguments, capsys, *words):
    capsys.readouterr()
    assert main([str(a) for a in arguments]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1, lines
    for word in words:
        assert word in lines[0], lines[0]


def test_what_is_refused(photos, tmp_path, capsys):
    out = tmp_path / "masks"
    base = ["predict", photos, "--out", out]
    refused([*base, "--threshold", 3], capsys, "threshold: expected a number in [0, 1]")
    refused([*base, "--weights", tmp_path / "no"], capsys, "there is no")
    (tmp_path / "begun").mkdir()
    (tmp_path / "begun" / "config.json").write_text("{}")
    refused([*base, "--weights", tmp_path / "begun"], capsys, "is the run done?")
    foreign = tmp_path / "cnn.pth"
    torch.save(build_backbone("toy_cnn").net.state_dict(), foreign)
    refused([*base, "--weights", foreign], capsys, "wsss_lab, backbone (toy_cnn)", "train")
    assert not out.exists()

    twins = tmp_path / "twins"
    twins.mkdir()
    for name in ("a.png", "a.jpg"):
        Image.new("RGB", (64, 64)).save(twins / name)
    refused(["predict", twins, "--out", out], capsys, "several images named ['a']")
    (tmp_path / "broken.png").write_bytes(b"no image")
    refused(
        ["predict", tmp_path / "broken.png", "--out", out], capsys, "broken.png", "cannot be read"
    )
    Image.new("RGB", (20, 64)).save(tmp_path / "narrow.png")  # only the one for drawings minds
    narrow = ["predict", tmp_path / "narrow.png", "--out", out, "--weights", "toy"]
    refused(narrow, capsys, "narrow.png", "32 px")
    refused(["predict", photos, "--out", foreign], capsys, "cannot be written")
    refused(["predict", photos, "--out", foreign / "x"], capsys, "cannot be written")
    with pytest.raises(ValueError, match="auto, cpu or cuda"):
        choose_device("tpu")
