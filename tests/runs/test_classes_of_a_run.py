"""Runs, starts and scores are tied to the names of classes, not to their number."""

import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_recipes import recipe_of, tiny_config

from wsss_lab.__main__ import main
from wsss_lab.config import RunConfig
from wsss_lab.data.catalog import TOY_CLASSES
from wsss_lab.data.config import DataConfig
from wsss_lab.data.errors import DataError
from wsss_lab.data.masks import write_mask
from wsss_lab.methods.cam_baseline import SegNetwork
from wsss_lab.models.backbones import build_backbone
from wsss_lab.recipes.cam_baseline.config import Config
from wsss_lab.runs import lists
from wsss_lab.runs.folder import RunFolder, read_run
from wsss_lab.runs.lists import require_one_list_of_classes
from wsss_lab.runs.start import read_start
from wsss_lab.runs.weights import load_trained, score_config, score_weights
from wsss_lab.runs.weights_file import save_weights

NAMES = ("cat", "dog")


def weights_of(folder, classes=NAMES, method="cam_baseline"):
    torch.manual_seed(0)
    config = Config(run=RunConfig(steps=1))
    network = SegNetwork(build_backbone("toy_cnn"), len(classes) + 1)
    facts = {"method": method, "part": "SegNetwork", "config": config, "weights": "toy"}
    folder.mkdir(exist_ok=True)
    file = folder / "model.safetensors"
    save_weights(file, network, facts | {"classes": ["background", *classes]})
    return file


@pytest.fixture
def own(tmp_path):
    """One image with a mask; classes by the columns of its list."""
    (tmp_path / "images").mkdir()
    Image.new("RGB", (64, 64)).save(tmp_path / "images" / "a.png")
    write_mask(tmp_path / "masks" / "a.png", np.ones((64, 64), int))
    (tmp_path / "tags_val.csv").write_text("name,cat,dog\na,1,0\n")
    return DataConfig(name="folder", root=tmp_path)


def test_a_network_is_scored_on_its_own_classes_only(own, tmp_path):
    trained = load_trained(weights_of(tmp_path / "run"))
    settings = dataclasses.replace(score_config(trained.config), data=own)
    assert score_weights(trained, settings, log=lambda _: None)["results"]
    (own.root / "tags_val.csv").write_text("name,dog,cat\na,0,1\n")
    with pytest.raises(DataError, match=r"another order \(background, dog, cat\).*trained for"):
        score_weights(trained, settings)
    (own.root / "tags_val.csv").write_text("name,cat,cow\na,1,0\n")  # as many classes
    with pytest.raises(DataError, match="lacks dog and adds cow"):
        score_weights(trained, settings)


def test_the_command_says_so_in_one_line(own, tmp_path, capsys):
    (own.root / "tags_val.csv").write_text("name,dog,cat\na,0,1\n")
    file = weights_of(tmp_path / "run")
    words = ["--data.name", "folder", "--data.root", own.root, "--weights", file]
    assert main(["eval", "cam_baseline", *map(str, words)]) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1


def test_a_run_keeps_its_classes_and_goes_on_with_no_others(tmp_path):
    out = tmp_path / "run"
    RunFolder(out, "m", Config(), resume=False).begin(NAMES)
    assert read_run(out)["classes"] == list(NAMES)
    RunFolder(out, "m", Config(), resume=True).begin(NAMES)
    with pytest.raises(DataError, match="another order"):
        RunFolder(out, "m", Config(), resume=True).begin(NAMES[::-1])
    content = RunFolder(out, "m", Config(), resume=True).write_metrics({})
    assert content["classes"] == list(NAMES)


def test_a_classifier_to_start_from_has_the_classes_of_the_list(tmp_path):
    source = str(weights_of(tmp_path / "run").parent)
    assert read_start(source, "cam_baseline", "toy_cnn", NAMES)
    with pytest.raises(DataError, match=r"start: the training list: .*another order"):
        read_start(source, "cam_baseline", "toy_cnn", NAMES[::-1])
    assert read_start("toy", "tscd", "toy_mit2", TOY_CLASSES)
    with pytest.raises(DataError, match="those of the packaged weights"):
        read_start("toy", "tscd", "toy_mit2", [f"c{i}" for i in range(10)])


@dataclasses.dataclass
class Named:
    class_names: tuple[str, ...]


def test_both_lists_of_a_run_name_the_same_classes():
    require_one_list_of_classes(Named(NAMES), Named(NAMES))
    with pytest.raises(DataError, match="the validation list: has the same classes in another"):
        require_one_list_of_classes(Named(NAMES), Named(NAMES[::-1]))


@pytest.mark.parametrize("name", ["cam_baseline", "tscd", "acr"])
def test_no_recipe_trains_on_one_order_and_scores_on_another(name, tmp_path, monkeypatch):
    real = lists.load_data

    def load(data, split, **options):
        images = real(dataclasses.replace(data, count=40, val_count=1), split, **options)
        if split == "val":
            images.class_names = images.class_names[::-1]
        return images

    monkeypatch.setattr(lists, "load_data", load)
    config = recipe_of(name).presets["toy"] if name == "cam_baseline" else tiny_config(name)
    with pytest.raises(DataError, match=r"validation list.*another order"):
        recipe_of(name).train(config, tmp_path / "out", log=lambda _: None)
    assert not (tmp_path / "out").exists()
