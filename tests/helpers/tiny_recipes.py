"""Settings with which every paper's method trains in a second, and batches for it."""

import dataclasses
import importlib

import torch

from wsss_lab.config import OptimConfig, RunConfig
from wsss_lab.data.config import DataConfig
from wsss_lab.runs.recipe import find_recipe

NAMES = ("tscd", "asdt", "acr", "cosa")
SIDE = 64
CLASSES = 10
# the terms that come late begin at once, and every kind of step occurs
CHANGES = {
    "tscd": {"warmup": 1, "scales": (1.0, 1.5)},
    "asdt": {"warmup": 0, "period": 6, "scales": (1.0, 0.5)},
    "acr": {},
    # attention to compare, and the transformer's auxiliary map, as at full size
    "cosa": {"warmup": 1, "queue_rows": 16, "backbone": "toy_vit", "aux_level": -2},
}


def recipe_of(name):
    return find_recipe(name)


def tiny_config(name, **changes):
    """The toy preset with small crops and few steps."""
    config = recipe_of(name).presets["toy"]
    method = dataclasses.replace(config.method, **CHANGES[name])
    data = dataclasses.replace(config.data, crop=SIDE)
    run = RunConfig(steps=2, batch=2, log_every=0)
    return dataclasses.replace(config, data=data, run=run, method=method, **changes)


def build(name, seed=0):
    torch.manual_seed(seed)
    return recipe_of(name).build(tiny_config(name), CLASSES, True)


def batch(step=0, count=2):
    """Scenes with a strong view, as the loader gives them; a pure function of the step."""
    from wsss_lab.data.loader import StepLoader
    from wsss_lab.data.toy import ToyWorld
    from wsss_lab.data.transform import TrainingTransform

    world = ToyWorld("train", 8, size=SIDE)
    return StepLoader(world, count, 0, TrainingTransform(DataConfig(crop=SIDE, strong=True)))(step)


def optim(name):
    """Of the overfitting test: fast, without warm-up."""
    return OptimConfig(lr=1e-3, warmup=0, schedule="constant")


def step_kind(name):
    """(settings, step) -> name of the kind of step, of a method of one stage."""
    return importlib.import_module(f"wsss_lab.recipes.{name}").METHOD.step_kind


def option(name, value):
    """A setting as the command line has it."""
    if isinstance(value, bool):
        head, dot, last = name.rpartition(".")
        return [f"--{head}{dot}{'' if value else 'no-'}{last}"]
    if isinstance(value, list | tuple):
        return [f"--{name}", *map(str, value)]
    return [f"--{name}", str(value)]
