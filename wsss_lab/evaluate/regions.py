"""Where a method is right and wrong in the toy world, whose scenes know their parts and contexts.

Two failures of class maps are counted next to mIoU:

- *context*: boats come with water and trains with rails, so a network that knows tags only may take
  the one for the other. Counted is what a class claims of its context in scenes that have both,
  farther than `HALO` from every object (closer pixels are halo), and, as a control, of all other
  background of the same scenes at that distance.
- *coverage*: recall of objects near to and far from what gives their class away.

Distances are those of the calibration at 128 px and grow with the image.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from wsss_lab.data.catalog import TOY_CLASSES, TOY_CONTEXTS
from wsss_lab.metrics import dilate, near_far_regions

HALO = 8 / 128
"""Distance from objects beyond which context is counted, as a share of the image side."""
NEAR, FAR = 8 / 128, 20 / 128
"""Distances from distinctive parts: up to here near, from here far; shares of the image side."""
EXTRAS = ("distinctive", "context", "instance")
"""Entries that a sample must have."""


@dataclass(frozen=True)
class Regions:
    """Regions of some scenes, made once and used for every kind of score."""

    scenes: tuple[Int[Tensor, "_r"], ...]
    """For each class of `TOY_CONTEXTS`: rows of the scenes that show it with its context."""
    context: tuple[Bool[Tensor, "_r h w"], ...]
    """Its context there, away from objects."""
    other: tuple[Bool[Tensor, "_r h w"], ...]
    """Other background there, away from objects."""
    truth: Int[Tensor, "b h w"]
    near: Bool[Tensor, "b h w"]
    """Object pixels near to the distinctive part of their class."""
    far: Bool[Tensor, "b h w"]
    """Object pixels far from it."""


def regions_of(
    samples: Sequence[Mapping[str, Any]], truth: Int[Tensor, "b h w"], tags: Float[Tensor, "b k"]
) -> Regions | None:
    """Regions of scenes of one size; None for images that are no toy scenes.

    Args:
        samples: with the `EXTRAS` of toy scenes, or without.
        truth: their masks.
        tags: their true tags.
    """
    if not all(name in sample for sample in samples for name in EXTRAS):
        return None
    side = max(truth.shape[-2:])
    distinctive, context, instance = (
        torch.stack([sample[name] for sample in samples]).to(truth.device) for name in EXTRAS
    )
    scenes, on, off = [], [], []
    for name, (_, value) in TOY_CONTEXTS.items():
        rows = tags[:, TOY_CLASSES.index(name)].nonzero()[:, 0]
        away = ~dilate(instance[rows] > 0, round(HALO * side))
        there = (context[rows] == value) & away
        shown = there.flatten(1).any(1)
        scenes.append(rows[shown])
        on.append(there[shown])
        off.append((away & ~there)[shown])
    objects = tags.nonzero()
    own = truth[objects[:, 0]] == objects[:, 1, None, None] + 1
    # parts may lie in the void band: count a part for the class that it touches
    part = distinctive[objects[:, 0]].bool() & dilate(own, 2)
    bands = near_far_regions(own, part, near=round(NEAR * side), far=round(FAR * side))
    near, far = (
        torch.zeros_like(truth, dtype=torch.uint8).index_add_(0, objects[:, 0], band.byte()) > 0
        for band in bands  # a pixel is of one class, so that those of a scene fit into one map
    )
    return Regions(tuple(scenes), tuple(on), tuple(off), truth, near, far)


class RegionCounts:
    """Sums over the regions of one kind of score; add scenes, merge parts, `as_dict`."""

    def __init__(self) -> None:
        self.context = torch.zeros(len(TOY_CONTEXTS), 4, dtype=torch.float64)
        self.coverage = torch.zeros(4, dtype=torch.float64)
        self.labelled = False

    def add(
        self,
        regions: Regions,
        label: Int[Tensor, "b h w"] | None = None,
        maps: Float[Tensor, "b k h w"] | None = None,
    ) -> None:
        """Count some scenes.

        Args:
            regions: of these scenes.
            label: 0 background, c + 1 class c; None leaves coverage out.
            maps: 0..1, classes that are not allowed at 0; None takes the labels for contexts, too.
        """
        for i, name in enumerate(TOY_CONTEXTS):
            rows, c = regions.scenes[i], TOY_CLASSES.index(name)
            claimed = maps[rows, c] if maps is not None else label[rows] == c + 1  # type: ignore
            pairs = (regions.context[i], regions.other[i])
            self.context[i] += _sums((claimed, where) for where in pairs)
        if label is not None:
            hit = label == regions.truth
            self.coverage += _sums((hit, where) for where in (regions.near, regions.far))
            self.labelled = True

    def merge(self, other: "RegionCounts") -> None:
        """Add the counts of another part of the scenes."""
        self.context += other.context
        self.coverage += other.coverage
        self.labelled = self.labelled or other.labelled

    def as_dict(self) -> dict[str, dict[str, float | None]]:
        """Plain numbers; None where there was nothing to count.

        Returns:
            `context`: `boat_water`, the mean over all those pixels of the class's map (or the share
            that is labelled so), `boat_other`, the same on the control; likewise for trains.
            `coverage`, if labels were counted: `near` and `far`, recall over all classes.
        """
        found: dict[str, dict[str, float | None]] = {"context": {}}
        for row, (name, (context, _)) in zip(self.context, TOY_CONTEXTS.items(), strict=True):
            found["context"][f"{name}_{context}"] = _ratio(row[:2])
            found["context"][f"{name}_other"] = _ratio(row[2:])
        if self.labelled:
            found["coverage"] = {
                "near": _ratio(self.coverage[:2]),
                "far": _ratio(self.coverage[2:]),
            }
        return found


def _sums(pairs: Iterable[tuple[Tensor, Tensor]]) -> Float[Tensor, "4"]:
    """Sum of values over a region and its pixels, for two regions."""
    found: list[Tensor] = []
    for values, where in pairs:
        boolean = values.dtype == torch.bool  # counting is several times faster than adding up
        total = (values & where).count_nonzero() if boolean else (values.double() * where).sum()
        found += [total.double(), where.count_nonzero().double()]
    return torch.stack(found).cpu()


def _ratio(pair: Tensor) -> float | None:
    return float(pair[0] / pair[1]) if pair[1] > 0 else None
