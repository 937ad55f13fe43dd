"""Augmentation of whole batches on their device: mirror, shift, colour. No loop over images."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from wsss_lab import IGNORE


def _source_pixels(
    size: tuple[int, int, int], shift: int, flip: bool, generator: torch.Generator
) -> tuple[Int[Tensor, "b hw"], Bool[Tensor, "b hw"]]:
    """Return each pixel's source index after mirror and shift, and whether it lies outside."""
    count, height, width = size
    columns = torch.arange(width)[None, :].expand(count, -1)
    if flip:
        mirrored = torch.rand(count, 1, generator=generator) < 0.5
        columns = torch.where(mirrored, width - 1 - columns, columns)
    offsets = torch.randint(-shift, shift + 1, (2, count, 1), generator=generator)
    rows, columns = torch.arange(height)[None, :] + offsets[0], columns + offsets[1]
    outside = ((rows < 0) | (rows >= height))[:, :, None] | ((columns < 0) | (columns >= width))[
        :, None, :
    ]
    rows, columns = rows.clamp(0, height - 1), columns.clamp(0, width - 1)
    return (rows[:, :, None] * width + columns[:, None, :]).flatten(1), outside.flatten(1)


def augment(
    images: Float[Tensor, "b 3 h w"],
    masks: Int[Tensor, "b h w"] | None = None,
    *,
    generator: torch.Generator,
    shift: int = 8,
    flip: bool = True,
    jitter: float = 0.2,
) -> tuple[Float[Tensor, "b 3 h w"], Int[Tensor, "b h w"] | None]:
    """Mirror, shift and re-colour each image of a batch independently.

    Args:
        images: RGB in [0, 1].
        masks: label maps, moved along with the images; pixels shifted in from outside become 255.
        generator: CPU generator; equal states give equal results.
        shift: largest translation in px along each axis; the image's edge is repeated.
        flip: mirror left-right with probability 1/2.
        jitter: contrast varies by up to this share, brightness by half and each colour channel by
            a quarter of it.

    Returns:
        Images in [0, 1] and masks (None if none were given), of the shapes of the inputs.
    """
    count, _, height, width = images.shape
    device = images.device
    source, outside = _source_pixels((count, height, width), shift, flip, generator)
    source, outside = source.to(device), outside.to(device)
    moved = images.flatten(2).gather(2, source[:, None].expand(-1, 3, -1)).view_as(images)
    if jitter:
        draws = (torch.rand(3, count, 3, 1, 1, generator=generator) * 2 - 1).to(device) * jitter
        contrast, brightness, channel = 1 + draws[0, :, :1], draws[1, :, :1] / 2, 1 + draws[2] / 4
        mean = moved.mean((1, 2, 3), keepdim=True)
        # ((x - mean) * contrast + mean * (1 + brightness)) * channel, in one pass over the pixels
        offset = mean * (1 + brightness - contrast) * channel
        moved = torch.addcmul(offset, moved, contrast * channel).clamp_(0, 1)
    if masks is None:
        return moved, None
    moved_masks = masks.flatten(1).gather(1, source)
    return moved, moved_masks.masked_fill(outside, IGNORE).view_as(masks)
