"""The second view A(I) and the points at which two views are compared.

Points are (x, y) in [-1, 1] on the scale of a view; -1 and 1 are the centres of its first and last
pixels.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor


def second_view(
    images: Float[Tensor, "b c h w"],
    scale: float,
    centre: Float[Tensor, "b 2"] | None = None,
    crop: float = 1.0,
) -> Float[Tensor, "b c vh vw"]:
    """Make A(I): the image, or a window of it, at a smaller size.

    *In the paper* an affine transformation. *In the released code* a bilinear resize to 0.3 of the
    side with align_corners=True, no window, no flip. *Here* the same, or a window first.

    Args:
        images: normalised images, or maps of theirs.
        scale: side of the result relative to the image, rounded down.
        centre: middle of the window, (x, y) in [-1, 1]; None takes all of the image.
        crop: side of the window relative to the image.

    Raises:
        ValueError: if nothing would be left.
    """
    h, w = (int(side * scale) for side in images.shape[-2:])
    if min(h, w) < 1:
        raise ValueError(
            f"scale must leave at least one pixel of {tuple(images.shape)}, got {scale}; "
            "take a larger scale or larger images"
        )
    if centre is None:
        return F.interpolate(images, (h, w), mode="bilinear", align_corners=True)
    shift = torch.zeros(len(images), 2, 3, dtype=images.dtype, device=images.device)
    shift[:, 0, 0] = shift[:, 1, 1] = crop
    shift[:, :, 2] = centre
    grid = F.affine_grid(shift, [*images.shape[:2], h, w], align_corners=True)
    return F.grid_sample(images, grid, padding_mode="border", align_corners=True)


def draw_points(
    batch: int, side: int, device: torch.device | str = "cpu"
) -> Float[Tensor, "b side side 2"]:
    """Draw random points, uniform in [-1, 1], last axis (x, y).

    *In the released code* drawn anew in every step, and for each view separately: the points of two
    views do not correspond.
    """
    return torch.rand(batch, side, side, 2, device=device) * 2 - 1


def box_range(
    boxes: Int[Tensor, "b 4"], size: tuple[int, int]
) -> tuple[Float[Tensor, "b 2"], Float[Tensor, "b 2"]]:
    """Return first and last pixel centre of each box, as (x, y) on the scale of the points.

    Args:
        boxes: [y0, y1, x0, x1] per image, px, ends excluded; cut at the crop.
        size: (h, w) of the crop, px.
    """
    last = boxes.new_tensor([size[1] - 1, size[0] - 1])
    first = torch.minimum(boxes[:, [2, 0]].clamp(min=0), last)
    end = torch.maximum(torch.minimum(boxes[:, [3, 1]] - 1, last), first)
    step = 2 / last.clamp(min=1).float()
    return first * step - 1, end * step - 1


def spread(
    points: Float[Tensor, "b n _n 2"], low: Float[Tensor, "b 2"], high: Float[Tensor, "b 2"]
) -> Float[Tensor, "b n _n 2"]:
    """Map points of [-1, 1] linearly to the range between two corners; an empty range is `low`.

    *Here*, to keep points out of padding; the released code draws them there, too.
    """
    width = (high - low).clamp(min=0)
    return low[:, None, None] + (points + 1) / 2 * width[:, None, None]


def place_points(
    boxes: Int[Tensor, "b 4"] | None,
    size: tuple[int, int],
    side: int,
    centre: Float[Tensor, "b 2"],
    crop: float = 1.0,
    paired: bool = False,
) -> tuple[Float[Tensor, "b side side 2"], Float[Tensor, "b side side 2"]]:
    """Draw points in the image and in the second view, each on the scale of its own view.

    Args:
        boxes: [y0, y1, x0, x1] of the real pixels, where all points shall lie; None for anywhere.
        size: (h, w) of the image, px.
        side: points per axis.
        centre: middle of the second view's window, see `second_view`.
        crop: side of that window relative to the image.
        paired: the same places in both.
    """
    low, high = torch.full_like(centre, -1), torch.full_like(centre, 1)
    if boxes is not None:
        low, high = box_range(boxes, size)
    first = draw_points(len(centre), side, centre.device)
    second = first if paired else draw_points(len(centre), side, centre.device)
    second = spread(second, low.maximum(centre - crop), high.minimum(centre + crop))
    first = second if paired else spread(first, low, high)
    return first, (second - centre[:, None, None]) / crop


def sample_points(
    maps: Float[Tensor, "b c h w"], points: Float[Tensor, "b n _n 2"]
) -> Float[Tensor, "b c p"]:
    """Sample maps at the points: bilinear, border values outside, align_corners=True.

    *In the released code* the two axes of the points are swapped on the way, which makes no
    difference to random points. *Here* they are swapped, too, so that recorded numbers can be
    compared: value i n + j belongs to points[j, i].
    """
    grid = points.to(maps.dtype).transpose(1, 2)
    values = F.grid_sample(maps, grid, padding_mode="border", align_corners=True)
    return values.flatten(2)
