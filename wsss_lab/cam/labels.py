"""Label images from class maps: one threshold, or two with an ignored band between."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, Integer
from torch import Tensor

from wsss_lab import IGNORE
from wsss_lab.cam.maps import present_classes

Refine = Callable[[Float[Tensor, "b 3 h w"], Float[Tensor, "b c h w"]], Float[Tensor, "b c h w"]]
"""(images in 0..1, masks) -> refined masks; every channel on its own, as PAR and VARM do."""


def box_to_valid(boxes: Integer[Tensor, "b 4"], size: tuple[int, int]) -> Bool[Tensor, "b h w"]:
    """Mark the real pixels of padded crops.

    Args:
        boxes: [top, bottom, left, right] per image, px, ends excluded. As in a Python slice, a
            value past the edge is clipped and a negative one counts from the end.
        size: (h, w) of the crop.

    Returns:
        True inside the box.
    """
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise ValueError(f"boxes must be (b, 4), got {tuple(boxes.shape)}")
    inside = []
    for first, side in ((0, size[0]), (2, size[1])):
        ends = boxes[:, first : first + 2].long()
        ends = torch.where(ends < 0, ends + side, ends)
        at = torch.arange(side, device=boxes.device)
        inside.append((at >= ends[:, :1]) & (at < ends[:, 1:]))
    return inside[0][:, :, None] & inside[1][:, None, :]


def cam_to_label(
    cam: Float[Tensor, "b k h w"],
    tags: Float[Tensor, "b k"] | None,
    threshold: float,
    *,
    band: tuple[float, float] | None = None,
    valid: Bool[Tensor, "b h w"] | None = None,
) -> Int[Tensor, "b h w"]:
    """Label every pixel with its strongest tagged class where that exceeds the threshold.

    A value equal to a threshold falls on the lower side (`<=` is background), and of two equal
    classes the first wins. This is the comparison of TSCD and CoSA, and of ACR, whose background is
    an extra score `threshold` at index 0 of an argmax.

    Args:
        cam: normalised maps, 0..1.
        tags: 0 or 1; classes without tag never win. None compares all classes.
        threshold: background score, 0..1; compared in the precision of `cam`.
        band: (low, high) instead of the one threshold: up to `low` background, up to `high`
            ignored, above it the class. A `threshold` above `high` still turns pixels up to it into
            background.
        valid: False pixels become `IGNORE` (padding).

    Returns:
        int64 labels: 0 background, `c + 1` for class `c`, `IGNORE` inside the band or in padding.

    Raises:
        ValueError: if shapes disagree or `band` is not ascending.
    """
    _check(cam, tags, valid)
    if band is not None and band[0] > band[1]:
        raise ValueError(f"band must be (low, high) with low <= high, got {band}")
    if tags is not None:
        cam = cam.masked_fill((tags <= 0)[:, :, None, None], -torch.inf)
    score, winner = cam.max(dim=1)
    label = (winner + 1).masked_fill_(score <= threshold, 0)
    if band is not None:
        low, high = band
        label = label.masked_fill_(score <= high, IGNORE).masked_fill_(score <= low, 0)
    return label if valid is None else label.masked_fill_(~valid, IGNORE)


def cam_to_pseudo_label(
    cam: Float[Tensor, "b k h w"],
    tags: Float[Tensor, "b k"],
    low: float,
    high: float,
    *,
    images: Float[Tensor, "b 3 h w"] | None = None,
    refine: Refine | None = None,
    down_scale: int = 2,
    valid: Bool[Tensor, "b h w"] | None = None,
    max_present: int | None = None,
) -> Int[Tensor, "b h w"]:
    """Make the training labels of TSCD and CoSA from two background scores, refined and compared.

    A constant background channel is added to the tagged classes. Softmax over these channels,
    refinement and argmax give one label map with background `high` and one with `low`. A class in
    the first is the label; background in both is background; all else is `IGNORE`. Without `refine`
    and with `down_scale=1` this is `cam_to_label` with the band (low, high).

    Args:
        cam: normalised maps, 0..1.
        tags: 0 or 1. An image without tags becomes background everywhere.
        low: background score below which nothing is foreground, 0..1 (TSCD 0.35, CoSA 0.25).
        high: background score above which a class is certain, 0..1 (TSCD 0.55, CoSA 0.7).
        images: RGB in 0..1, same size; needed by `refine` only.
        refine: the refinement; called once, with the channels of both scores side by side.
        down_scale: refine at 1 / down_scale of the size (bilinear, align_corners=False).
        valid: False pixels become `IGNORE` (padding).
        max_present: see `present_classes`; an upper bound avoids a synchronisation.

    Returns:
        int64 labels, `IGNORE` where uncertain or in padding.

    Raises:
        ValueError: if shapes disagree, low > high, or `refine` comes without `images`.
    """
    _check(cam, tags, valid)
    if low > high:
        raise ValueError(f"low must not exceed high, got low={low} and high={high}")
    if refine is not None and images is None:
        raise ValueError("images must be given when refine is; pass RGB in 0..1")
    h, w = cam.shape[-2:]
    index, present = present_classes(tags, max_present)
    chosen = cam.float().gather(1, index[:, :, None, None].expand(-1, -1, h, w))
    scores = chosen.new_tensor([high, low])[None, :, None, None].expand(len(cam), -1, h, w)
    stack = torch.cat([scores, chosen], dim=1)  # one resize for both scores and all classes
    if down_scale > 1:
        small = (h // down_scale, w // down_scale)
        stack = F.interpolate(stack, small, mode="bilinear", align_corners=False)
        if refine is not None and images is not None:
            images = F.interpolate(images, small, mode="bilinear", align_corners=False)
    absent = ~torch.cat([torch.ones_like(present[:, :1]), present], dim=1)[:, :, None, None]
    probs = [
        stack[:, [which, *range(2, stack.shape[1])]].masked_fill(absent, -torch.inf).softmax(dim=1)
        for which in (0, 1)
    ]
    masks = torch.cat(probs, dim=1)
    if refine is not None and images is not None:
        masks = refine(images, masks)
    if down_scale > 1:
        masks = F.interpolate(masks, (h, w), mode="bilinear", align_corners=False)
    # argmax over channels is 30 times slower on a CPU
    sure, loose = (
        part.masked_fill(absent, -torch.inf).max(dim=1).indices for part in masks.chunk(2, 1)
    )
    classes = torch.cat([torch.zeros_like(index[:, :1]), index + 1], dim=1)
    label = classes.gather(1, sure.flatten(1)).view_as(sure)
    label = label.masked_fill_((sure == 0) & (loose != 0), IGNORE)
    return label if valid is None else label.masked_fill_(~valid, IGNORE)


def _check(cam: Tensor, tags: Tensor | None, valid: Tensor | None) -> None:
    if cam.ndim != 4:
        raise ValueError(f"cam must be (b, k, h, w), got {tuple(cam.shape)}; add the batch axis")
    if tags is not None and tags.shape != cam.shape[:2]:
        raise ValueError(
            f"tags must be (b, k) = {tuple(cam.shape[:2])} like cam, got {tuple(tags.shape)}"
        )
    if valid is not None and valid.shape != (cam.shape[0], *cam.shape[2:]):
        raise ValueError(
            f"valid must be (b, h, w) = {(cam.shape[0], *cam.shape[2:])}, got {tuple(valid.shape)}"
        )
