"""Correspondence: who resembles whom, in the maps and in the segmentation, as pure functions.

Two views of an image, two sets of points. In the maps, point p of the first view and point q of the
second resemble each other by some cosine; so they do in the segmentation. Where the maps say more
than usual, segmentation is pulled together; where they say less than usual, it is pushed apart.

Three voices, kept apart in every docstring: *In the paper* (what is known of its text), *In the
released code*, and *Here*.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from wsss_lab import IGNORE
from wsss_lab.cam import normalize_cam
from wsss_lab.losses import balanced_pixel_loss


def draw_points(
    batch: int, side: int, device: torch.device | str = "cpu"
) -> Float[Tensor, "b side side 2"]:
    """Random places in an image, uniform in [-1, 1], last axis (x, y); -1 and 1 are pixel centres.

    *In the released code* drawn anew in every step, and for each view by itself: the points of two
    views do not correspond.
    """
    return torch.rand(batch, side, side, 2, device=device) * 2 - 1


def real_boxes(
    images: Float[Tensor, "b 3 h w"], boxes: Int[Tensor, "b 4"] | None
) -> Int[Tensor, "b 4"]:
    """[y0, y1, x0, x1] of the real pixels, px; the whole crops where `boxes` is None."""
    if boxes is not None:
        return boxes.long()
    whole = torch.tensor([[0, images.shape[2], 0, images.shape[3]]], device=images.device)
    return whole.expand(len(images), 4)


def box_range(
    boxes: Int[Tensor, "b 4"], size: tuple[int, int]
) -> tuple[Float[Tensor, "b 2"], Float[Tensor, "b 2"]]:
    """First and last pixel centre of each box, as (x, y) on the scale of the points.

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
    """Squeeze points of [-1, 1] between two corners; nowhere to go means `low`.

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
    """Random places in the image and in the second view, each on the scale of its own.

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


def second_view(
    images: Float[Tensor, "b c h w"],
    scale: float,
    centre: Float[Tensor, "b 2"] | None = None,
    crop: float = 1.0,
) -> Float[Tensor, "b c vh vw"]:
    """A(I): the image, or a window of it, seen smaller.

    *In the paper* an affine transformation. *In the released code* a bilinear resize to 0.3 of the
    side with align_corners=True, no window, no flip. *Here* the same, or a window first.

    Args:
        images: normalised images, or maps of theirs.
        scale: side of the result relative to the image, rounded down.
        centre: middle of the window, (x, y) in [-1, 1]; None sees all of the image.
        crop: side of the window relative to the image.

    Raises:
        ValueError: if nothing would be left.
    """
    h, w = (int(side * scale) for side in images.shape[-2:])
    if min(h, w) < 1:
        raise ValueError(f"scale must leave a pixel of {tuple(images.shape)}, got {scale}")
    if centre is None:
        return F.interpolate(images, (h, w), mode="bilinear", align_corners=True)
    shift = torch.zeros(len(images), 2, 3, dtype=images.dtype, device=images.device)
    shift[:, 0, 0] = shift[:, 1, 1] = crop
    shift[:, :, 2] = centre
    grid = F.affine_grid(shift, [*images.shape[:2], h, w], align_corners=True)
    return F.grid_sample(images, grid, padding_mode="border", align_corners=True)


def sample_points(
    maps: Float[Tensor, "b c h w"], points: Float[Tensor, "b n _n 2"]
) -> Float[Tensor, "b c p"]:
    """Values at the points: bilinear, border values outside, align_corners=True.

    *In the released code* the two axes of the points are swapped on the way; random points do not
    care. *Here* they are swapped, too, so that recorded numbers can be compared: value i n + j
    belongs to points[j, i].
    """
    grid = points.to(maps.dtype).transpose(1, 2)
    values = F.grid_sample(maps, grid, padding_mode="border", align_corners=True)
    return values.flatten(2)


def correspondence(
    first: Float[Tensor, "b c p"], second: Float[Tensor, "b c q"]
) -> Float[Tensor, "b p q"]:
    """Cosine of every value of one view and every value of the other, -1..1; 0 for zero vectors.

    Of maps it is the feature (CAM) correspondence F, of segmentation logits the segmentation
    correspondence S. *In the released code* of raw logits, background included, without softmax.
    """
    unit = [F.normalize(x, dim=1, eps=1e-10) for x in (first, second)]
    return unit[0].transpose(1, 2) @ unit[1]


