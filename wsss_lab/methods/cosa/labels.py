"""Pseudo-labels of CoSA's teacher: from its maps, and soft ones from its segmentation."""

from dataclasses import replace
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from wsss_lab import IGNORE
from wsss_lab.cam import cam_to_label, cam_to_pseudo_label, fuse_cams, normalize_cam
from wsss_lab.methods.cosa.values import CAM_FUSION, NORMALIZATION

ABSENT = -1e5
"""Logit of a class that the image does not have; released code."""

Threshold = float | Float[Tensor, ""]
"""A score, 0..1: a number if fixed, a tensor on its device if searched."""


class PseudoLabels(NamedTuple):
    """The teacher's assignments for the student, without gradient."""

    classes: Int[Tensor, "b m"]
    """Tagged classes, see `wsss_lab.cam.present_classes`."""
    present: Bool[Tensor, "b m"]
    """Which entries of `classes` are real; the others fill up the row."""
    labels: Int[Tensor, "b 2 h w"]
    """From the maps and from the auxiliary maps, for the segmentation: 0, `c + 1` or `IGNORE`."""
    target: Float[Tensor, "b m gh gw"]
    """From the segmentation, for the maps: probabilities on the student's grid."""
    weights: Float[Tensor, "b 2 h w"] | None
    """Perplexity weights of `labels`; None for 1."""
    cam: Float[Tensor, "b m h w"]
    """The maps that the labels come from, 0..1."""
    valid: Bool[Tensor, "b h w"]
    """False in padding."""


def teacher_cam(
    views: list[Float[Tensor, "v k _ _"]],
    index: Int[Tensor, "b m"],
    present: Bool[Tensor, "b m"],
    size: tuple[int, int],
    scales: tuple[float, ...],
    valid: Bool[Tensor, "b h w"] | None = None,
) -> Float[Tensor, "b m h w"]:
    """Join the teacher's maps of the tagged classes and normalise each to 0..1.

    A map and its mirrored partner are joined by their maximum, negative values are cut off, scales
    are summed; released code.

    Args:
        views: raw maps per scale; each batch is [images; mirrored images].
        index: classes to join, see `wsss_lab.cam.present_classes`. Maps of untagged classes are
            multiplied by 0 later on, so they are never enlarged.
        present: which entries of `index` are real; the others' maps are 0.
        size: (h, w) of the result, px.
        scales: scales of `views`.
        valid: pixels over which minimum and maximum are taken; the rest becomes 0. None takes all,
            padding included, as the released code does.

    Returns:
        Minimum 0 and maximum about 1 per tagged class.
    """
    both = torch.cat([index, index])[:, :, None, None]
    chosen = [view.gather(1, both.expand(-1, -1, *view.shape[2:])) for view in views]
    cam = fuse_cams(chosen, size, replace(CAM_FUSION, scales=scales))
    if valid is not None:
        # padding gets the minimum of the real pixels: normalisation then maps it to 0, and its own
        # values, which may be extreme, shift nothing
        inside = valid[:, None]
        lowest = cam.masked_fill(~inside, torch.inf).amin((2, 3), keepdim=True)
        cam = torch.where(inside, cam, torch.where(lowest.isfinite(), lowest, 0))
    return normalize_cam(cam, NORMALIZATION) * present[:, :, None, None]


def label_from_cam(
    cam: Float[Tensor, "b m h w"],
    index: Int[Tensor, "b m"],
    present: Bool[Tensor, "b m"],
    low: Threshold,
    high: Threshold,
    valid: Bool[Tensor, "b h w"],
) -> Int[Tensor, "b h w"]:
    """Make the CAM pseudo-labels, which supervise the segmentation.

    Fixed thresholds go through `cam_to_pseudo_label` at half resolution, as released. Searched
    thresholds are tensors that stay on their device; they are compared pixel by pixel, because the
    detour over half resolution serves a refinement that the released runs do not use.

    Args:
        cam: 0..1 for the tagged classes only.
        index: class of each map.
        present: which maps are real.
        low: up to here background, 0..1.
        high: above here the class; `IGNORE` between the two.
        valid: False in padding, which becomes `IGNORE`.

    Returns:
        int64: 0, `c + 1` or `IGNORE`.
    """
    tags = present.to(cam.dtype)
    if isinstance(low, Tensor) or isinstance(high, Tensor):
        local = cam_to_label(cam - high, tags, 0.0, valid=valid)
        loose = cam_to_label(cam - low, tags, 0.0)
        local = local.masked_fill((local == 0) & (loose != 0), IGNORE)
    else:
        m = cam.shape[1]
        local = cam_to_pseudo_label(cam, tags, low, high, valid=valid, max_present=m)
    table = torch.cat([torch.zeros_like(index[:, :1]), index + 1], dim=1)
    place = local.masked_fill(local == IGNORE, 0)
    classes = table.gather(1, place.flatten(1)).view_as(local)
    return torch.where(local == IGNORE, IGNORE, classes)


