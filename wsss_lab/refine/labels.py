"""Refinement of present classes only, or of real pixels only."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float, Integer
from torch import Tensor

Refiner = Callable[[Float[Tensor, "b 3 h w"], Float[Tensor, "b c _h _w"]], Float[Tensor, "b c h w"]]
"""(images, masks) -> masks at the size of the images; every channel on its own."""


def refine_present(
    refiner: Refiner,
    images: Float[Tensor, "b 3 h w"],
    masks: Float[Tensor, "b c _h _w"],
    tags: Float[Tensor, "b k"],
    max_present: int | None = None,
) -> Float[Tensor, "b c h w"]:
    """Refine the channels of tagged classes and leave the others zero.

    A VOC image has 1.5 of 20 classes, so this saves most of the work. Images with different classes
    are refined in one call: their channels are gathered first.

    Args:
        refiner: `PAR()` or another that refines every channel on its own.
        images: as `refiner` expects them.
        masks: one channel per class, or background first (`c = k + 1`), which is always refined.
        tags: 0 or 1 (anything above 0 counts).
        max_present: number of channels to allocate, background included. None takes the largest
            number in the batch, which costs one synchronisation with an accelerator. A given bound
            avoids it, but is checked on the CPU only: elsewhere channels beyond it are dropped.

    Returns:
        All channels; zero where the class is absent.

    Raises:
        ValueError: if shapes disagree, no image has a class, or `max_present` is too small.
    """
    if masks.ndim != 4 or tags.ndim != 2 or len(masks) != len(tags):
        raise ValueError(
            "masks must be (b, c, h, w) and tags (b, k), got "
            f"{tuple(masks.shape)} and {tuple(tags.shape)}"
        )
    extra = masks.shape[1] - tags.shape[1]
    if extra not in (0, 1):
        raise ValueError(
            f"masks must have k = {tags.shape[1]} channels like tags, or k + 1 with the "
            f"background first, got {masks.shape[1]}"
        )
    keep = F.pad(tags > 0, (extra, 0), value=True)
    if max_present is None:
        max_present = int(keep.sum(dim=1).max())
        if max_present == 0:
            raise ValueError("tags must name a class in some image, got only zeros; skip the batch")
    elif max_present < 1 or (keep.is_cpu and keep.sum(dim=1).max() > max_present):
        raise ValueError(
            f"max_present must be at least the largest number of channels kept, got {max_present}"
        )
    index = keep.to(torch.int8).argsort(dim=1, descending=True, stable=True)[:, :max_present]
    kept = keep.gather(1, index)[:, :, None, None]
    index = index[:, :, None, None]
    chosen = masks.gather(1, index.expand(-1, -1, *masks.shape[2:]))
    refined = refiner(images, chosen) * kept
    full = refined.new_zeros(*masks.shape[:2], *refined.shape[2:])
    return full.scatter(1, index.expand_as(refined), refined)


def refine_in_box(
    refiner: Refiner,
    images: Float[Tensor, "b 3 h w"],
    masks: Float[Tensor, "b c h w"],
    boxes: Integer[Tensor, "b 4"],
    down_scale: int = 2,
) -> Float[Tensor, "b c h w"]:
    """Refine only the real pixels of padded crops, so that padding does not leak into them.

    Image and masks are cut to the box, the image is reduced (bilinear, align_corners=False), the
    masks refined at its size and enlarged again (likewise). The boxes differ in size, so the images
    are refined one by one; on the CPU that costs nothing, on a GPU prefer unpadded batches.

    Source: AFA's released training code. TSCD's does not cut and refines the black padding too.

    Args:
        refiner: `PAR()` or another.
        images: as `refiner` expects them.
        masks: maps of the same size.
        boxes: [top, bottom, left, right] of the real pixels, px, ends excluded; clipped to the
            image as in a slice.
        down_scale: refine at 1 / down_scale of the size.

    Returns:
        Refined masks; zero outside the boxes.

    Raises:
        ValueError: if shapes disagree, a box is smaller than `down_scale`, or `down_scale` < 1.
    """
    if masks.ndim != 4 or images.shape[2:] != masks.shape[2:] or len(images) != len(masks):
        raise ValueError(
            "masks must be (b, c, h, w) of the images' size, got "
            f"{tuple(masks.shape)} for images {tuple(images.shape)}"
        )
    if tuple(boxes.shape) != (len(masks), 4):
        raise ValueError(f"boxes must be (b, 4) = {(len(masks), 4)}, got {tuple(boxes.shape)}")
    if down_scale < 1:
        raise ValueError(f"down_scale must be 1 or more, got {down_scale}")
    full = torch.zeros(masks.shape, dtype=_result_dtype(masks), device=masks.device)
    for i, (top, bottom, left, right) in enumerate(boxes.tolist()):
        area = (slice(i, i + 1), slice(None), slice(top, bottom), slice(left, right))
        image, mask = images[area], masks[area]
        h, w = mask.shape[2:]
        if min(h, w) < down_scale:
            raise ValueError(
                f"boxes must hold at least {down_scale} x {down_scale} px (down_scale), got box "
                f"{[top, bottom, left, right]} in an image of {tuple(masks.shape[2:])}"
            )
        if down_scale > 1:  # the refiner resizes the masks to the smaller image itself
            image = F.interpolate(image, (h // down_scale, w // down_scale), mode="bilinear")
        refined = refiner(image, mask)
        full[area] = F.interpolate(refined, (h, w), mode="bilinear").to(full.dtype)
    return full


def _result_dtype(masks: Tensor) -> torch.dtype:
    return masks.dtype if masks.dtype == torch.float64 else torch.float32
