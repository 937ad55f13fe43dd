"""Settings of the toy world: which failures of CAM appear, and how strongly."""

from dataclasses import dataclass

from wsss_lab.data.catalog import TOY_CLASSES


@dataclass(frozen=True)
class ToyKnobs:
    """Settings of a toy scene; each changes its own aspect of a scene and nothing else.

    Raises:
        ValueError: a knob is outside its range; the message names it.
    """

    share: float = 0.3
    """Degree of sharing among classes, 0..1. 0: own colours, coats and proportions; 1: everything
    but the distinctive part is shared. Drives partial activation."""
    context_given_class: float = 0.85
    """Probability that a scene with a boat has water (with a train: rails)."""
    context_given_other: float = 0.18
    """Probability that a scene without a boat has water (without a train: rails)."""
    clutter: int = 4
    """At most this many trees, crates, stones, lamps, ... a scene (0..8)."""
    contrast: float = 0.6
    """Strength of object outlines, 0..1; also how rarely the ground takes an object's colour."""
    classes: tuple[str, ...] = TOY_CLASSES
    """Classes that occur (names from `TOY_CLASSES`). Tags keep all ten columns."""
    single: bool = False
    """One large object a scene, as in a classification data set."""
    max_objects: int = 4
    """At most this many objects a scene, 1..4."""
    min_side: float = 0.15
    """Longest side of the smallest object, as a share of the image side."""
    max_side: float = 0.8
    """Longest side of the largest object, as a share of the image side."""

    def __post_init__(self) -> None:
        for name in ("share", "context_given_class", "context_given_other", "contrast"):
            value = getattr(self, name)
            if not 0.0 <= value <= 1.0:
                raise ValueError(f"ToyKnobs.{name}: expected a number in 0..1, got {value!r}")
        for name, low, high in (("clutter", 0, 8), ("max_objects", 1, 4)):
            value = getattr(self, name)
            if not isinstance(value, int) or not low <= value <= high:
                raise ValueError(
                    f"ToyKnobs.{name}: expected an integer in {low}..{high}, got {value!r}"
                )
        if not 0.1 <= self.min_side <= self.max_side <= 1.0:
            raise ValueError(
                "ToyKnobs.min_side, max_side: expected 0.1 <= min_side <= max_side <= 1, got "
                f"{self.min_side!r}, {self.max_side!r}"
            )
        unknown = [name for name in self.classes if name not in TOY_CLASSES]
        if unknown or not self.classes or isinstance(self.classes, str):
            raise ValueError(
                f"ToyKnobs.classes: expected a non-empty tuple of names from {TOY_CLASSES}, "
                f"got {self.classes!r}"
            )
        object.__setattr__(self, "classes", tuple(self.classes))