def soft_target(
    logits: Float[Tensor, "b k1 h w"], tags: Float[Tensor, "b k"], temperature: float = 0.01
) -> Float[Tensor, "b k1 h w"]:
    """Make the segmentation pseudo-labels: softmax over background and tagged classes.

    At the low temperature of the released code they are almost one-hot.

    Args:
        logits: summed logits of all views.
        tags: 0 or 1; untagged classes get probability 0.
        temperature: 0.01 in the released code; above 0.
    """
    if not temperature > 0:
        raise ValueError(f"temperature must be positive, got {temperature}; CoSA uses 0.01")
    allowed = torch.cat([torch.ones_like(tags[:, :1]), tags], dim=1) > 0
    masked = logits.float().masked_fill(~allowed[:, :, None, None], ABSENT)
    return (masked / temperature).softmax(dim=1)


def _bilinear_matrix(out: int, of: int, like: Tensor) -> Float[Tensor, "out of"]:
    """Return the matrix that one axis of bilinear resizing (align_corners=False) multiplies by."""
    at = ((torch.arange(out, device=like.device) + 0.5) * (of / out) - 0.5).clamp(min=0)
    low = at.long().clamp(max=of - 1)
    part = (at - low).clamp(max=1.0)[:, None]
    eye = torch.eye(of, device=like.device)
    return (1 - part) * eye[low] + part * eye[(low + 1).clamp(max=of - 1)]


def sampled_target(
    views: list[Float[Tensor, "v k1 _ _"]],
    index: Int[Tensor, "b m"],
    present: Bool[Tensor, "b m"],
    size: tuple[int, int],
    grid: tuple[int, int],
    temperature: float = 0.01,
) -> Float[Tensor, "b m gh gw"]:
    """Make the segmentation pseudo-labels of the tagged classes at the cells of the student's CAM.

    *In the released code* logits of all classes are enlarged to the image in every view, summed,
    turned into probabilities there, and reduced to the grid bilinearly. At 448 px and stride 16
    that reduction looks at 4 of the 256 pixels of a cell. *Here* only the pixels it looks at are
    computed, for the tagged classes: the same numbers for 1/64 of the work.

    Args:
        views: logits per scale; each batch is [images; mirrored images], background first.
        index: tagged classes.
        present: which entries of `index` are real.
        size: (h, w) of the image.
        grid: (gh, gw) of the result.
        temperature: see `soft_target`.

    Returns:
        Probabilities, 0 where `present` is False.
    """
    channel = torch.cat([torch.zeros_like(index[:, :1]), index + 1], dim=1)[:, :, None, None]
    like = views[0].float()
    down = [_bilinear_matrix(g, s, like) for g, s in zip(grid, size, strict=True)]
    # each cell reads two rows: those of its two largest weights (a weight may be 0)
    picks = [matrix.topk(min(2, matrix.shape[1]), dim=1) for matrix in down]
    total: Float[Tensor, "b m1 rows cols"] | None = None
    for view in views:
        plain, mirrored = view.float().chunk(2)
        joined = plain + mirrored.flip(-1)  # enlarging commutes with mirroring
        joined = joined.gather(1, channel.expand(-1, -1, *joined.shape[2:]))
        rows, cols = (
            _bilinear_matrix(s, g, like)[pick.indices.flatten()]
            for s, g, pick in zip(size, joined.shape[2:], picks, strict=True)
        )
        part = rows @ joined @ cols.T
        total = part if total is None else total + part
    if total is None:
        raise ValueError("views must not be empty; pass the logits of at least one scale")
    probs = soft_target(total, present.to(total.dtype), temperature)[:, 1:]
    tall, wide = (pick.values.shape[1] for pick in picks)
    cells = probs.unflatten(3, (grid[1], wide)).unflatten(2, (grid[0], tall))
    sampled = torch.einsum(
        "bmyixj,yi,xj->bmyx", cells, picks[0].values.to(probs), picks[1].values.to(probs)
    )
    return sampled * present[:, :, None, None]
