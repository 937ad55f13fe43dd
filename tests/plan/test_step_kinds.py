"""A plan counts the work that a run does: every pass of a step, and what comes after the steps."""

from collections import Counter
from dataclasses import replace

import pytest
import torch
from tiny_recipes import CLASSES, SIDE, recipe_of, step_kind, tiny_config

from wsss_lab.data.loader import StepLoader
from wsss_lab.data.toy import ToyWorld
from wsss_lab.data.transform import TrainingTransform
from wsss_lab.methods.acr.plugin import ConsistencyConfig, WithConsistency
from wsss_lab.refine import DenseCRF


def as_released(name):
    """The tiny settings with all quirks of the released code, and its training samples."""
    config, released = tiny_config(name), recipe_of(name).presets["voc-released"]
    method = replace(config.method, quirks=released.method.quirks)
    form = {"form": released.data.form, "scale_per": released.data.scale_per}
    return replace(config, method=method, data=replace(config.data, **form))


def by_images(name):
    config = tiny_config(name)
    return replace(config, method=replace(config.method, selection="images", period=12))


@pytest.fixture
def passes(monkeypatch):
    """Counter of the forward passes of all modules, and of CRFs."""
    counts = Counter()
    kernel = DenseCRF.kernel  # every CRF begins with it

    def counted(self, images):
        counts["CRF"] += 1
        return kernel(self, images)

    monkeypatch.setattr(DenseCRF, "kernel", counted)

    def note(module, *_):
        counts[type(module).__name__] += 1

    hook = torch.nn.modules.module.register_module_forward_hook(note)
    yield counts
    hook.remove()


@pytest.mark.parametrize(
    ("name", "settings", "kinds"),
    [
        ("tscd", tiny_config, 2),
        ("tscd", as_released, 1),  # computes all losses in its warm-up, and weighs them by 0
        ("cosa", tiny_config, 2),
        ("cosa", as_released, 1),
        ("asdt", tiny_config, 2),
        ("asdt", as_released, 2),
        ("asdt", by_images, 2),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_steps_of_one_kind_and_no_others_do_the_same(name, settings, kinds, passes):
    config = settings(name)
    method = recipe_of(name).build(config, CLASSES, True).train()
    views = TrainingTransform(replace(config.data, strong=name == "cosa"), method.input_mean)
    batch = StepLoader(ToyWorld("train", 8, size=SIDE), config.run.batch, 0, views)(0)
    found = {}
    for step in range(9):
        passes.clear()
        method.training_step(batch, step)
        found.setdefault(step_kind(name)(config, step), set()).add(frozenset(passes.items()))
    assert len(found) == kinds
    assert all(len(counts) == 1 for counts in found.values()), "one name for unlike steps"
    assert len(set.union(*found.values())) == kinds, "two names for like steps"


def plan_of(name, tmp_path, val=True, **changes):
    world = ToyWorld("train", 4, size=SIDE, masks=True)
    data = world, world if val else None
    return recipe_of(name).plan(tiny_config(name, **changes), tmp_path / "run", 1, 1, data)


def test_the_passes_of_the_plug_in_are_timed(tmp_path, monkeypatch):
    timed = []
    step_of = WithConsistency.training_step

    def note(self, batch, step):
        timed.append(step)
        return step_of(self, batch, step)

    monkeypatch.setattr(WithConsistency, "training_step", note)
    plan_of("cosa", tmp_path)
    assert not timed
    plan_of("cosa", tmp_path, acr=ConsistencyConfig(alpha=1.0))
    assert timed


def test_labels_of_a_run_without_truth_are_a_stage(tmp_path):
    assert [stage.name for stage in plan_of("tscd", tmp_path).stages][-1] == "evaluate"
    made = plan_of("tscd", tmp_path, val=False)
    assert [(stage.name, stage.amount) for stage in made.stages][-1] == ("labels", 4)
    assert made.stages[-1].seconds > 0
    (tmp_path / "run" / "labels").mkdir(parents=True)
    (tmp_path / "run" / "labels" / "done.png").touch()
    assert plan_of("tscd", tmp_path, val=False).stages[-1].done == 1


def test_predictions_between_steps_are_named_where_they_are_left_out(tmp_path):
    watched = "not in the plan: predictions of 3 training images between steps"
    assert watched in plan_of("asdt", tmp_path, watch=3).notes
    assert watched not in plan_of("asdt", tmp_path).notes
