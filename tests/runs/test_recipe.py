"""What a registered method brings: test protocols and CRFs by name, its checkpoints."""

from dataclasses import replace

import pytest
import torch

from wsss_lab.evaluate.inference import VIEWS, MultiScale
from wsss_lab.methods.common.checkpoints import CheckpointKind, Contents
from wsss_lab.methods.tscd.values import CRFS
from wsss_lab.refine import DenseCRF
from wsss_lab.runs.identify import identify, released_by
from wsss_lab.runs.recipe import RECIPES, find_crf, find_recipe, find_views, register_method
from wsss_lab.runs.safe_read import read_checkpoint


@pytest.fixture
def own():
    """A reader's method with a protocol and a CRF of its own."""
    recipe = replace(
        find_recipe("cam_baseline"),
        name="my-own",
        test_views={"large": MultiScale(resize="long", side=96)},
        crfs={"soft": DenseCRF(2)},
        checkpoint=CheckpointKind(
            ("mine.",), lambda state: Contents("mine", "toy_cnn", len(state))
        ),
    )
    yield register_method(recipe)
    del RECIPES._found["my-own"]


def test_names_of_a_readers_method(own):
    assert find_views("my-own-large") is own.test_views["large"]
    assert find_crf("my-own-soft") is own.crfs["soft"]
    with pytest.raises(ValueError, match=r"crf: .*none, tscd-eval, .*my-own-soft, got 'hard'"):
        find_crf("hard")
    with pytest.raises(ValueError, match=r"views: .*single, .*my-own-large, got 'my-own-soft'"):
        find_views("my-own-soft")


def test_a_checkpoint_of_a_readers_method(own, tmp_path):
    file = tmp_path / "last.pth"
    torch.save({"mine.weight": torch.zeros(3, 2)}, file)
    found = identify(file)
    assert (found.kind, found.network, found.classes, found.parameters) == ("mine", "toy_cnn", 1, 6)
    assert released_by(file, *read_checkpoint(file)) == own.name


def test_names_that_come_with_the_library():
    assert find_crf("none") is None
    assert find_crf("tscd-eval") is CRFS["eval"]
    assert find_views("single") is VIEWS["single"]
    assert find_views("cosa-test").side == 448


@pytest.mark.parametrize("name", list(RECIPES))
def test_presets_name_what_exists(name):
    recipe = find_recipe(name)
    for preset in recipe.presets.values():
        find_crf(preset.test.crf)
        find_views(getattr(preset.test, "views", "single"))
