"""The equations of CoSA as pure functions; `wsss_lab.methods.cosa` puts them together.

Three voices, kept apart in every docstring: *In the paper* (abstract, figures and what is known of
the text), *In the released code*, and *Here*. Perplexity weights and contrastive separation are in
the paper's title claims but in no released file; both are **reconstructions** and say so.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from wsss_lab import IGNORE
from wsss_lab.cam import FUSIONS, cam_to_label, cam_to_pseudo_label, fuse_cams, normalize_cam

ABSENT = -1e5
"""Logit of a class that the image does not have; released code."""

# --- assignments: what the teacher says --------------------------------------------------------


def teacher_cam(
    views: list[Float[Tensor, "v k _ _"]],
    index: Int[Tensor, "b m"],
    present: Bool[Tensor, "b m"],
    size: tuple[int, int],
    scales: tuple[float, ...],
    last_scale: bool = False,
    valid: Bool[Tensor, "b h w"] | None = None,
) -> Float[Tensor, "b m h w"]:
    """Join the teacher's maps of the tagged classes, and bring each to 0..1.

    Args:
        views: raw maps per scale; each batch is [images; mirrored images].
        index: classes to join, see `wsss_lab.cam.present_classes`. Maps of untagged classes are
            multiplied by 0 later on, so they are never enlarged.
        present: which entries of `index` are real; the others' maps are 0.
        size: (h, w) of the result, px.
        scales: scales of `views`.
        last_scale: *In the released code* the list of auxiliary maps is overwritten at every scale,
            so only the last one counts. *Here* a switch.
        valid: pixels over which minimum and maximum are taken; the rest becomes 0. None takes all,
            padding included, as the released code does.

    Returns:
        Minimum 0 and maximum about 1 per tagged class.
    """
    rule = FUSIONS["cosa_aux" if last_scale else "cosa"]
    rule = rule if rule.scales == scales else type(rule)(**{**vars(rule), "scales": scales})
    both = torch.cat([index, index])[:, :, None, None]
    chosen = [view.gather(1, both.expand(-1, -1, *view.shape[2:])) for view in views]
    cam = fuse_cams(chosen, size, rule)
    if valid is not None:
        inside = valid[:, None]
        lowest = cam.masked_fill(~inside, torch.inf).amin((2, 3), keepdim=True)
        cam = torch.where(inside, cam, torch.where(lowest.isfinite(), lowest, 0))
    return normalize_cam(cam, "cosa") * present[:, :, None, None]


def label_from_cam(
    cam: Float[Tensor, "b m h w"],
    index: Int[Tensor, "b m"],
    present: Bool[Tensor, "b m"],
    low: float | Float[Tensor, ""],
    high: float | Float[Tensor, ""],
    valid: Bool[Tensor, "b h w"],
) -> Int[Tensor, "b h w"]:
    """CAM pseudo-label: the label maps that supervise the segmentation.

    Fixed thresholds go through `cam_to_pseudo_label` at half resolution, as released. Searched
    thresholds are tensors that stay on their device; they are compared pixel by pixel, because the
    detour over half resolution serves a refinement that the released runs do not use.

    Args:
        cam: 0..1 for the tagged classes only.
        index: class of each map.
        present: which maps are real.
        low: up to here background, 0..1.
        high: above here the class; between the two no opinion.
        valid: padding is False and becomes `IGNORE`.

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
    """Segmentation pseudo-label: softmax over background and tagged classes, almost one-hot.

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
    """The matrix that one axis of bilinear resizing (align_corners=False) multiplies by."""
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
    """Segmentation pseudo-label of the tagged classes at the cells of the student's CAM.

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


# --- losses: what the student learns ------------------------------------------------------------


def pixel_entropy(
    logits: Float[Tensor, "b k1 h w"], labels: Int[Tensor, "b maps h w"]
) -> Float[Tensor, "b maps h w"]:
    """Cross-entropy of every pixel against several label maps at once; 0 where ignored."""
    known = labels != IGNORE
    logits = logits.float()
    picked = logits.gather(1, labels.masked_fill(~known, 0))
    return (logits.logsumexp(1, keepdim=True) - picked) * known


def balanced_mean(
    entropy: Float[Tensor, "b h w"],
    labels: Int[Tensor, "b h w"],
    weights: Float[Tensor, "b h w"] | None = None,
    foreground: float = 0.5,
) -> Float[Tensor, ""]:
    """Mean over background pixels and mean over foreground pixels, mixed.

    Args:
        entropy: `pixel_entropy` of one label map.
        labels: 0..k or `IGNORE`; counts are over the whole batch.
        weights: factor per pixel inside the sums, not in the counts; None for 1. (*In the released
            code* a function nobody calls; the hook of the perplexity weights.)
        foreground: share of the foreground mean, 0..1.

    Returns:
        0, with a zero gradient, if nothing is labelled.
    """
    weighted = entropy if weights is None else entropy * weights
    back, front = labels == 0, (labels != 0) & (labels != IGNORE)
    mean_back = (weighted * back).sum() / back.sum().clamp(min=1)
    mean_front = (weighted * front).sum() / front.sum().clamp(min=1)
    return (1 - foreground) * mean_back + foreground * mean_front


