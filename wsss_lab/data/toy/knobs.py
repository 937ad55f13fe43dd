"""Settings of the toy world: which failures of CAM appear, and how strongly."""

from dataclasses import dataclass
from typing import Annotated

from wsss_lab.data.catalog import TOY_CLASSES
from wsss_lab.ranges import Range, SettingError, Settings, Share, require_order


@dataclass(frozen=True)
class ToyKnobs(Settings):
    """Settings of a toy scene; each changes its own aspect of a scene and nothing else.

    Raises:
        ValueError: a knob is outside its range; the message names it.
    """

    share: Share = 0.3
    """Degree of sharing among classes, 0..1. 0: own colours, coats and proportions; 1: everything
    but the distinctive part is shared. Drives partial activation."""
    context_given_class: Share = 0.85
    """Probability that a scene with a boat has water (with a train: rails)."""
    context_given_other: Share = 0.18
    """Probability that a scene without a boat has water (without a train: rails)."""
    clutter: Annotated[int, Range("[0, 8]")] = 4
    """At most this many trees, crates, stones, lamps, ... a scene (0..8)."""
    contrast: Share = 0.6
    """Strength of object outlines, 0..1; also how rarely the ground takes an object's colour."""
    classes: tuple[str, ...] = TOY_CLASSES
    """Classes that occur (names from `TOY_CLASSES`). Tags keep all ten columns."""
    single: bool = False
    """One large object a scene, as in a classification data set."""
    max_objects: Annotated[int, Range("[1, 4]")] = 4
    """At most this many objects a scene, 1..4."""
    min_side: Annotated[float, Range("[0.1, 1]")] = 0.15
    """Longest side of the smallest object, as a share of the image side."""
    max_side: Annotated[float, Range("[0.1, 1]")] = 0.8
    """Longest side of the largest object, as a share of the image side."""

    def require(self) -> None:
        """Refuse sides in the wrong order, and classes that are not known."""
        require_order(self, "min_side", "max_side")
        if unknown := [name for name in self.classes if name not in TOY_CLASSES]:
            raise SettingError(
                ["classes"], f"expected some of {', '.join(TOY_CLASSES)}, got {unknown}"
            )
