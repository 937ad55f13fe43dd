"""Losses of CoSA's student and the weights inside them, as pure functions.

Docstrings keep three sources apart: *In the paper* (abstract, figures and what is known of the
text), *In the released code*, and *Here*. Perplexity weights and contrastive separation are
among the paper's claims but in no released file; both are **reconstructions**, marked as such.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from wsss_lab import IGNORE


def pixel_entropy(
    logits: Float[Tensor, "b k1 h w"], labels: Int[Tensor, "b maps h w"]
) -> Float[Tensor, "b maps h w"]:
    """Compute the cross-entropy of every pixel against several label maps at once; 0 if ignored."""
    known = labels != IGNORE
    logits = logits.float()
    # the softmax's denominator is the same for all label maps: once instead of once per map
    picked = logits.gather(1, labels.masked_fill(~known, 0))
    return (logits.logsumexp(1, keepdim=True) - picked) * known


def balanced_mean(
    entropy: Float[Tensor, "b h w"],
    labels: Int[Tensor, "b h w"],
    weights: Float[Tensor, "b h w"] | None = None,
    foreground: float = 0.5,
) -> Float[Tensor, ""]:
    """Mix the mean over background pixels with the mean over foreground pixels.

    Background is the larger part of most images and would dominate a plain mean.

    Args:
        entropy: `pixel_entropy` of one label map.
        labels: 0..k or `IGNORE`; counts are over the whole batch.
        weights: factor per pixel inside the sums, not in the counts; None for 1. (*In the released
            code* in a function without callers; here for the perplexity weights.)
        foreground: share of the foreground mean, 0..1.

    Returns:
        0, with a zero gradient, if nothing is labelled.
    """
    weighted = entropy if weights is None else entropy * weights
    back, front = labels == 0, (labels != 0) & (labels != IGNORE)
    mean_back = (weighted * back).sum() / back.sum().clamp(min=1)
    mean_front = (weighted * front).sum() / front.sum().clamp(min=1)
    return (1 - foreground) * mean_back + foreground * mean_front


def swapped_seg_loss(
    logits: Float[Tensor, "b k1 h w"],
    labels: Int[Tensor, "b 2 h w"],
    weights: Float[Tensor, "b 2 h w"] | None = None,
) -> Float[Tensor, ""]:
    """Average the balanced cross-entropies of the student's segmentation with both CAM labels.

    Args:
        logits: at the size of the image, background first.
        labels: from the maps and from the auxiliary maps; 0..k or `IGNORE`.
        weights: factor per labelled pixel, see `perplexity_weights`; None for 1.
    """
    each = (None, None) if weights is None else weights.unbind(1)
    maps = zip(pixel_entropy(logits, labels).unbind(1), labels.unbind(1), each, strict=True)
    main, aux = (balanced_mean(*one) for one in maps)
    return (main + aux) / 2


def swapped_cam_loss(
    cam: Float[Tensor, "b k gh gw"],
    target: Float[Tensor, "b k gh gw"],
    floor: bool = False,
    valid: Bool[Tensor, "b gh gw"] | None = None,
) -> Float[Tensor, ""]:
    """Compute the sigmoid cross-entropy of the student's CAM with the teacher's segmentation.

    Args:
        cam: raw maps of all classes; they serve as logits.
        target: foreground channels of the segmentation pseudo-label, 0..1.
        floor: *In the released code* the maps pass a ReLU first. A target of 0 then costs at least
            ln 2 = 0.693 and has no gradient below 0: wrong positives fall to 0 and no further, and
            the logged loss ends at that floor. *Here* the quirk `cam_floor`.
        valid: cells that count; None counts all, padding included, as the released code does.
    """
    logits = cam.float().relu() if floor else cam.float()
    if valid is None:
        return F.binary_cross_entropy_with_logits(logits, target)
    each = F.binary_cross_entropy_with_logits(logits, target, reduction="none").mean(1)
    return (each * valid).sum() / valid.sum().clamp(min=1)


def perplexity_weights(
    score: Float[Tensor, "b h w"],
    labels: Int[Tensor, "b h w"],
    low: float | Float[Tensor, ""],
    high: float | Float[Tensor, ""],
    alpha: float = 0.8,
    beta: float = 1.5,
    form: Literal["exp", "inverse"] = "inverse",
) -> Float[Tensor, "b h w"]:
    """Weight labelled pixels by the certainty of their CAM (soft perplexity regularisation).

    With the largest map value v and a threshold xi, the perplexity of a foreground pixel is
    P = (-log(alpha (v - xi) / (1 - xi)))^beta, that of a background pixel
    P = (-log(alpha (xi - v) / xi))^beta: large near the threshold, small far from it. A weight is
    1 / P or exp(1 / P), over its mean in the region (all foreground, or all background pixels of
    the batch), so weights change which pixels count and not the size of the loss.

    **Reconstruction.** *In the paper*: this formula as far as it is known here (not from its text);
    a figure plots accuracy against 1 / P, and its curve is met by alpha 0.8 with beta 1.5
    (inferred). How P becomes a weight is not known: both forms are ours, and 1 / P, the quantity of
    the figure, is the default. *In the released code*: absent; an unread setting named
    `camweight_beta` = 1 is not beta. *Here*: with two thresholds, foreground is measured from
    `high` and background from `low`; one threshold, the paper's form, gives the formula above.
    `alpha` below 1 keeps P above 0.

    Args:
        score: largest map value of the tagged classes, 0..1.
        labels: 0..k or `IGNORE`.
        low: threshold of the background, above 0.
        high: threshold of the foreground, below 1.
        alpha: above 0 and below 1.
        beta: at least 1.
        form: of the weight: 1 / P (`inverse`), or `exp` of 1 / P, which is far steeper.

    Returns:
        Mean 1 over foreground and over background pixels; 0 where ignored; no gradient.
    """
    if not 0 < alpha < 1 or beta < 1:
        raise ValueError(f"alpha must lie in (0, 1) and beta be at least 1, got {alpha} and {beta}")
    if form not in ("exp", "inverse"):
        raise ValueError(f"form: expected 'exp' or 'inverse', got {form!r}")
    v = score.detach().float()
    above, below = (v - high) / (1 - high), (low - v) / low
    front = (labels != 0) & (labels != IGNORE)
    back = labels == 0
    distance = torch.where(front, above, below).clamp(1e-6, 1)
    strength = (-(alpha * distance).log()).pow(beta).reciprocal()
    weights = torch.zeros_like(v)
    for region in (front, back):
        if form == "exp":
            # exp(1 / P) overflows where P is near 0, so subtract the largest; strength is positive
            top = strength.masked_fill(~region, 0).amax()
            raw = (strength - top).exp() * region
        else:
            raw = strength * region
        weights = weights + raw * region.sum() / raw.sum().clamp(min=1e-12)
    return weights


def certain_regions(
    labels: Int[Tensor, "b h w"], index: Int[Tensor, "b m"], grid: tuple[int, int]
) -> tuple[Bool[Tensor, "b m gh gw"], Bool[Tensor, "b 1 gh gw"]]:
    """Find the cells whose centre is labelled as each class, and those labelled background."""
    cells = F.interpolate(labels[:, None].float(), grid, mode="nearest-exact").long()
    return cells == (index + 1)[:, :, None, None], cells == 0


def separation_margin(
    cam: Float[Tensor, "b m gh gw"],
    front: Bool[Tensor, "b m gh gw"],
    back: Bool[Tensor, "b 1 gh gw"],
    present: Bool[Tensor, "b m"],
    margin: float = 0.5,
) -> Float[Tensor, ""]:
    """Push a class's map on sure foreground above that on sure background, by a margin.

    **Ours**, made from the purpose that the paper's figure states: the student's CAM is
    "regularised to contrastively separate the foreground from the background regions". The mean
    probability sigmoid(cam) of both regions is compared; a gap of `margin` costs nothing.

    Args:
        cam: raw maps of the tagged classes.
        front: cells that surely are the class.
        back: cells that surely are background.
        present: which maps are real.
        margin: wanted gap, 0..1.

    Returns:
        Mean over the classes that have both regions; 0 if none has.
    """
    probability = cam.float().sigmoid()
    inside, outside = front.sum((2, 3)), back.sum((2, 3))
    gap = (probability * front).sum((2, 3)) / inside.clamp(min=1)
    gap = gap - (probability * back).sum((2, 3)) / outside.clamp(min=1)
    counts = present & (inside > 0) & (outside > 0)
    return (F.relu(margin - gap) * counts).sum() / counts.sum().clamp(min=1)


def separation_infonce(
    cam: Float[Tensor, "b m gh gw"],
    features: Float[Tensor, "b d gh gw"],
    front: Bool[Tensor, "b m gh gw"],
    back: Bool[Tensor, "b 1 gh gw"],
    present: Bool[Tensor, "b m"],
    temperature: float = 0.1,
) -> Float[Tensor, ""]:
    """Pull the feature under a map to its sure foreground, away from any sure background.

    **Ours**, a second reading of the same purpose, as InfoNCE over region means. The query is
    the mean feature under the map sigmoid(cam); the positive is the mean feature of the class's
    sure foreground; the negatives are the mean features of the sure background of every image in
    the batch. Features are constants here: the loss moves the map, and where a map spreads over a
    companion (rails under a train), that companion's background mean pulls it back.

    Args:
        cam: raw maps of the tagged classes.
        features: the student's feature map.
        front: cells that surely are the class.
        back: cells that surely are background.
        present: which maps are real.
        temperature: of the cosine similarities; 0.1 is our choice.

    Returns:
        Mean over the classes that have both regions; 0 if none has.
    """
    # constants: otherwise features could separate while the map stays where it is
    field = features.detach().float()

    def mean_under(mask: Tensor) -> Tensor:
        total = torch.einsum("bmyx,bdyx->bmd", mask.float(), field)
        return F.normalize(total, dim=-1)  # the direction of a sum is that of its mean

    query = mean_under(cam.float().sigmoid())
    positive = (query * mean_under(front)).sum(-1, keepdim=True)
    sure_back = back.sum((1, 2, 3)) > 0
    negatives = torch.einsum("bmd,nd->bmn", query, mean_under(back)[:, 0])
    negatives = negatives.masked_fill(~sure_back, -torch.inf)
    logits = torch.cat([positive, negatives], dim=-1) / temperature
    counts = present & (front.sum((2, 3)) > 0) & sure_back[:, None]
    loss = torch.where(counts, logits.logsumexp(-1) - logits[..., 0], 0)
    return loss.sum() / counts.sum().clamp(min=1)
