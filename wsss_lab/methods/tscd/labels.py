"""Targets made from the class maps: normalised maps, their channels for SCD, affinity labels.

Pseudo-labels of pixels are `wsss_lab.cam.cam_to_pseudo_label`, which CoSA shares.
"""

from typing import Literal

import torch
from jaxtyping import Bool, Float, Integer
from torch import Tensor

from wsss_lab import IGNORE
from wsss_lab.cam import normalize_cam
from wsss_lab.methods.tscd.values import NORMALIZATION


def normalize_inside(
    cam: Float[Tensor, "b k h w"], valid: Bool[Tensor, "b h w"] | None
) -> Float[Tensor, "b k h w"]:
    """Normalise joined maps to 0..1 per class, by real pixels alone; 0 in padding.

    *In the released code* padding takes part in minimum and maximum; so it does with `valid` None.
    """
    if valid is None:
        return normalize_cam(cam, NORMALIZATION)
    low = cam.masked_fill(~valid[:, None], torch.inf).amin((2, 3), keepdim=True)
    # the smallest real value becomes 0; an image without real pixels is 0 everywhere
    return normalize_cam(
        torch.where(valid[:, None], cam, low.nan_to_num(posinf=0.0)), NORMALIZATION
    )


def scd_channels(
    cam: Float[Tensor, "b k h w"],
    tags: Float[Tensor, "b k"],
    classes: Literal["all", "tagged", "background"],
) -> Float[Tensor, "b _c h w"]:
    """Select the channels of the maps that the correspondence is computed of.

    *In the released code* `all`: maps of absent classes take part, each stretched to 0..1, so up to
    19 of 20 channels are noise. *Here* also `tagged` (absent classes are 0; of an image with a
    single class almost all cosines are 1), and `background`, which adds one minus the strongest
    tagged map.
    """
    if classes == "all":
        return cam
    cam = cam * (tags > 0)[:, :, None, None]
    if classes == "tagged":
        return cam
    return torch.cat([1 - cam.amax(1, keepdim=True), cam], dim=1)


def affinity_label(
    label: Integer[Tensor, "b gh gw"], mask: Bool[Tensor, "n n"] | None = None
) -> Integer[Tensor, "b n n"]:
    """Label every pair of cells: the same class or not.

    Two background cells are of the same class. Symmetric. Source: AFA and TSCD as released.

    Args:
        label: pseudo-label on the token grid, see `wsss_lab.refine.grid_label`; `IGNORE` where
            unknown.
        mask: pairs that count, see `wsss_lab.refine.radius_mask`; None is all.

    Returns:
        uint8: 1 same class, 0 different, `IGNORE` where a cell is unknown or the pair too far.

    Raises:
        ValueError: if shapes disagree.
    """
    if label.ndim != 3:
        raise ValueError(f"label must be (b, gh, gw), got {tuple(label.shape)}; add the batch axis")
    cells = label.flatten(1)
    n = cells.shape[1]
    if mask is not None and mask.shape != (n, n):
        raise ValueError(
            f"mask must be (n, n) = {(n, n)}, got {tuple(mask.shape)}; see radius_mask"
        )
    same = (cells[:, :, None] == cells[:, None, :]).to(torch.uint8)
    unknown = cells == IGNORE
    ignored = unknown[:, :, None] | unknown[:, None, :]
    if mask is not None:
        ignored |= ~mask.bool()
    return same.masked_fill_(ignored, IGNORE)
