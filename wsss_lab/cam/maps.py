"""Class activation maps: from a linear head, from gradients, and their normalisations."""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from wsss_lab.ranges import Factor, Settings


def class_activation_map(
    features: Float[Tensor, "b d gh gw"], weight: Float[Tensor, "k d"]
) -> Float[Tensor, "b k gh gw"]:
    """Apply the weights of a linear tag classifier at every cell (Zhou et al., CVPR 2016, eq. 2).

    With global average pooling the mean of the map over the cells is the tag logit without bias.

    Args:
        features: the features that the classifier pools.
        weight: its weights, one row per class. A 1x1 convolution's are `conv.weight[:, :, 0, 0]`.

    Returns:
        Raw map: any sign, no ReLU, in the units of a logit.

    Raises:
        ValueError: if the widths differ.
    """
    if features.ndim != 4 or weight.ndim != 2 or features.shape[1] != weight.shape[1]:
        raise ValueError(
            f"features must be (b, d, gh, gw) and weight (k, d) with the same d, got "
            f"{tuple(features.shape)} and {tuple(weight.shape)}; reshape a 1x1 convolution's "
            "weight with .flatten(1)"
        )
    return torch.einsum("bdhw,kd->bkhw", features, weight)


def present_classes(
    tags: Float[Tensor, "b k"], max_present: int | None = None
) -> tuple[Int[Tensor, "b m"], Bool[Tensor, "b m"]]:
    """List the tagged classes of every image, padded to the longest list.

    Args:
        tags: 0 or 1 (anything above 0 counts as present).
        max_present: length `m` of the lists. None takes the largest number of tags in the batch,
            which costs one synchronisation with an accelerator. A given bound avoids it, but is
            checked on the CPU only: elsewhere classes beyond it are dropped.

    Returns:
        Class indices in ascending order within an image, and a mask of the real entries.

    Raises:
        ValueError: if `tags` is not two-dimensional or `max_present` is too small.
    """
    if tags.ndim != 2:
        raise ValueError(f"tags must be (b, k), got {tuple(tags.shape)}; add the batch dimension")
    if max_present is None:
        max_present = max(1, int((tags > 0).sum(dim=1).max())) if tags.shape[0] else 1
    elif max_present < 1 or (tags.device.type == "cpu" and (tags > 0).sum(1).max() > max_present):
        raise ValueError(
            f"max_present must be at least 1 and the largest number of tags, got {max_present}"
        )
    order = (tags > 0).to(torch.int8).argsort(dim=1, descending=True, stable=True)
    index = order[:, :max_present]
    return index, tags.gather(1, index) > 0


def grad_cam(
    features: Float[Tensor, "b d gh gw"],
    logits: Float[Tensor, "b k"],
    tags: Float[Tensor, "b k"] | None = None,
    *,
    batched: bool = False,
    retain_graph: bool = False,
) -> Float[Tensor, "b k gh gw"]:
    """Weight the channels by the mean gradient of each class logit (Grad-CAM, ICCV 2017, eq. 1-2).

    For a global-average-pooled linear head this is the class activation map divided by the number
    of cells. The ReLU of the paper's eq. 2 is left to `normalize_cam`, so that flips and scales can
    be merged before it. Images must not influence each other's logits (no batch statistics).

    Args:
        features: a tensor of the graph that leads to `logits`.
        logits: tag logits.
        tags: classes to map per image; the others' maps are 0. Costs as many backward passes as the
            largest number of tags of an image. None computes all `k` classes.
        batched: run the passes as one vectorised backward (faster for light heads, more memory).
        retain_graph: keep the graph for another backward pass.

    Returns:
        Raw maps, detached, any sign.

    Raises:
        ValueError: if no gradient can flow from `logits` to `features`.
    """
    if not (features.requires_grad and logits.requires_grad):
        raise ValueError(
            "features and logits must belong to a graph with gradients; run the model without "
            "torch.no_grad(), and call features.requires_grad_() if its weights are frozen"
        )
    b, k = logits.shape
    wanted = torch.ones_like(logits) if tags is None else tags
    index, present = present_classes(wanted, k if tags is None else None)
    m = index.shape[1]
    # pass j takes the gradient of every image's own j-th class
    seeds = torch.zeros(m, b, k, dtype=logits.dtype, device=logits.device)
    seeds.scatter_(2, index.T.unsqueeze(2), present.T.unsqueeze(2).to(logits.dtype))
    if batched:
        (grads,) = torch.autograd.grad(
            logits, features, seeds, is_grads_batched=True, retain_graph=retain_graph
        )
        alpha = grads.mean(dim=(3, 4))
    else:
        alpha = torch.stack(
            [
                torch.autograd.grad(
                    logits, features, seeds[j], retain_graph=retain_graph or j < m - 1
                )[0].mean(dim=(2, 3))
                for j in range(m)
            ]
        )
    maps = torch.einsum("mbd,bdhw->bmhw", alpha, features.detach())
    out = maps.new_zeros(b, k, *maps.shape[2:])
    return out.scatter_(1, index[:, :, None, None].expand_as(maps), maps)


@dataclass(frozen=True)
class Normalization(Settings):
    """Rule that scales a map to 0..1: `(x - low) / (max - low + eps)`."""

    relu: bool
    """Cut negative values first."""
    subtract_min: bool
    """`low` is the smallest value; otherwise `low` is 0."""
    eps: Factor
    """Added to the denominator. 0 means: an all-zero map stays zero."""
    over: Literal["class", "image"]
    """Take minimum and maximum over one class's map, or over all maps of the image."""
    source: str
    """Origin of the rule."""


NORMALIZATIONS: dict[str, Normalization] = {
    "plain": Normalization(True, False, 0.0, "class", "ReLU and maximum; the library's default"),
    "min_max": Normalization(False, True, 1e-5, "class", "AFA, released code"),
}
"""Rules that belong to no single method; a paper's own are in the file `values` of its folder.
They differ in eps, so a map's maximum is 1 only up to about eps / max."""


def normalize_cam(
    cam: Float[Tensor, "b k h w"], how: str | Normalization = "plain"
) -> Float[Tensor, "b k h w"]:
    """Scale raw maps to 0..1, in float32.

    Every rule makes the largest value of a map about 1, also for absent classes, so multiply by the
    tags.

    Args:
        cam: raw maps; rules without `relu` expect them non-negative (after `fuse_cams`).
        how: a name from `NORMALIZATIONS`, or a rule.

    Returns:
        float32 maps. Inside 0..1 for non-negative input.

    Raises:
        ValueError: for an unknown name or a shape that is not (b, k, h, w).
    """
    if isinstance(how, str):
        if how not in NORMALIZATIONS:
            raise ValueError(f"how must be one of {sorted(NORMALIZATIONS)}, got {how!r}")
        how = NORMALIZATIONS[how]
    if cam.ndim != 4:
        raise ValueError(f"cam must be (b, k, h, w), got {tuple(cam.shape)}; add dimensions of 1")
    cam = cam.float()
    axes = (2, 3) if how.over == "class" else (1, 2, 3)
    if how.relu:
        cam = cam.relu()
    if how.subtract_min:
        cam = cam - cam.amin(dim=axes, keepdim=True)
    top = cam.amax(dim=axes, keepdim=True)
    if how.eps == 0.0:
        return torch.where(top > 0, cam / top, torch.zeros_like(cam))
    return cam / (top + how.eps)
