"""The second view A(I) and the points at which two views are compared.

Points are (x, y) in [-1, 1] on the scale of a view; -1 and 1 are the centres of its first and last
pixels.
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor


class Window(NamedTuple):
    """Part of the image that the second view shows: a point v of the view is `centre + matrix v`.

    All on the scale of the points, (x, y) in [-1, 1].
    """

    centre: Float[Tensor, "b 2"]
    matrix: Float[Tensor, "b 2 2"]


def whole_image(batch: int, device: torch.device | str = "cpu") -> Window:
    """Return the window that is all of the image, for each of `batch` images."""
    return Window(
        torch.zeros(batch, 2, device=device), torch.eye(2, device=device).expand(batch, 2, 2)
    )


def draw_window(
    batch: int,
    size: tuple[int, int],
    crop: float = 1.0,
    turn: float = 0.0,
    device: torch.device | str = "cpu",
) -> Window:
    """Draw a random window inside each image.

    Args:
        batch: number of images.
        size: (h, w) of the images, px.
        crop: side of the window relative to the image; less for a turned one that would not fit.
        turn: largest angle, degrees, either way.
        device: of the result.
    """
    place = 2 * torch.rand(batch, 2, device=device) - 1
    angle = torch.zeros(batch, device=device)
    if turn:
        angle = (2 * torch.rand(batch, device=device) - 1) * math.radians(turn)
    cos, sin, aspect = angle.cos(), angle.sin(), size[0] / size[1]
    # a turn in pixels is a shear on a scale where width and height both are 2
    rows = torch.stack([cos, -sin * aspect, sin / aspect, cos], dim=1).view(batch, 2, 2)
    reach = rows.abs().sum(2)  # half of the window's extent along x and y, for side 1
    side = crop / (crop * reach.amax(1)).clamp(min=1)
    matrix = side[:, None, None] * rows
    # kept away from the border by half a window, which so lies inside the image
    return Window(place * (1 - side[:, None] * reach), matrix)


def second_view(
    images: Float[Tensor, "b c h w"], scale: float, window: Window | None = None
) -> Float[Tensor, "b c vh vw"]:
    """Make A(I): the image, or a window of it, at a smaller size.

    *In the paper* an affine transformation. *In the released code* a bilinear resize to 0.3 of the
    side with align_corners=True, no window, no flip. *Here* the same, or a window first, upright or
    turned.

    Args:
        images: normalised images, or maps of theirs.
        scale: side of the result relative to the image, rounded down.
        window: the part that is shown; None takes all of the image.

    Raises:
        ValueError: if nothing would be left.
    """
    h, w = (int(side * scale) for side in images.shape[-2:])
    if min(h, w) < 1:
        raise ValueError(
            f"scale must leave at least one pixel of {tuple(images.shape)}, got {scale}; "
            "take a larger scale or larger images"
        )
    if window is None:
        return F.interpolate(images, (h, w), mode="bilinear", align_corners=True)
    shift = torch.cat([window.matrix, window.centre[:, :, None]], dim=2).to(images.dtype)
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
    window: Window,
    paired: bool = False,
) -> tuple[Float[Tensor, "b side side 2"], Float[Tensor, "b side side 2"]]:
    """Draw points in the image and in the second view, each on the scale of its own view.

    Args:
        boxes: [y0, y1, x0, x1] of the real pixels, where all points shall lie; None for anywhere.
        size: (h, w) of the image, px.
        side: points per axis.
        window: what the second view shows, see `draw_window`.
        paired: the same places in both.
    """
    centre, matrix = window
    low, high = torch.full_like(centre, -1), torch.full_like(centre, 1)
    if boxes is not None:
        low, high = box_range(boxes, size)
    first = draw_points(len(centre), side, centre.device)
    second = first if paired else draw_points(len(centre), side, centre.device)
    reach = matrix.abs().sum(2)
    second = spread(second, low.maximum(centre - reach), high.minimum(centre + reach))
    # a turned window does not fill the rectangle around it: points beside it move to its border
    seen = _times(torch.linalg.inv(matrix), second - centre[:, None, None]).clamp(-1, 1)
    if paired:
        return centre[:, None, None] + _times(matrix, seen), seen
    return spread(first, low, high), seen


def _times(matrix: Float[Tensor, "b 2 2"], points: Float[Tensor, "b n _n 2"]) -> Tensor:
    return (matrix[:, None, None] @ points[..., None])[..., 0]


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
