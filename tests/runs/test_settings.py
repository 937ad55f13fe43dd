"""Settings by name: right types go in, anything else is refused with its name."""

import json
from pathlib import Path

import pytest

from wsss_lab.recipes.cam_baseline.config import Config
from wsss_lab.runs.recipe import RECIPES
from wsss_lab.runs.settings import plain, restore, setting_names, with_changes


def test_every_setting_can_be_set_to_what_it_is():
    config = Config()
    names = setting_names(config)
    assert {"run.steps", "data.root", "cam_scales", "test.flip", "band"} <= set(names)
    for name in names:
        value = config
        for part in name.split("."):
            value = getattr(value, part)
        assert with_changes(config, {name: value}) == config


def test_values_as_yaml_has_them():
    changes = {"data.root": "d", "cam_scales": [1, 0.5], "run.steps": 7, "optim.lr": 1}
    config = with_changes(Config(), changes | {"band": [0.2, 0.4]})
    assert config.data.root == Path("d")
    assert config.cam_scales == (1.0, 0.5)
    assert isinstance(config.cam_scales[0], float)
    assert (config.run.steps, config.optim.lr, config.band) == (7, 1.0, (0.2, 0.4))
    assert config.data.name == "toy"
    assert Config().run.steps != 7  # the original is left alone


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"run.step": 3}, "did you mean run.steps"),
        ({"steps": 3}, "did you mean run.steps"),
        ({"run": 3}, "there is no 'run'"),
        ({"threshold.low": 3}, "there is no"),
        ({"nothing at all": 3}, "there are data.name"),
        ({"run.steps": 3.5}, r"run\.steps: expected int"),
        ({"run.steps": True}, "expected int"),
        ({"run.steps": 0}, "expected at least 1"),
        ({"optim.lr": "1e-4"}, "1.0e-4"),
        ({"data.name": "vox"}, "expected one of toy, voc"),
        ({"cam_scales": "1.0"}, "cam_scales"),
        ({"data.scale": [0.5]}, "expected 2 values"),
        ({"cam_flip": "yes"}, "expected bool"),
    ],
)
def test_what_does_not_fit_is_refused(changes, words):
    with pytest.raises(ValueError, match=words):
        with_changes(Config(), changes)


def test_names_of_several_lists_are_all_known():
    from wsss_lab.methods.cosa.config import CoSAConfig

    for search in ("none", "bands", "mixture", "split"):
        assert with_changes(CoSAConfig(), {"search": search}).search == search
    with pytest.raises(ValueError, match="search: expected one of"):
        with_changes(CoSAConfig(), {"search": "guess"})


@pytest.mark.parametrize("method", list(RECIPES))
def test_every_preset_comes_back_from_what_a_run_writes(method):
    recipe = RECIPES[method]
    for name, preset in recipe.presets.items():
        written = json.loads(json.dumps(plain(preset)))
        assert restore(recipe.config, written, "config.json") == preset, name


def test_choices_from_several_lists_are_named_together():
    preset = RECIPES["cosa"].presets["toy"]
    with pytest.raises(ValueError, match=r"method\.search: expected one of none, bands, mixture, "):
        with_changes(preset, {"method.search": "guess"})
