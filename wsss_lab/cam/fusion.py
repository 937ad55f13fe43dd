"""Fusion of the maps of several scales and of the mirrored image."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from wsss_lab.cam.maps import Normalization, normalize_cam
from wsss_lab.ranges import Scales, Settings


@dataclass(frozen=True)
class Fusion(Settings):
    """Fusion rule; the order is fixed: resize, merge the flips, merge the scales."""

    scales: Scales = (1.0,)
    """Side of each view relative to the image; sizes are rounded down."""
    flip: bool = True
    """Add the horizontally mirrored image at each scale, in the same batch."""
    fuse_flip: Literal["max", "sum", "mean"] = "max"
    """Merge of a map and its mirrored partner."""
    fuse_scale: Literal["sum", "mean", "max", "last"] = "sum"
    """Merge of the scales. "last" keeps only the last scale."""
    relu: Literal["before", "after_flip", "none"] = "after_flip"
    """Cut negative values before the resize, after the merge of the flips, or never."""
    align_corners: bool = False
    """For the bilinear resize of the maps. Images are always resized with False."""
    source: str = "wsss_lab"
    """Origin of the rule."""


FUSIONS: dict[str, Fusion] = {
    "single": Fusion(scales=(1.0,), flip=False),
    "multi_scale": Fusion(
        scales=(1.0, 0.5, 1.5), source="AFA, released code; the most common rule since"
    ),
}
"""Rules that belong to no single method; a paper's own are in the file `values` of its folder.
Normalise afterwards with `normalize_cam`."""


def fuse_cams(
    views: Sequence[Float[Tensor, "v k _ _"]], size: tuple[int, int], fusion: Fusion
) -> Float[Tensor, "b k h w"]:
    """Merge raw maps, in float32.

    Args:
        views: one tensor per scale, in the order of `fusion.scales`. With `fusion.flip` the batch
            is [images; mirrored images], and the second half is mirrored back here.
        size: (h, w) of the result, px.
        fusion: the rule.

    Returns:
        Merged maps, not normalised; non-negative unless `fusion.relu == "none"`.

    Raises:
        ValueError: if the number of views is not that of the scales, or a batch with flips is odd.
    """
    if len(views) != len(fusion.scales):
        raise ValueError(
            f"views must have one entry per scale {fusion.scales}, got {len(views)} entries; "
            "use dataclasses.replace(fusion, scales=...)"
        )
    if fusion.flip and any(view.shape[0] % 2 for view in views):
        raise ValueError(
            "views must hold [images; mirrored images] when fusion.flip is on, got odd batches "
            f"{[view.shape[0] for view in views]}; use dataclasses.replace(fusion, flip=False)"
        )
    if fusion.fuse_scale == "last":
        views = views[-1:]
    join = torch.maximum if fusion.fuse_scale == "max" else torch.add
    joined = reduce(join, (_one_scale(view.float(), size, fusion) for view in views))
    return joined / len(views) if fusion.fuse_scale == "mean" else joined


def _one_scale(
    view: Float[Tensor, "v k gh gw"], size: tuple[int, int], fusion: Fusion
) -> Float[Tensor, "b k h w"]:
    """Resize the maps of one scale and merge each with its mirrored partner."""
    if fusion.relu == "before":
        view = view.relu()
    if view.shape[-2:] != size:
        view = F.interpolate(view, size, mode="bilinear", align_corners=fusion.align_corners)
    if fusion.flip:
        plain, mirrored = view.chunk(2)
        mirrored = mirrored.flip(-1)
        if fusion.fuse_flip == "max":
            view = torch.maximum(plain, mirrored)
        else:
            view = plain + mirrored
            if fusion.fuse_flip == "mean":
                view = view / 2
    return view.relu() if fusion.relu == "after_flip" else view


def multi_scale_cam(
    cam_fn: Callable[[Float[Tensor, "v 3 h w"]], Float[Tensor, "v k gh gw"]],
    images: Float[Tensor, "b 3 h w"],
    fusion: Fusion,
    *,
    size: tuple[int, int] | None = None,
    normalize: str | Normalization | None = "min_max",
) -> Float[Tensor, "b k oh ow"]:
    """Run a map function at every scale and merge the results.

    Images and their mirrored versions share one batch, so the function runs once per scale.
    Gradients follow the caller's mode: wrap in `torch.no_grad()` unless they are needed.

    Args:
        cam_fn: normalised images -> raw maps of any grid size.
        images: normalised images.
        fusion: the rule, e.g. one of `FUSIONS`.
        size: (h, w) of the result; None takes the size of `images`.
        normalize: rule for `normalize_cam`, or None for raw sums.

    Returns:
        One map per class.

    Raises:
        ValueError: if a scale reduces a side to 0 px.
    """
    h, w = images.shape[-2:]
    views = []
    for scale in fusion.scales:
        sides = (int(h * scale), int(w * scale))
        if min(sides) < 1:
            raise ValueError(
                f"scales must leave at least one pixel of a {h}x{w} image, got {scale}"
            )
        view = images
        if sides != (h, w):
            view = F.interpolate(images, sides, mode="bilinear", align_corners=False)
        views.append(cam_fn(torch.cat([view, view.flip(-1)]) if fusion.flip else view))
    fused = fuse_cams(views, size or (h, w), fusion)
    return fused if normalize is None else normalize_cam(fused, normalize)
