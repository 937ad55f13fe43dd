"""Methods: one file per paper, and the table by which the command line finds their recipes."""

import importlib
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class MethodEntry:
    """A method that can be trained from the command line."""

    summary: str
    """One line."""
    recipe: str
    """Module with `Config`, `PRESETS`, `train` and `load_method`; imported when it is needed. See
    `wsss_lab.recipes`."""

    def load(self) -> Any:
        """Import the recipe."""
        return importlib.import_module(self.recipe)


METHODS: dict[str, MethodEntry] = {
    "cam_baseline": MethodEntry(
        "tag classifier, its class activation maps as labels, a segmentation network on them",
        "wsss_lab.recipes.cam_baseline",
    ),
    "tscd": MethodEntry(
        "refined maps as labels, correspondences of two views of the maps (AAAI 2023)",
        "wsss_lab.recipes.tscd",
    ),
    "asdt": MethodEntry(
        "two teachers take turns by a pulse signal (TIP 2025)",
        "wsss_lab.recipes.asdt",
    ),
    "cosa": MethodEntry(
        "two networks swap class maps and segmentation as labels (ECCV 2024)",
        "wsss_lab.recipes.cosa",
    ),
    "acr": MethodEntry(
        "a transformer attends to an image as to its mirror image; its maps as labels (2023)",
        "wsss_lab.recipes.acr.recipe",
    ),
}
"""Name -> entry. A new method adds one line here, and nothing to the command line."""


def find_method(name: str) -> MethodEntry:
    """The entry of a method.

    Raises:
        ValueError: there is none of that name.
    """
    if name not in METHODS:
        raise ValueError(f"METHOD: expected one of {', '.join(METHODS)}, got {name!r}")
    return METHODS[name]


def find_preset(name: str, preset: str) -> Any:
    """The settings of a method's preset.

    Raises:
        ValueError: there is no such method or preset; says why where there is a reason.
    """
    recipe = find_method(name).load()
    if preset in recipe.PRESETS:
        return recipe.PRESETS[preset]
    why = getattr(recipe, "NO_PRESET", {}).get(preset)
    raise ValueError(
        f"preset: expected one of {', '.join(recipe.PRESETS)}, got {preset!r}"
        + (f": {why}" if why else "")
    )
