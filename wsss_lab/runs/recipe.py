"""The recipe of a method: its settings, and how commands train, plan and open it.

`train`, `eval`, `predict`, `plan`, `info`, the notebooks and the studies know methods by this
dataclass alone; nothing outside a method's own folder knows a method by its name.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from wsss_lab.registry import Registry

if TYPE_CHECKING:  # the table is asked before torch is needed
    from torch import Tensor

    import wsss_lab.evaluate.inference
    from wsss_lab.methods.common.base import Method

Log = Callable[[str], None]


class Train(Protocol):
    """Train and score, or go on with what a folder holds; return the content of `metrics.json`."""

    def __call__(  # noqa: D102
        self, config: Any, out: Path, resume: bool = False, log: Log = print
    ) -> dict[str, Any]: ...


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
