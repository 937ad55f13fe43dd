"""Scale, mirror, crop: drawing the random numbers is kept apart from applying them.

All four released pipelines reduce to the same operation, a square `Window` on a scaled and maybe
mirrored image. Where the image is smaller than the window, the rest is padding. They differ in
which numbers they draw from which generator in which order (the tests know these orders), and our
loader draws its own (`draw_window`). Applying a window draws nothing.
"""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, Shaped, UInt8
from PIL import Image
from torch import Tensor

from wsss_lab import IGNORE


@dataclass(frozen=True)
class Window:
    """Square crop of an image that was first scaled and then, if `flip`, mirrored."""

    height: int
    """Height of the scaled image, px."""
    width: int
    """Width of the scaled image, px."""
    top: int
    """First row of the square in the scaled image; negative: as many rows of padding before it."""
    left: int
    """First column of the square in the scaled and mirrored image; negative: padding."""
    side: int
    """Side of the square, px."""
    flip: bool = False
    """Mirrored left-right before cutting."""

    def __post_init__(self) -> None:
        if self.side < 1:
            raise ValueError(f"side: expected a window of at least 1 px, got {self.side}")
        if self.height < 1 or self.width < 1:
            raise ValueError(
                f"height, width: expected at least 1 px, got {self.height} x {self.width}; "
                "use a larger scale"
            )
        rows, columns = self.span(self.top, self.height), self.span(self.left, self.width)
        if rows[0] >= rows[1] or columns[0] >= columns[1]:
            raise ValueError(
                f"top, left: a window of {self.side} px at ({self.top}, {self.left}) shows nothing "
                f"of an image of {self.height} x {self.width} px"
            )

    def span(self, start: int, length: int) -> tuple[int, int]:
        """Return the range of an image axis that lies in the window: first, last + 1."""
        return max(start, 0), min(start + self.side, length)

    @property
    def box(self) -> tuple[int, int, int, int]:
        """Box of the image inside the window: y0, y1, x0, x1 in the window, px."""
        (y0, y1), (x0, x1) = self.span(self.top, self.height), self.span(self.left, self.width)
        return y0 - self.top, y1 - self.top, x0 - self.left, x1 - self.left


def scaled_size(height: int, width: int, factor: float) -> tuple[int, int]:
    """Height and width times a factor, truncated, at least 1 px (TSCD and CoSA, released codes)."""
    return max(1, int(height * factor)), max(1, int(width * factor))


def long_side_size(height: int, width: int, long_side: int) -> tuple[int, int]:
    """Size with the long side as given and the other one rounded (ACR, released code)."""
    longest = max(height, width)
    height, width = (round(length * long_side / longest) for length in (height, width))
    return max(1, height), max(1, width)


def draw_window(
    size: tuple[int, int],
    side: int,
    numbers: Float[np.ndarray, "3"],
    flip: float = 0.5,
) -> Window:
    """Draw a window uniformly among all places that fit, as all four methods do.

    Args:
        size: height and width of the scaled image, px.
        side: side of the window, px.
        numbers: three independent uniform numbers in [0, 1).
        flip: probability of a mirror.
    """
    offsets = []
    for length, number in zip(size, numbers[:2], strict=True):
        # one number serves both cases: place of the crop, or of a smaller image on the padding
        room = abs(length - side)
        offset = min(int(number * (room + 1)), room)
        offsets.append(offset if length > side else -offset)
    return Window(*size, offsets[0], offsets[1], side, bool(numbers[2] < flip))


def cut(
    scaled: Shaped[Tensor, "c h w"], window: Window, fill: int | float = 0
) -> Shaped[Tensor, "c side side"]:
    """Mirror and crop an image that is already scaled to `window.height` x `window.width`.

    Args:
        scaled: any number type.
        window: the crop.
        fill: value of the padding. Black before normalisation in TSCD and CoSA; 0 after it in ASDT
            and ACR, which is ImageNet's mean.

    Raises:
        ValueError: the image has another size.
    """
    if tuple(scaled.shape[-2:]) != (window.height, window.width):
        raise ValueError(
            f"scaled: expected {window.height} x {window.width} px, got "
            f"{scaled.shape[-2]} x {scaled.shape[-1]}; scale the image first"
        )
    mirrored = scaled.flip(-1) if window.flip else scaled
    (y0, y1), (x0, x1) = (
        window.span(window.top, window.height),
        window.span(window.left, window.width),
    )
    return _paste(mirrored[:, y0:y1, x0:x1], window, fill)


