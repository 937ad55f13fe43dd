"""What settings call by name: test protocols and CRFs of registered methods."""

from dataclasses import replace

import pytest

from wsss_lab.evaluate.inference import VIEWS, Views
from wsss_lab.methods.tscd.values import CRFS
from wsss_lab.refine import DenseCRF
from wsss_lab.runs.recipe import RECIPES, find_crf, find_recipe, find_views, register_method


@pytest.fixture
def own():
    """A reader's method with a protocol and a CRF of its own."""
    recipe = replace(
        find_recipe("cam_baseline"),
        name="my-own",
        test_views={"large": Views(resize="long", side=96)},
        crfs={"soft": DenseCRF(2)},
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
