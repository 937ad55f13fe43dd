"""Pseudo-labels of ASDT's two teachers, for a whole batch at once.

Images of a batch have different classes. Their channels are padded to the longest list; a padding
channel has an energy so large that its probability is exactly 0 in every step of the CRF, so it
takes no part and an image's result does not depend on its neighbours in the batch.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from wsss_lab import IGNORE
from wsss_lab.cam import normalize_cam, present_classes
from wsss_lab.methods.asdt.config import ASDTConfig
from wsss_lab.methods.asdt.values import NORMALIZATION
from wsss_lab.refine import DenseCRF, unary_from_probs
from wsss_lab.refine.features import Images
from wsss_lab.refine.inputs import check_match

EXCLUDED = 1e4
"""Unary energy of an absent class: exp(-1e4) is 0 in float32, also after any CRF message."""


@dataclass(frozen=True)
class TeacherLabel:
    """Pseudo-labels of one teacher for a batch."""

    label: Int[Tensor, "b h w"]
    """Label values, `IGNORE` where the teacher gives none."""
    probs: Float[Tensor, "b m h w"]
    """Probabilities after the CRF, one channel per class that takes part; sum 1."""
    classes: Int[Tensor, "b m"]
    """Label value of each channel."""

    def spread(self, k1: int) -> Float[Tensor, "b k1 h w"]:
        """Scatter `probs` to one channel per label value."""
        b, _, h, w = self.probs.shape
        where = self.classes[:, :, None, None].expand_as(self.probs)
        return self.probs.new_zeros(b, k1, h, w).scatter_add_(1, where, self.probs)


def strongest_classes(
    cam: Float[Tensor, "b k gh gw"],
    tags: Float[Tensor, "b k"],
    limit: int = 0,
    max_tags: int | None = None,
) -> tuple[Int[Tensor, "b m"], Bool[Tensor, "b m"]]:
    """List the present classes, padded, at most `limit` (0: all) per image, strongest maps first.

    Args:
        cam: joined maps, not normalised: normalised ones all have the same maximum.
        tags: 0 or 1.
        limit: the rest is left out.
        max_tags: largest number of tags of an image, if known; spares waiting for an accelerator.

    Returns:
        As `wsss_lab.cam.present_classes`.
    """
    if limit and limit < tags.shape[1]:
        top = cam.amax((2, 3)).masked_fill(tags <= 0, -torch.inf).topk(limit, dim=1).indices
        tags = torch.zeros_like(tags).scatter_(1, top, 1.0) * (tags > 0)
        max_tags = None if max_tags is None else min(max_tags, limit)
    return present_classes(tags, max_tags)


def present_cams(
    cam: Float[Tensor, "b k gh gw"],
    index: Int[Tensor, "b m"],
    present: Bool[Tensor, "b m"],
    size: tuple[int, int],
) -> Float[Tensor, "b m h w"]:
    """Enlarge and normalise the maps of present classes to a maximum of about 1.

    *In the released code*: enlarge all classes, times the tags, over the maximum plus 1e-5. *Here*
    the same for present classes only.

    Args:
        cam: joined maps of all classes.
        index: classes of the channels, see `strongest_classes`.
        present: which channels are real; the others are 0 in the result.
        size: (h, w) of the result, px.
    """
    chosen = cam.float().gather(1, index[:, :, None, None].expand(-1, -1, *cam.shape[2:]))
    full = F.interpolate(chosen, size, mode="bilinear", align_corners=False)
    return normalize_cam(full * present[:, :, None, None], NORMALIZATION)


@torch.no_grad()
def crf_of_present(
    crf: DenseCRF,
    images: Images,
    scores: Sequence[Float[Tensor, "b m h w"]],
    present: Bool[Tensor, "b m"],
) -> list[Float[Tensor, "b m h w"]]:
    """Refine scores by a CRF among the present classes; the others get exactly 0.

    Several scores for the same images share one lattice and every pass over it, side by side as
    columns. The result of each is that of `crf` alone.

    Args:
        crf: its own clip, widths, weights and iterations apply.
        images: RGB in 0..255.
        scores: in [0, 1]; their sum need not be 1.
        present: which channels take part; at least one per image.
    """
    kernel = crf.kernel(images)
    check_match(images, scores[0], ("images", "scores"))
    b, _, h, w = images.shape
    stack = torch.stack([unary_from_probs(one, crf.clip) for one in scores], dim=1)
    stack = stack.masked_fill_(~present[:, None, :, None, None], EXCLUDED)
    unary = stack.permute(0, 3, 4, 1, 2).reshape(b * h * w, len(scores), -1)  # pixels first
    q = _softmax_of_few(-unary)
    for _ in range(crf.iterations):
        q = _softmax_of_few(kernel(q.flatten(1)).view_as(unary).sub_(unary))
    q = q.view(b, h, w, len(scores), -1).permute(3, 0, 4, 1, 2)
    return list(q.contiguous().unbind())


def _softmax_of_few(x: Float[Tensor, "n e m"]) -> Float[Tensor, "n e m"]:
    """Compute `x.softmax(-1)`, five times as fast on a CPU if the last axis has few entries."""
    powers = (x - x.amax(-1, keepdim=True)).exp_()
    return powers.div_(powers.sum(-1, keepdim=True))


def sure_by_cam(
    scores: Float[Tensor, "b m h w"],
    present: Bool[Tensor, "b m"],
    labelled: Bool[Tensor, "b m"],
    config: ASDTConfig,
) -> Bool[Tensor, "b h w"]:
    """Find the pixels whose winning map is among its class's highest values.

    For a class, the values of the pixels it wins that exceed `cam_floor` are sorted; those above
    the one at index floor(`top_from` n) are sure, the top 40 %. Background, channel 0, is sure
    above `background_floor`. *In the released code*, with one guard: a class that wins nowhere
    there indexes an empty list, here it is sure nowhere.

    Args:
        scores: background score (if the settings have one) and maps.
        present: channels that can win.
        labelled: channels that occur in the refined label; the others are sure nowhere.
        config: the thresholds.
    """
    winner = scores.masked_fill(~present[:, :, None, None], -torch.inf).max(dim=1).indices
    channels = torch.arange(scores.shape[1], device=scores.device)
    wins = winner[:, None] == channels[:, None, None]
    start = int(config.background)
    front = scores[:, start:]
    counts = wins[:, start:] & (front > config.cam_floor)
    # one sort for all images and classes: what does not count goes to the end of the list
    order = front.masked_fill(~counts, torch.inf).flatten(2).sort(dim=2).values
    rank = (counts.flatten(2).sum(2).double() * config.top_from).long()
    threshold = order.gather(2, rank.clamp(max=order.shape[2] - 1)[:, :, None])[..., None]
    sure = wins[:, start:] & (front > threshold)
    if config.background:
        back = wins[:, :1] & (scores[:, :1] > config.background_floor)
        sure = torch.cat([back, sure], dim=1)
    return (sure & labelled[:, :, None, None]).any(1)


@torch.no_grad()
def teacher_a_label(
    images: Images,
    cams: Float[Tensor, "b m h w"],
    index: Int[Tensor, "b m"],
    present: Bool[Tensor, "b m"],
    config: ASDTConfig,
) -> TeacherLabel:
    """Make teacher A's label, the discriminative part: CAM, refined twice, kept where sure.

    Two background scores (1 - max)^a are refined with the same maps. The smaller exponent gives the
    larger background: what is foreground there is foreground. The larger exponent gives the smaller
    background: what is background there is background. A pixel is kept if map *and* CRF are sure.

    *In the released code* exactly so (recorded labels are matched pixel for pixel). *Here*, without
    background (171 classes of COCO-Stuff; **ours**): one refinement of the maps alone, kept where
    its class is that of the largest map and both are sure.

    Args:
        images: RGB in 0..255.
        cams: of `present_cams`.
        index: classes of the channels.
        present: which channels are real.
        config: exponents, thresholds, CRF.

    Returns:
        Label with `IGNORE`; probabilities as a soft label: background from the large exponent,
        classes from the small one, divided by their sum.
    """
    if not config.background:
        return _teacher_a_without_background(images, cams, index, present, config)
    there = F.pad(present, (1, 0), value=True)
    classes = F.pad(index + 1, (1, 0))
    top = cams.amax(1, keepdim=True)
    low, high = (torch.cat([(1 - top) ** a, cams], dim=1) for a in config.exponents)
    # both at once, because they share the lattice, which costs more than a pass over it
    by_low, by_high = crf_of_present(config.cam_crf, images, (low, high), there)
    first = by_low.max(dim=1).indices
    label = _values(first, classes).masked_fill_(first == 0, IGNORE)
    label = label.masked_fill_(by_high.max(dim=1).indices == 0, 0)
    probs = torch.cat([by_high[:, :1], by_low[:, 1:]], dim=1)
    sure = sure_by_cam(high, there, _occurring(first, classes.shape[1]), config)
    sure &= probs.amax(1) >= config.crf_floor
    return TeacherLabel(label.masked_fill_(~sure, IGNORE), probs / probs.sum(1, True), classes)


def _teacher_a_without_background(
    images: Images, cams: Tensor, index: Tensor, present: Tensor, config: ASDTConfig
) -> TeacherLabel:
    some = F.pad(present[:, 1:], (1, 0), value=True)  # one class at least; `present` decides below
    (probs,) = crf_of_present(config.cam_crf, images, [cams], some)
    first = probs.max(dim=1).indices
    winner = cams.masked_fill(~present[:, :, None, None], -torch.inf).max(dim=1).indices
    sure = sure_by_cam(cams, present, _occurring(first, cams.shape[1]) & present, config)
    sure &= (probs.amax(1) >= config.crf_floor) & (first == winner)
    return TeacherLabel(_values(first, index).masked_fill_(~sure, IGNORE), probs, index)


@torch.no_grad()
def teacher_b_label(
    images: Images,
    logits: Float[Tensor, "b k1 gh gw"],
    index: Int[Tensor, "b m"],
    present: Bool[Tensor, "b m"],
    config: ASDTConfig,
    valid: Bool[Tensor, "b h w"] | None = None,
) -> TeacherLabel:
    """Make teacher B's label, the full structure: a head's probabilities refined by a CRF.

    *In the released code* every class may win and every pixel is labelled, and the CRF is given the
    wrong picture: the whole image squashed to the crop's size. *Here* the image's classes compete
    on the crop, and padding is ignored; see `ASDTQuirks`.

    Args:
        images: RGB in 0..255, the crop that `logits` were computed on.
        logits: of teacher B's head.
        index: classes present, see `strongest_classes`.
        present: which of them are real.
        config: CRF and quirks.
        valid: real pixels; None for all.

    Returns:
        Label with `IGNORE` in padding and in images without any class that can win.
    """
    b, k1 = logits.shape[:2]
    h, w = images.shape[-2:]
    classes, there = index, present
    if config.background:
        classes, there = F.pad(index + 1, (1, 0)), F.pad(present, (1, 0), value=True)
    if config.quirks.absent_classes:
        classes = torch.arange(k1, device=logits.device).expand(b, k1)
        there = torch.ones_like(classes, dtype=torch.bool)
    logits = logits.gather(1, classes[:, :, None, None].expand(-1, -1, *logits.shape[2:]))
    empty = ~there.any(1)  # without tags and background no class can win: let all, then ignore
    there = there | empty[:, None]
    full = F.interpolate(logits.float(), (h, w), mode="bilinear", align_corners=False)
    probs = full.masked_fill(~there[:, :, None, None], -torch.inf).softmax(1)
    (probs,) = crf_of_present(config.seg_crf, images, [probs], there)
    label = _values(probs.max(dim=1).indices, classes).masked_fill_(empty[:, None, None], IGNORE)
    if valid is not None and not config.quirks.label_padding:
        label = label.masked_fill_(~valid, IGNORE)
    return TeacherLabel(label, probs, classes)


def mean_of_teachers(labels: Sequence[TeacherLabel], k1: int) -> TeacherLabel:
    """Average both teachers' probabilities; `IGNORE` where the first has it (arm R4; ours)."""
    one, other = labels
    if one.classes.shape == other.classes.shape and one.classes.shape[1] < k1:
        return TeacherLabel(one.label, (one.probs + other.probs) / 2, one.classes)
    classes = torch.arange(k1, device=one.classes.device).expand(len(one.classes), k1)
    return TeacherLabel(one.label, (one.spread(k1) + other.spread(k1)) / 2, classes)


def agreement_of_teachers(labels: Sequence[TeacherLabel]) -> Int[Tensor, "b h w"]:
    """Keep the label where both teachers give the same one, else `IGNORE` (arm R4; ours)."""
    one, other = labels
    return one.label.masked_fill(one.label != other.label, IGNORE)


def _values(channel: Int[Tensor, "b h w"], classes: Int[Tensor, "b m"]) -> Int[Tensor, "b h w"]:
    """Translate channel numbers to label values."""
    return classes.gather(1, channel.flatten(1)).view_as(channel)


def _occurring(channel: Int[Tensor, "b h w"], count: int) -> Bool[Tensor, "b m"]:
    """Mark the channels that occur in each image."""
    occurs = torch.zeros(len(channel), count, dtype=torch.bool, device=channel.device)
    flat = channel.flatten(1)
    return occurs.scatter_(1, flat, torch.ones_like(flat, dtype=torch.bool))