def swapped_cam_loss(
    cam: Float[Tensor, "b k gh gw"],
    target: Float[Tensor, "b k gh gw"],
    floor: bool = False,
    valid: Bool[Tensor, "b gh gw"] | None = None,
) -> Float[Tensor, ""]:
    """The teacher's segmentation supervises the student's CAM: sigmoid cross-entropy per cell.

    Args:
        cam: raw maps of all classes; they serve as logits.
        target: foreground channels of the segmentation pseudo-label, 0..1.
        floor: *In the released code* the maps pass a ReLU first. A target of 0 then costs at least
            ln 2 = 0.693 and has no gradient below 0: wrong positives fall to 0 and no further, and
            the logged loss ends at that floor. *Here* a switch, off in the repaired presets.
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
    beta: float = 1.0,
) -> Float[Tensor, "b h w"]:
    """Weight of every labelled pixel from the doubt of its CAM (soft perplexity regularisation).

    With the largest map value v and a threshold xi, the perplexity of a foreground pixel is
    P = (-log(alpha (v - xi) / (1 - xi)))^beta, that of a background pixel
    P = (-log(alpha (xi - v) / xi))^beta: large near the threshold, small far from it. A weight is
    exp(1 / P) over its mean in the region (all foreground, or all background pixels of the batch),
    so weights shift attention and leave the size of the loss alone.

    **Reconstruction.** *In the paper*: this formula as far as it is known here (not from its text);
    a figure plots accuracy against 1 / P. *In the released code*: absent; an unread setting named
    `camweight_beta` = 1 looks like a remnant. *Here*: with two thresholds, foreground is measured
    from `high` and background from `low`; equal thresholds give the formula above. `alpha` below 1
    keeps P above 0; 0.8 is our choice.

    Args:
        score: largest map value of the tagged classes, 0..1.
        labels: 0..k or `IGNORE`.
        low: threshold of the background, above 0.
        high: threshold of the foreground, below 1.
        alpha: above 0 and below 1.
        beta: at least 1.

    Returns:
        Mean 1 over foreground and over background pixels; 0 where ignored; no gradient.
    """
    if not 0 < alpha < 1 or beta < 1:
        raise ValueError(f"alpha must lie in (0, 1) and beta be at least 1, got {alpha} and {beta}")
    v = score.detach().float()
    above, below = (v - high) / (1 - high), (low - v) / low
    front = (labels != 0) & (labels != IGNORE)
    back = labels == 0
    distance = torch.where(front, above, below).clamp(1e-6, 1)
    strength = (-(alpha * distance).log()).pow(beta).reciprocal()
    weights = torch.zeros_like(v)
    for region in (front, back):
        top = strength.masked_fill(~region, 0).amax()  # strength is positive
        raw = (strength - top).exp() * region
        weights = weights + raw * region.sum() / raw.sum().clamp(min=1e-12)
    return weights


def certain_regions(
    labels: Int[Tensor, "b h w"], index: Int[Tensor, "b m"], grid: tuple[int, int]
) -> tuple[Bool[Tensor, "b m gh gw"], Bool[Tensor, "b 1 gh gw"]]:
    """Cells whose centre is surely each class, and cells whose centre is surely background."""
    cells = F.interpolate(labels[:, None].float(), grid, mode="nearest-exact").long()
    return cells == (index + 1)[:, :, None, None], cells == 0


def separation_margin(
    cam: Float[Tensor, "b m gh gw"],
    front: Bool[Tensor, "b m gh gw"],
    back: Bool[Tensor, "b 1 gh gw"],
    present: Bool[Tensor, "b m"],
    margin: float = 0.5,
) -> Float[Tensor, ""]:
    """A class's map is to be higher on sure foreground than on sure background, by a margin.

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
    """What a map covers is to look like its sure foreground, not like any sure background.

    **Ours**, a second reading of the same purpose, as InfoNCE over region means. The question is
    the mean feature under the map sigmoid(cam); the answer is the mean feature of the class's sure
    foreground; the wrong answers are the mean features of the sure background of every image in the
    batch. Features are constants here: the loss moves the map, and where a map spreads over a
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
    field = features.detach().float()

    def mean_under(mask: Tensor) -> Tensor:
        total = torch.einsum("bmyx,bdyx->bmd", mask.float(), field)
        return F.normalize(total, dim=-1)  # the direction of a sum is that of its mean

    question = mean_under(cam.float().sigmoid())
    right = (question * mean_under(front)).sum(-1, keepdim=True)
    sure_back = back.sum((1, 2, 3)) > 0
    wrong = torch.einsum("bmd,nd->bmn", question, mean_under(back)[:, 0])
    wrong = wrong.masked_fill(~sure_back, -torch.inf)
    logits = torch.cat([right, wrong], dim=-1) / temperature
    counts = present & (front.sum((2, 3)) > 0) & sure_back[:, None]
    loss = torch.where(counts, logits.logsumexp(-1) - logits[..., 0], 0)
    return loss.sum() / counts.sum().clamp(min=1)
