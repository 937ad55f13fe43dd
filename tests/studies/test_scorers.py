"""Tag classifiers as starts of other methods, and the scorer that treats every method alike."""

import json

import numpy as np
import pytest
import torch
from helpers.tiny_recipes import tiny_config

from wsss_lab.config import RunConfig
from wsss_lab.data.catalog import TOY_CLASSES
from wsss_lab.data.config import DataConfig
from wsss_lab.methods.cam_baseline import TagClassifier
from wsss_lab.models.backbones import build_backbone
from wsss_lab.models.heads import TagHead
from wsss_lab.recipes.cam_baseline.config import Config, TestConfig
from wsss_lab.recipes.cam_baseline.recipe import train, training_stages
from wsss_lab.runs.recipe import find_recipe
from wsss_lab.runs.settings import with_changes
from wsss_lab.runs.start import is_classifier, start_method
from wsss_lab.runs.weights_file import read_tensors
from wsss_lab.studies.rules import miou_of
from wsss_lab.studies.scorers import find_scorer, margins, score_run, weights_of

CLASSES = len(TOY_CLASSES)


def settings(world, until):
    return Config(
        data=DataConfig(name="voc", root=world, train_split="train", crop=48),
        run=RunConfig(steps=2, batch=2, log_every=0),
        cam_scales=(1.0,),
        cam_flip=False,
        test=TestConfig(tags_at_test=False),
        report_train=0,
        until=until,
    )


@pytest.fixture(scope="module")
def runs(world, tmp_path_factory):
    """Folder and metrics of a run that ends with its classifier, and of a whole one."""
    found = {}
    for until in ("tags", "masks"):
        out = tmp_path_factory.mktemp("scored") / until
        found[until] = out, train(settings(world, until), out, log=lambda line: None)
    return found


def test_a_baseline_may_end_with_its_classifier(runs, world):
    out, metrics = runs["tags"]
    assert (out / "tags" / "model.safetensors").is_file()
    assert not (out / "labels").exists()
    assert not (out / "model.safetensors").exists()
    assert "seg" not in metrics["results"]["val"]
    assert metrics["results"]["val"]["cam"]["miou"] > 0
    stages = [len(training_stages(settings(world, until))) for until in ("tags", "masks")]
    assert stages == [1, 2]


@pytest.mark.parametrize("name", ["cosa", "asdt"])
def test_backbone_and_tag_head_of_a_classifier_begin_a_method(runs, name):
    file = runs["tags"][0] / "tags" / "model.safetensors"
    assert is_classifier(str(file), name)
    assert not is_classifier(str(file), "cam_baseline")
    config = tiny_config(name)
    if name == "cosa":
        cnn = {"method.backbone": "toy_cnn", "method.aux_level": -3}
        config = with_changes(config, cnn)
    method = find_recipe(name).build(config, CLASSES, False)
    start_method(method, str(file), name, "toy_cnn", TOY_CLASSES)
    state = read_tensors(file)
    inner = {k.removeprefix("backbone."): v for k, v in state.items() if k.startswith("backbone.")}
    found = [m for m in method.modules() if type(m) is type(build_backbone("toy_cnn"))]
    assert found
    for backbone in found:
        assert all(torch.equal(value, inner[key]) for key, value in backbone.state_dict().items())
    row = state["head.linear.weight"]
    heads = [m.linear.weight for m in method.modules() if isinstance(m, TagHead)]
    assert any(torch.equal(head, row) for head in heads)
    assert all(torch.equal(head, row) for head in heads if head.shape == row.shape)


def test_acr_takes_the_backbone_of_a_classifier_and_keeps_its_head():
    """Its head reads class tokens, the classifier's reads patches."""
    torch.manual_seed(0)
    state = TagClassifier(build_backbone("toy_vit2"), CLASSES).state_dict()
    torch.manual_seed(1)
    method = find_recipe("acr").build(tiny_config("acr", backbone="toy_vit2"), CLASSES, False)
    head = {key: value.clone() for key, value in method.head.state_dict().items()}
    method.start_from_classifier(state)
    assert all(torch.equal(value, head[key]) for key, value in method.head.state_dict().items())
    for key, value in method.backbone.state_dict().items():
        assert torch.equal(value, state[f"backbone.{key}"])


def test_a_classifier_on_another_backbone_is_refused(runs):
    file = runs["tags"][0] / "tags" / "model.safetensors"
    method = find_recipe("tscd").build(tiny_config("tscd"), CLASSES, False)
    with pytest.raises(ValueError, match="start: the tag classifier"):
        start_method(method, str(file), "tscd", "toy_mit2", TOY_CLASSES)


@pytest.mark.parametrize(("until", "what"), [("tags", "cam"), ("masks", "seg")])
def test_the_scorer_agrees_with_the_recipe_under_the_same_protocol(runs, world, until, what):
    out, metrics = runs[until]
    score_run("photos", out, settings(world, until))
    scored = json.loads((out / "scored.json").read_text())
    recorded = metrics["results"]["val"][what]["miou"]
    assert scored["main"]["miou"] == pytest.approx(recorded, abs=1e-6)
    assert scored[what]["miou"] == scored["main"]["miou"]
    assert scored["cam" if what == "seg" else "seg"]["miou"] is None
    assert scored["main"]["is"] == {"cam": "maps", "seg": "segmentation"}[what]
    counts = np.load(out / "counts.npz")["main"]
    assert counts.shape == (scored["protocol"]["images"], 3, CLASSES + 1)
    assert miou_of(counts.sum(0)) == pytest.approx(recorded, abs=1e-6)


def test_a_scored_run_is_not_scored_again(runs, world, tmp_path):
    (tmp_path / "scored.json").write_text("{}")
    score_run("photos", tmp_path, settings(world, "tags"))
    assert [path.name for path in tmp_path.iterdir()] == ["scored.json"]


def test_counts_leave_open_pixels_out():
    label, truth = torch.tensor([[0, 1, 2, 2]]), torch.tensor([[0, 2, 2, 255]])
    assert margins(label, truth, 3).tolist() == [[1, 0, 1], [1, 1, 1], [1, 0, 2]]


def test_what_the_scorer_cannot_do_is_named(tmp_path):
    with pytest.raises(ValueError, match="scorer: expected one of photos, got 'phots'"):
        find_scorer("phots")
    with pytest.raises(ValueError, match="expected the weights of one stage in the run, got"):
        weights_of(tmp_path)
