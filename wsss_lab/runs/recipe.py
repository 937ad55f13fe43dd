"""The recipe of a method: its settings, and how commands train, plan and open it.

`train`, `eval`, `predict`, `plan`, `info`, the notebooks and the studies know methods by this
dataclass alone; nothing outside a method's own folder knows a method by its name.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from wsss_lab.config import OptimConfig, RunConfig
from wsss_lab.registry import Registry

if TYPE_CHECKING:  # the table is asked before torch is needed
    from torch import Tensor, nn

    import wsss_lab.evaluate.inference
    from wsss_lab.evaluate.evaluate import Crf
    from wsss_lab.methods.common.base import Method
    from wsss_lab.methods.common.checkpoints import CheckpointKind
    from wsss_lab.methods.common.published import Published

Log = Callable[[str], None]


class Train(Protocol):
    """Train and score, or go on with what a folder holds; return the content of `metrics.json`."""

    def __call__(  # noqa: D102
        self,
        config: Any,
        out: Path,
        resume: bool = False,
        log: Log = print,
        overwrite: bool = False,
    ) -> dict[str, Any]: ...


@dataclass(frozen=True)
class TrainingStage:
    """A network that a recipe is going to train, for the look ahead of `runs.preflight`.

    Names of settings are those of the command line.
    """

    build: "Callable[[int], nn.Module]"
    """Foreground classes -> the network with the weights it starts from."""
    run: RunConfig
    """Length and batch."""
    optim: OptimConfig
    """Optimiser."""
    backbone: str = "backbone"
    """Setting of its backbone."""
    weights: str = "weights"
    """Setting of the weights it starts from."""
    batch_setting: str = "run.batch"
    """Setting of the images per step."""
    steps_setting: str = "run.steps"
    """Setting of the length."""
    optim_setting: str = "optim"
    """Setting of the optimiser."""


@dataclass(frozen=True)
class Recipe:
    """A method as the commands see it."""

    name: str
    """Name on the command line and in `config.json`."""
    summary: str
    """One line for lists and `--help`."""
    config: type[Any]
    """Frozen dataclass of all settings; every field is an option of the command line."""
    presets: Mapping[str, Any]
    """Name -> settings. Names ending in `-released` reproduce an authors' code."""
    build: "Callable[[Any, int, bool], Method]"
    """(settings, foreground classes, whether to load the backbone's weights) -> the network that
    learns from tags; its heads depend on the current random seed."""
    train: Train
    """Trains and scores a run in a folder."""
    load_method: "Callable[[Mapping[str, Any], Mapping[str, Tensor]], Method]"
    """(description of a weights file that `train` wrote, its tensors) -> network in eval mode."""
    load_views: "Callable[[Mapping[str, Any]], wsss_lab.evaluate.inference.MultiScale]"
    """Description of a weights file -> scales and flips with which its network is run."""
    plan: Callable[..., Any]
    """(settings, folder, steps, images, data) -> `wsss_lab.plan.plan.Plan`."""
    missing_presets: Mapping[str, str] = field(default_factory=dict)
    """Name -> why there is no such preset."""
    tags_note: str = ""
    """Which tags published numbers were made with."""
    load_released: "Callable[[Mapping[str, Tensor]], tuple[Method, Any]] | None" = None
    """Tensors of a checkpoint of the authors -> network in eval mode, its settings."""
    views: "Callable[[Any], wsss_lab.evaluate.inference.MultiScale] | None" = None
    """Settings -> scales and flips; for released checkpoints."""
    test_views: "Mapping[str, wsss_lab.evaluate.inference.MultiScale]" = field(default_factory=dict)
    """Name -> scales and flips of a test protocol; settings call it METHOD-NAME."""
    crfs: "Mapping[str, Crf]" = field(default_factory=dict)
    """Name -> post-processing of probabilities; settings call it METHOD-NAME."""
    published: "tuple[Published, ...]" = ()
    """Published results, to compare runs with."""
    warm_ups: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Backbone -> changes to the preset `toy` that leave the tag losses alone; see
    `wsss_lab.studies.toy.warm_up`."""
    checkpoint: "CheckpointKind | None" = None
    """How a checkpoint of the authors is recognised; `load_released` makes it run."""
    stages: Callable[[Any], Sequence[TrainingStage]] | None = None
    """Settings -> what `train` is going to train, to be looked at beforehand."""

    def preset(self, name: str) -> Any:
        """Return the settings of a preset.

        Raises:
            ValueError: there is none; says why, where a reason is known.
        """
        if name in self.presets:
            return self.presets[name]
        why = self.missing_presets.get(name)
        raise ValueError(
            f"preset: expected one of {', '.join(self.presets)}, got {name!r}"
            + (f": {why}" if why else "")
        )


RECIPES: Registry[Recipe] = Registry("METHOD", "wsss_lab.methods")
"""Name -> recipe. The package's own are listed in `wsss_lab.recipes`."""


def register_method(recipe: Recipe) -> Recipe:
    """Make a method known to `train`, `eval`, `predict`, `plan`, `info`, notebooks and studies.

    Args:
        recipe: its name must be free.

    Raises:
        ValueError: this package has a method of that name.
    """
    RECIPES.register(recipe.name, recipe)
    return recipe


def find_recipe(name: str) -> Recipe:
    """Return the recipe of a method.

    Raises:
        ValueError: there is none of that name.
    """
    return RECIPES.find(name)


def find_preset(name: str, preset: str) -> Any:
    """Return the settings of a method's preset.

    Raises:
        ValueError: there is no such method or preset; says why where there is a reason.
    """
    return find_recipe(name).preset(preset)


def find_views(name: str) -> "wsss_lab.evaluate.inference.MultiScale":
    """Return the scales and flips of a test protocol.

    Args:
        name: a key of `wsss_lab.evaluate.inference.VIEWS`, or METHOD-NAME, where NAME is one of the
            method's `Recipe.test_views`.

    Raises:
        ValueError: there is none of that name.
    """
    from wsss_lab.evaluate.inference import VIEWS

    if name in VIEWS:
        return VIEWS[name]
    return _of_method("views", name, lambda recipe: recipe.test_views, VIEWS)


def find_crf(name: str) -> "Crf | None":
    """Return a post-processing of probabilities.

    Args:
        name: METHOD-NAME, where NAME is one of the method's `Recipe.crfs`; "none" for none.

    Raises:
        ValueError: there is none of that name.
    """
    if name == "none":
        return None
    return _of_method("crf", name, lambda recipe: recipe.crfs, ("none",))


def _of_method(
    option: str,
    name: str,
    table: Callable[[Recipe], Mapping[str, Any]],
    general: Iterable[str],
) -> Any:
    """Look METHOD-NAME up in a table of the method's recipe."""
    method, _, own = name.rpartition("-")
    found = table(RECIPES[method]) if method in RECIPES else {}
    if own in found:
        return found[own]
    known = [f"{other}-{key}" for other, recipe in RECIPES.items() for key in table(recipe)]
    raise ValueError(f"{option}: expected one of {', '.join([*general, *known])}, got {name!r}")