def recentre(target: Float[Tensor, "b p q"]) -> Float[Tensor, "b p q"]:
    """Take from every row its mean over the second view, and add the mean of everything.

    A point that resembles everything teaches nothing: what counts is to resemble one point more
    than another. *In the released code* the mean of everything is over the batch, and added back;
    a second re-centring changes nothing and is left out here. STEGO, where this comes from,
    subtracts a constant in addition; the released TSCD does not.
    """
    return target - target.mean(dim=2, keepdim=True) + target.mean()


def lobes(
    recentred: Float[Tensor, "b p q"],
) -> tuple[Float[Tensor, "b p q"], Float[Tensor, "b p q"]]:
    """Split a re-centred target into what attracts and what repels; both 0 or more.

    `recentred` is the first minus the second. The negative lobe exists because of the re-centring
    alone: cosines of maps, which are not negative, have none.
    """
    return recentred.clamp(min=0), (-recentred).clamp(min=0)


def scd_loss(target: Float[Tensor, "b p q"], student: Float[Tensor, "b p q"]) -> Float[Tensor, ""]:
    """Self correspondence distillation: minus the mean of max(S, 0) times the re-centred F.

    Negative cosines of the segmentation count as 0: what is apart is not pushed further. The loss
    may be negative. *In the released code* a weight of 0.1 comes on top, and the target has no
    gradient.

    Args:
        target: F, the correspondence of the maps.
        student: S, that of the segmentation.

    Raises:
        ValueError: if the shapes differ.
    """
    if target.shape != student.shape or target.ndim != 3:
        raise ValueError(
            "target and student must both be (b, p, q), got "
            f"{tuple(target.shape)} and {tuple(student.shape)}; sample both at the same points"
        )
    return -(student.clamp(min=0) * recentre(target.detach())).mean()


def er_loss(
    cam: Float[Tensor, "b k h w"], cam_view: Float[Tensor, "b k vh vw"]
) -> Float[Tensor, ""]:
    """How much the maps of the two views differ: mean absolute difference, first class left out.

    *In the released code* it is part of the sum with weight 0.1, but both sides are computed
    without gradient: a constant, which trains nothing. The first class (aeroplane in VOC) is
    dropped as if it were background, which maps do not have. *Here* a number for the log.
    """
    size = tuple(cam_view.shape[-2:])
    small = F.interpolate(cam.detach(), size, mode="bilinear", align_corners=True)
    return (small[:, 1:] - cam_view.detach()[:, 1:]).abs().mean()


def scd_channels(
    cam: Float[Tensor, "b k h w"],
    tags: Float[Tensor, "b k"],
    classes: Literal["all", "tagged", "background"],
) -> Float[Tensor, "b _c h w"]:
    """The channels that the correspondence of maps is made of.

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


def normalize_inside(
    cam: Float[Tensor, "b k h w"], valid: Bool[Tensor, "b h w"] | None
) -> Float[Tensor, "b k h w"]:
    """Joined maps -> 0..1 per class, from real pixels alone; 0 in padding.

    *In the released code* padding takes part in minimum and maximum; so it does with `valid` None.
    """
    if valid is None:
        return normalize_cam(cam, "tscd")
    low = cam.masked_fill(~valid[:, None], torch.inf).amin((2, 3), keepdim=True)
    # the smallest real value becomes 0; an image without real pixels is 0 everywhere
    return normalize_cam(torch.where(valid[:, None], cam, low.nan_to_num(posinf=0.0)), "tscd")


def segmentation_loss(
    logits: Float[Tensor, "b k1 h w"],
    labels: Int[Tensor, "b h w"],
    nan_when_missing: bool = False,
) -> Float[Tensor, ""]:
    """Mean over background plus mean over foreground, halved.

    *In the released code* NaN if the batch has no pixel of one kind, which ends the training: even
    in warm-up, where it is multiplied by 0. *Here* a kind without pixels gives 0.
    """
    loss = balanced_pixel_loss(logits, labels, align_corners=True)
    if nan_when_missing:
        front, back = ((labels != 0) & (labels != IGNORE)).sum(), (labels == 0).sum()
        loss = loss + 0 * (front / front + back / back)
    return loss


def truncate_colours(images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
    """Images in [0, 1] as the released code sees them when it refines labels.

    There, images are normalised, normalised back in float32, and cut off to whole grey levels. The
    way back makes some values a little smaller than they were, and these lose a level: about 1 %.

    Args:
        images: RGB in [0, 1]; whole grey levels, as crops of 8-bit images are.
    """
    mean = images.new_tensor([123.675, 116.28, 103.53], dtype=torch.float32)[:, None, None]
    std = images.new_tensor([58.395, 57.12, 57.375], dtype=torch.float32)[:, None, None]
    grey = (255 * images.float()).round()
    return ((grey - mean) / std * std + mean).clamp(0, 255).floor() / 255