def _paste(part: Tensor, window: Window, fill: int | float) -> Tensor:
    """Paste the visible part on a canvas of the window's size, channels last in memory."""
    if tuple(part.shape[-2:]) == (window.side, window.side):
        return part
    y0, y1, x0, x1 = window.box
    canvas = part.new_full((window.side, window.side, part.shape[0]), fill).permute(2, 0, 1)
    canvas[:, y0:y1, x0:x1] = part
    return canvas


def view_released(image: UInt8[Tensor, "3 h w"], window: Window) -> UInt8[Tensor, "3 s s"]:
    """Crop as TSCD's and CoSA's released codes do, bit for bit; padding is black.

    Pillow scales the whole image (bilinear, with a wider filter when shrinking), most of which is
    then discarded: slower than `view`.
    """
    photo = Image.fromarray(image.permute(1, 2, 0).numpy())
    scaled = photo.resize((window.width, window.height), Image.Resampling.BILINEAR)
    return cut(torch.from_numpy(np.array(scaled)).permute(2, 0, 1), window)


def view_plain(image: Shaped[Tensor, "3 h w"], window: Window) -> Float[Tensor, "3 s s"]:
    """Crop as ACR's released code does: bilinear between four pixels, in floats.

    Without a wider filter fine patterns alias where the image shrinks.

    Args:
        image: any number type; normalise it first if the padding (0) is to be ImageNet's mean.
        window: the crop.
    """
    scaled = F.interpolate(image[None].float(), (window.height, window.width), mode="bilinear")
    return cut(scaled[0], window)


def _source(window: Window, height: int, width: int) -> tuple[slice, slice]:
    """Return rows and columns of the unscaled image under the window, to the nearest pixel."""
    rows, columns = window.span(window.top, window.height), window.span(window.left, window.width)
    if window.flip:
        # the window lies on the mirrored image: mirror its columns back
        columns = window.width - columns[1], window.width - columns[0]
    found = []
    for (first, last), now, before in (
        (rows, window.height, height),
        (columns, window.width, width),
    ):
        start = min(round(first * before / now), before - 1)
        found.append(slice(start, max(round(last * before / now), start + 1)))
    return found[0], found[1]


def view(image: UInt8[Tensor, "3 h w"], window: Window) -> UInt8[Tensor, "3 s s"]:
    """Crop by scaling only the pixels under the window; padding is black.

    Cropping before scaling saves three quarters of the work at a factor of 2. The crop is on whole
    source pixels, so the result may be up to half a source pixel off `view_released`.
    """
    rows, columns = _source(window, image.shape[-2], image.shape[-1])
    y0, y1, x0, x1 = window.box
    part = image[None, :, rows, columns].contiguous(memory_format=torch.channels_last)
    part = part.flip(-1) if window.flip else part  # before scaling: the part is mostly smaller
    if tuple(part.shape[-2:]) != (y1 - y0, x1 - x0):
        part = F.interpolate(part, (y1 - y0, x1 - x0), mode="bilinear", antialias=True)
    return _paste(part[0], window, 0)


def view_mask(mask: Int[Tensor, "h w"], window: Window, whole: bool = False) -> Int[Tensor, "s s"]:
    """Crop a label map: nearest pixel, 255 outside the image.

    Args:
        mask: values 0..255.
        window: the crop.
        whole: scale the whole map before cropping, as `view_released` and `view_plain` do; else as
            `view` does.
    """
    labels = mask.to(torch.uint8)[None, None]
    if whole:
        photo = Image.fromarray(labels[0, 0].numpy())
        scaled = photo.resize((window.width, window.height), Image.Resampling.NEAREST)
        return cut(torch.from_numpy(np.array(scaled))[None], window, IGNORE)[0].to(mask.dtype)
    rows, columns = _source(window, mask.shape[-2], mask.shape[-1])
    y0, y1, x0, x1 = window.box
    part = labels[:, :, rows, columns]
    if tuple(part.shape[-2:]) != (y1 - y0, x1 - x0):
        part = F.interpolate(part, (y1 - y0, x1 - x0), mode="nearest-exact")
    part = part[0].flip(-1) if window.flip else part[0]
    return _paste(part, window, IGNORE)[0].to(mask.dtype)


def inside(boxes: Int[Tensor, "b 4"], height: int, width: int) -> Bool[Tensor, "b h w"]:
    """Return the map of the pixels inside each box (y0, y1, x0, x1)."""
    y = torch.arange(height, device=boxes.device)[None, :]
    x = torch.arange(width, device=boxes.device)[None, :]
    rows = (y >= boxes[:, :1]) & (y < boxes[:, 1:2])
    columns = (x >= boxes[:, 2:3]) & (x < boxes[:, 3:])
    # multiplied as bytes, which is seven times faster than `&` on a CPU
    both = rows.view(torch.uint8)[:, :, None] * columns.view(torch.uint8)[:, None, :]
    return both.view(torch.bool)
