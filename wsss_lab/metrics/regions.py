"""Errors of a map by region: too large or too small, near or far from the distinctive part.

All functions take masks, so they serve any data set with masks of parts and contexts. Distances are
Chebyshev (king's moves): a square of side 2 r + 1 around a pixel is "within r px".
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor


def over_activation(
    pred: Bool[Tensor, "*b h w"], truth: Bool[Tensor, "*b h w"]
) -> Float[Tensor, "*b"]:
    """Return false-positive area over true area, per mask; infinite or NaN without truth.

    0 is perfect; 1 means a false-positive area as large as the object. Sum areas over a data set
    (`Report.over_activation` does) rather than averaging this over images with tiny objects.
    """
    _same(pred=pred, truth=truth)
    return (pred & ~truth).sum((-2, -1)) / truth.sum((-2, -1))


def under_activation(
    pred: Bool[Tensor, "*b h w"], truth: Bool[Tensor, "*b h w"]
) -> Float[Tensor, "*b"]:
    """Return false-negative area over true area, per mask: 1 - recall; NaN without truth."""
    _same(pred=pred, truth=truth)
    return (truth & ~pred).sum((-2, -1)) / truth.sum((-2, -1))


def dilate(mask: Bool[Tensor, "*b h w"], radius: int) -> Bool[Tensor, "*b h w"]:
    """Grow a mask by `radius` px in Chebyshev distance.

    Raises:
        ValueError: if `radius` is negative.
    """
    if radius < 0:
        raise ValueError(f"radius must be at least 0 px, got {radius}")
    grown = F.pad(mask, (radius,) * 4)
    for dim in (-2, -1):
        width = 1  # a window of twice the width is the union of two
        while width < 2 * radius + 1:
            step = min(width, 2 * radius + 1 - width)
            rest = grown.shape[dim] - step
            grown = grown.narrow(dim, 0, rest) | grown.narrow(dim, step, rest)
            width += step
    return grown


def distance_bands(mask: Bool[Tensor, "*b h w"], edges: Sequence[int]) -> Int[Tensor, "*b h w"]:
    """Sort pixels by their distance to a mask.

    Args:
        mask: distances are measured to its True pixels.
        edges: ascending radii, px.

    Returns:
        int64: 0 on the mask, i for edges[i-2] < distance <= edges[i-1] (from 0 for i = 1), and
        len(edges) + 1 beyond the last edge, and everywhere for an empty mask.

    Raises:
        ValueError: if the edges are not ascending and positive.
    """
    if list(edges) != sorted(set(edges)) or any(edge <= 0 for edge in edges):
        raise ValueError(f"edges must be ascending positive radii in px, got {list(edges)}")
    band = torch.full(mask.shape, len(edges) + 1, device=mask.device)
    reached = mask
    inside = [mask]
    before = 0
    for edge in edges:
        # squares add up: dilating by the difference equals dilating the mask by `edge`
        reached = dilate(reached, edge - before)
        before = edge
        inside.append(reached)
    # the dilated masks are nested, so the number that contain a pixel gives its band
    return band - torch.stack(inside).sum(dim=0)


@dataclass(frozen=True)
class NearFar:
    """Hits and pixels of an object, near to and far from a part of it; `+` adds them up."""

    near_hits: int
    near_pixels: int
    far_hits: int
    far_pixels: int

    @property
    def near(self) -> float:
        """Recall near the part, 0..1; NaN without such pixels."""
        return self.near_hits / self.near_pixels if self.near_pixels else float("nan")

    @property
    def far(self) -> float:
        """Recall far from the part, 0..1; NaN without such pixels."""
        return self.far_hits / self.far_pixels if self.far_pixels else float("nan")

    def __add__(self, other: "NearFar") -> "NearFar":
        return NearFar(
            self.near_hits + other.near_hits,
            self.near_pixels + other.near_pixels,
            self.far_hits + other.far_hits,
            self.far_pixels + other.far_pixels,
        )


def near_far_recall(
    pred: Bool[Tensor, "*b h w"],
    truth: Bool[Tensor, "*b h w"],
    part: Bool[Tensor, "*b h w"],
    *,
    near: int = 8,
    far: int = 20,
) -> NearFar:
    """Measure partial activation: recall of one class near its distinctive part and far from it.

    Recall *on* the part would mislead: thin ears and horns lie on the outline, where a coarse map
    is at its worst.

    Args:
        pred: pixels predicted as the class.
        truth: pixels of the class.
        part: pixels of its distinctive parts. Images without any count as neither.
        near: pixels within this distance are near, px.
        far: pixels beyond this distance are far, px.

    Raises:
        ValueError: if shapes differ or near > far.
    """
    _same(pred=pred, truth=truth, part=part)
    close, distant = near_far_regions(truth, part, near=near, far=far)
    counts = torch.stack([close & pred, close, distant & pred, distant]).flatten(1).sum(1)
    return NearFar(*counts.tolist())


def near_far_regions(
    truth: Bool[Tensor, "*b h w"], part: Bool[Tensor, "*b h w"], *, near: int = 8, far: int = 20
) -> tuple[Bool[Tensor, "*b h w"], Bool[Tensor, "*b h w"]]:
    """Return an object's pixels near to and far from a part; arguments as in `near_far_recall`.

    Returns:
        Near, far; both empty in images without the part.

    Raises:
        ValueError: if shapes differ or near > far.
    """
    _same(truth=truth, part=part)
    if near > far:
        raise ValueError(f"near must not exceed far, got near={near} and far={far} px")
    has_part = part.flatten(-2).any(-1)[..., None, None]
    return dilate(part, near) & truth & has_part, ~dilate(part, far) & truth & has_part


@dataclass(frozen=True)
class ContextActivation:
    """Sums of a map over context and other background, by distance band; `+` adds them up."""

    edges: tuple[int, ...]
    """Band i lies in edges[i] < distance <= edges[i + 1]; the last band is open."""
    context_sum: Float[Tensor, "e"]
    context_pixels: Int[Tensor, "e"]
    other_sum: Float[Tensor, "e"]
    other_pixels: Int[Tensor, "e"]

    @property
    def context(self) -> Float[Tensor, "e"]:
        """Mean activation on the context, per band; NaN where there is none."""
        return self.context_sum / self.context_pixels

    @property
    def other(self) -> Float[Tensor, "e"]:
        """Mean activation on other background at the same distances."""
        return self.other_sum / self.other_pixels

    def __add__(self, other: "ContextActivation") -> "ContextActivation":
        if self.edges != other.edges:
            raise ValueError(f"edges must agree, got {self.edges} and {other.edges}")
        return ContextActivation(
            self.edges,
            self.context_sum + other.context_sum,
            self.context_pixels + other.context_pixels,
            self.other_sum + other.other_sum,
            self.other_pixels + other.other_pixels,
        )


def context_activation(
    cam: Float[Tensor, "*b h w"],
    objects: Bool[Tensor, "*b h w"],
    context: Bool[Tensor, "*b h w"],
    *,
    edges: Sequence[int] = (0, 8, 16),
    ignore: Bool[Tensor, "*b h w"] | None = None,
) -> ContextActivation:
    """Compare a class's map on its usual context with other background at equal distance.

    A halo round the object lies on the context anyway, so a plain share of false positives on it
    is mostly geometry. Equal distance bands remove that; beyond 8 px little halo is left.

    Args:
        cam: the map of one class, 0..1 (or a 0/1 prediction).
        objects: every pixel that is not background.
        context: pixels of the context, for example water for boats.
        edges: ascending, px: (0, 8, 16) means the bands up to 8, up to 16 and beyond. Pixels at or
            below the first edge are left out.
        ignore: pixels to leave out.

    Returns:
        Sums in float64 on the CPU, one entry per band. An image without objects is all beyond the
        last edge.

    Raises:
        ValueError: if shapes differ, or edges are not ascending from 0 or more.
    """
    _same(cam=cam, objects=objects, context=context)
    edges = tuple(edges)
    if not edges or edges[0] < 0:
        raise ValueError(f"edges must start at 0 px or more, got {edges}")
    bands = distance_bands(objects, [edge for edge in edges if edge > 0])
    bands = bands - (1 if edges[0] == 0 else 2)  # what lies closer than the first edge is below 0
    usable = ~objects & (bands >= 0)
    if ignore is not None:
        usable = usable & ~ignore
    sums = []
    for region in (usable & context, usable & ~context):
        at = bands[region]
        sums.append(torch.bincount(at, weights=cam[region].double(), minlength=len(edges)).cpu())
        sums.append(torch.bincount(at, minlength=len(edges)).cpu())
    return ContextActivation(edges, *sums)


def _same(**masks: Tensor) -> None:
    shapes = {name: tuple(mask.shape) for name, mask in masks.items()}
    if len(set(shapes.values())) > 1:
        raise ValueError(f"masks must have the same shape, got {shapes}")
    for name, mask in masks.items():
        if name != "cam" and mask.dtype != torch.bool:
            raise ValueError(
                f"{name} must be boolean, got {mask.dtype}; compare, as in labels == c"
            )
