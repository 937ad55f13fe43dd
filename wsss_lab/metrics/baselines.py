"""Baseline predictions from nothing, or from the tags alone, to compare every table with."""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor


def all_background(
    batch: int, size: tuple[int, int], *, device: torch.device | str | None = None
) -> Int[Tensor, "b h w"]:
    """Predict all background; mIoU is then the background share over the number of classes."""
    return torch.zeros(batch, *size, dtype=torch.int64, device=device)


def random_cam(
    tags: Float[Tensor, "b k"],
    grid: tuple[int, int],
    size: tuple[int, int],
    *,
    generator: torch.Generator | None = None,
) -> Float[Tensor, "b k h w"]:
    """Draw noise in place of a class map: uniform values on a coarse grid, enlarged, per tag.

    Args:
        tags: 0 or 1; maps of absent classes are 0.
        grid: (gh, gw) of the noise; that of the network to compare with.
        size: (h, w), px.
        generator: on the device of `tags`; makes it repeatable.

    Returns:
        0..1, maximum 1 per tagged class.
    """
    noise = torch.rand(*tags.shape, *grid, generator=generator, device=tags.device)
    cam = F.interpolate(noise, size, mode="bilinear", align_corners=False)
    cam = cam / cam.amax((2, 3), keepdim=True).clamp(min=torch.finfo(cam.dtype).tiny)
    return cam * (tags > 0)[:, :, None, None]


def tag_oracle(
    tags: Float[Tensor, "b k"], size: tuple[int, int], *, area: float = 0.5
) -> Int[Tensor, "b h w"]:
    """Predict from the true tags and a centred box, without the image.

    A centred box of the given share of the image, with the image's proportions, is cut into
    vertical strips of equal width, one per tag in class order; the rest is background.

    Args:
        tags: the true tags, 0 or 1. An image without any becomes background.
        size: (h, w), px.
        area: share of the image that the box covers, 0..1; 1 labels every pixel with a tag.

    Raises:
        ValueError: if `area` is outside 0..1.
    """
    if not 0 <= area <= 1:
        raise ValueError(f"area must be a share in 0..1, got {area}")
    on = tags > 0
    k = on.shape[1]
    side = area**0.5
    # pixel centres in units of the box, 0..1 inside it
    y, x = (
        ((torch.arange(n, device=tags.device) + 0.5) / n - 0.5) / max(side, 1e-9) + 0.5
        for n in size
    )
    inside = ((y >= 0) & (y < 1))[:, None] & ((x >= 0) & (x < 1))[None]
    number = on.sum(1, keepdim=True)
    strip = (x[None] * number).long().clamp(min=0, max=max(k - 1, 0))
    order = on.to(torch.int8).argsort(dim=1, descending=True, stable=True)
    row = (order.gather(1, strip) + 1) * (number > 0)
    return row[:, None, :] * inside[None]
