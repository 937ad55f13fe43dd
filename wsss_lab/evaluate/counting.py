"""Counts of one group of images in an evaluation, at the images' own size."""

from collections.abc import Callable
from dataclasses import replace

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from wsss_lab.evaluate.large import at_rows, bands, label_by_band
from wsss_lab.evaluate.regions import Regions
from wsss_lab.evaluate.scores import ORACLE, Scores, shows_nothing
from wsss_lab.methods.common.base import SegOutput
from wsss_lab.metrics import strongest_class

Crf = Callable[[UInt8[Tensor, "b 3 h w"], Float[Tensor, "b k1 h w"]], Float[Tensor, "b k1 h w"]]
"""(images 0..255, class probabilities) -> better class probabilities."""
RefineMaps = Callable[
    [UInt8[Tensor, "b 3 h w"], Float[Tensor, "b k h w"], Float[Tensor, "b k"] | None],
    Float[Tensor, "b k h w"],
]
"""(images 0..255, class maps 0..1, tags that may win) -> better class maps. Every map on its own:
the tags only spare the work for others."""


def refined(
    refine: RefineMaps,
    images: UInt8[Tensor, "b 3 h w"],
    output: SegOutput,
    told: SegOutput,
    tags: Float[Tensor, "b k"],
    tags_at_test: bool,
) -> tuple[SegOutput, SegOutput]:
    """Refine the maps of two outputs, in one go where they are the same.

    Args:
        refine: the refinement.
        images: as they were looked at.
        output: found without tags; the tags that the method names may win.
        told: found with the true tags, or the same object.
        tags: the true ones.
        tags_at_test: whether `told` is scored.
    """
    allowed = _allowed(output, None)
    if told is not output:
        cam = None if told.cam is None else refine(images, told.cam, tags)
        told = replace(told, cam=cam)
    elif tags_at_test and allowed is not None:
        allowed = torch.maximum(allowed, tags.to(allowed))
    found = None if output.cam is None else refine(images, output.cam, allowed)
    better = replace(output, cam=found)
    return better, better if told is output else told


def _allowed(output: SegOutput, tags: Tensor | None) -> Tensor | None:
    """Tags that may win: the true ones, or those that the method names; None for all."""
    if tags is None and output.tag_logits is not None:
        return (output.tag_logits > 0).float()
    return tags


def count(
    scores: Scores,
    output: SegOutput,
    images: UInt8[Tensor, "b 3 _h _w"],
    truth: Int[Tensor, "b h w"],
    tags: Float[Tensor, "b k"] | None,
    crf: Crf | None,
    regions: Regions | None,
    cam_threshold: float | None,
) -> None:
    """Add one group of images.

    Args:
        scores: are added to.
        output: at the size at which images were looked at; maps are refined already.
        images: as they were looked at.
        truth: at the images' own size; on the CPU where that is another one.
        tags: the true ones, or None where they may not be used.
        crf: post-processing of probabilities, or None.
        regions: of toy scenes, or None.
        cam_threshold: background score at which maps give labels for alarms and regions.
    """
    _require_classes(output, scores.num_classes)
    end, size = "" if tags is None else ORACLE, (truth.shape[-2], truth.shape[-1])
    negatives = bool(shows_nothing(truth).any())
    if output.logits is not None:
        logits = output.logits
        if tags is not None:
            absent = F.pad(tags <= 0, (1, 0))[:, :, None, None]
            logits = logits.masked_fill(absent, torch.finfo(logits.dtype).min)
        label = label_by_band(logits, size, _strongest)
        _add_labels(scores, f"seg{end}", label, truth, logits)
        if negatives:
            scores.add_alarms(f"seg{end}", label, truth)
        if regions:
            scores.regions[f"seg{end}"].add(regions, label)
        if crf is not None:
            label = label_by_band(crf(images, logits.softmax(1)), size, _strongest)
            _add_labels(scores, f"seg+crf{end}", label, truth, logits)
    if output.cam is not None:
        allowed, cam = _allowed(output, tags), output.cam
        for rows in bands(cam, size):
            part = truth[:, rows].to(cam.device)
            scores.add_cam(f"cam{end}", at_rows(cam, size, rows), allowed, part)
        made = None
        if cam_threshold is not None and (regions or negatives):

            def label_maps(maps: Tensor) -> Tensor:
                best, winner = strongest_class(maps, allowed)
                return (winner + 1).masked_fill_(best <= cam_threshold, 0)

            made = label_by_band(cam, size, label_maps)
        if negatives and made is not None:
            scores.add_alarms(f"cam{end}", made, truth)
        if regions:
            cam = cam if allowed is None else cam * allowed[:, :, None, None]
            maps = at_rows(cam, size, slice(0, size[0])).to(truth.device)
            scores.regions[f"cam{end}"].add(regions, made, maps)


def _strongest(scores: Float[Tensor, "b c h w"]) -> Int[Tensor, "b h w"]:
    return scores.max(dim=1).indices


def _add_labels(scores: Scores, kind: str, label: Tensor, truth: Tensor, made_of: Tensor) -> None:
    """Count labels band by band: a pair of labels takes four bytes, those of a photo one each."""
    for rows in bands(made_of, (truth.shape[-2], truth.shape[-1])):
        scores.add_labels(kind, label[:, rows], truth[:, rows])


def _require_classes(output: SegOutput, num_classes: int) -> None:
    for what, found, more in (("logits", output.logits, 0), ("cam", output.cam, 1)):
        if found is not None and found.shape[1] + more != num_classes:
            raise ValueError(
                f"the method's {what} are for {found.shape[1] + more} classes with background, "
                f"the data set has {num_classes}; were these weights trained on another data set?"
            )
