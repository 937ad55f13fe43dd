"""Localisation of ACR: class maps from gradients of the class logits with respect to attention.

A class logit is differentiated with respect to the attention matrices of the last layers, each seen
as an independent variable. Where the class token's row has a positive derivative, more attention
would make the class more likely. GETAM (arXiv 2112.02841) multiplies by the attention itself;
ACR (arXiv 2308.04321) takes the gradient alone, then lets the summed patch-to-patch attention
spread it.

| step (ACR, released code) | here |
|---|---|
| backward of one logit per class, with all weight gradients | `attention_gradients`, no weights |
| four ways to combine gradient and attention of a layer | `layer_map` |
| class-token row, summed over the layers from `start_layer` on | `gradient_maps` |
| affinity: head means of all layers, summed, not normalised | `record_for_localisation` |
| output patch i gathers ``sum_j P_ij s_j`` | `spread` |
| bilinear resize, mirrored map mirrored back, sum, 0..1 per class | `join_mirror` |

Usage, for any network whose attention `record_attention` can record::

    with record_for_localisation(network, start_layer=-2) as trace:
        logits = network(images)
    maps = spread(gradient_maps(logits, trace.attention, tags), trace.affinity)
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn

from wsss_lab.cam.attention_maps import attention_gradients
from wsss_lab.cam.fusion import FUSIONS, fuse_cams
from wsss_lab.cam.maps import NORMALIZATIONS, normalize_cam, present_classes
from wsss_lab.models.attention import attention_layers, record_attention
from wsss_lab.models.modes import without_parameter_gradients

Variant = Literal["grad", "grad_s", "cam_grad", "cam_grad_s"]
"""How a layer's gradient G and attention A are combined, see `layer_map`."""
FUSION = FUSIONS["acr"]
"""Image and mirror image are resized with aligned corners and summed."""
NORMALIZATION = NORMALIZATIONS["acr"]
"""Each class to 0..1 by its own minimum and maximum."""


@dataclass
class Trace:
    """Attention of one forward pass, as localisation needs it."""

    attention: list[Float[Tensor, "b _a _n _m"]]
    """Per-head attention of the layers from the start layer on; the graph begins at the first."""
    affinity: Float[Tensor, "b n n"] | None = None
    """Sum over all layers of head-mean attention, detached, prefix tokens included."""


@contextmanager
def record_for_localisation(
    network: nn.Module, start_layer: int = -2, affinity: bool = True
) -> Iterator[Trace]:
    """Record what gradient localisation needs of one forward pass, and no more.

    Inside, parameters need no gradient and the autograd graph begins at the attention of
    `start_layer`: everything before it runs as under `torch.no_grad()`, and a backward pass ends
    there. Of earlier layers only the head mean is kept, summed up; without `affinity` they use the
    fused kernel. Everything is as before on leaving. Run the network in `eval()` mode.

    Args:
        network: the whole network, head included.
        start_layer: first attention layer to differentiate, negative from the end.
        affinity: also sum up the attention of all layers, which must then be of one size.

    Yields:
        The `Trace`; it fills up during the pass.

    Raises:
        ValueError: no such layer, no attention, or called in inference mode.
    """
    if torch.is_inference_mode_enabled():
        raise ValueError(
            "localisation needs gradients, inference_mode() forbids them: use torch.no_grad()"
        )
    layers = attention_layers(network)
    depth = len(layers)
    if layers and not -depth <= start_layer < depth:
        raise ValueError(
            f"start_layer must be in [-{depth}, {depth - 1}] ({depth} attention layers), "
            f"got {start_layer}"
        )
    first = start_layer % depth if depth else 0
    wanted = None if affinity else range(first, depth)
    with ExitStack() as stack:
        stack.enter_context(torch.enable_grad())
        stack.enter_context(without_parameter_gradients(network))
        record = stack.enter_context(record_attention(network, wanted))
        trace = Trace(record.maps)
        for i, layer in enumerate(layers.values()):
            if wanted is None or i in wanted:
                hook = _BeginGraph(trace, early=i < first, add=affinity)
                stack.callback(layer.attn_drop.register_forward_pre_hook(hook).remove)  # type: ignore[union-attr, operator]
        yield trace


@dataclass
class _BeginGraph:
    """Hook that runs after the recorder's on the same tensor: drop early maps, begin the graph."""

    trace: Trace
    early: bool
    add: bool

    def __call__(self, _: nn.Module, args: tuple[Tensor, ...]) -> None:
        attention = args[0]
        if self.add:
            mean = attention.detach().float().mean(dim=1)
            before = self.trace.affinity
            self.trace.affinity = mean if before is None else before + mean
        if self.early:
            self.trace.attention.clear()
        elif not attention.requires_grad:
            attention.requires_grad_()


def layer_map(
    gradient: Float[Tensor, "... a r n"],
    attention: Float[Tensor, "... a r n"] | None,
    variant: Variant = "grad",
) -> Float[Tensor, "... r n"]:
    """Combine the gradient G and the attention A of one layer, in float32.

    ========================  ==========================================================
    variant                   map
    ========================  ==========================================================
    ``grad``                  mean over heads of relu(G): ACR's script
    ``grad_s``                the square of that
    ``cam_grad``              mean over heads of relu(G * A)
    ``cam_grad_s``            ``cam_grad`` times ``grad``: GETAM, the default of ACR's parser
    ========================  ==========================================================

    Args:
        gradient: dy/dA of one class.
        attention: A itself, needed by the last two; leading axes broadcast.
        variant: see above.

    Raises:
        ValueError: unknown variant, or `attention` missing where it is needed.
    """
    if variant not in get_args(Variant):
        raise ValueError(f"variant must be one of {get_args(Variant)}, got {variant!r}")
    gradient = gradient.float()
    if variant in ("grad", "grad_s"):
        plain = gradient.relu().mean(dim=-3)
        return plain if variant == "grad" else plain.square()
    if attention is None:
        raise ValueError(f"attention must be given for variant {variant!r}")
    weighted = (gradient * attention.detach().float()).relu().mean(dim=-3)
    return weighted if variant == "cam_grad" else weighted * gradient.relu().mean(dim=-3)


def gradient_maps(
    logits: Float[Tensor, "b k"],
    attention: Sequence[Float[Tensor, "b _a _n _m"]],
    tags: Float[Tensor, "b k"],
    variant: Variant = "grad",
    prefix: int = 1,
    batched: bool | None = None,
) -> Float[Tensor, "b k p"]:
    """Sum the maps of several layers over the patch tokens, from the class token's row, then ReLU.

    Without a class token (`prefix=0`, e.g. MiT) the logits are read from the patches, so the mean
    over all query rows takes the place of the class row; that is ours, no paper's.

    Args:
        logits: class logits.
        attention: per-head attention of the layers to use, from `record_for_localisation`; square
            matrices of one size.
        tags: classes wanted; the maps of the others are 0.
        variant: see `layer_map`.
        prefix: tokens before the patches.
        batched: see `attention_gradients`.

    Returns:
        Detached, >= 0, not normalised, row-major over the token grid.
    """
    rows = slice(0, 1) if prefix else slice(None)
    gradients, index, _ = attention_gradients(logits, attention, tags, rows, batched)
    sizes = {tuple(a.shape[-2:]) for a in attention}
    if len(sizes) > 1 or any(n != m for n, m in sizes):
        raise ValueError(
            f"attention must be square and of one size in all layers used, got {sorted(sizes)}: "
            "choose a later start_layer"
        )
    layers = [
        layer_map(gradient, layer[..., rows, :], variant)
        for gradient, layer in zip(gradients, attention, strict=True)
    ]
    maps = sum(layers[1:], start=layers[0])[..., prefix:].mean(dim=-2).relu().transpose(0, 1)
    out = maps.new_zeros(*logits.shape, maps.shape[-1])
    return out.scatter_(1, index[:, :, None].expand_as(maps), maps)


def spread(
    maps: Float[Tensor, "b k p"], affinity: Float[Tensor, "b n n"] | None, prefix: int = 1
) -> Float[Tensor, "b k p"]:
    """Propagate maps along affinities: patch i gathers ``sum_j P_ij s_j`` from all patches j.

    Args:
        maps: class maps over the patch tokens.
        affinity: summed attention, prefix tokens included (they are cut off, the rest is not
            renormalised, as in the released code); None leaves the maps as they are.
        prefix: tokens before the patches.

    Raises:
        ValueError: affinity and maps have different numbers of patches.
    """
    if affinity is None:
        return maps
    patches = affinity[:, prefix:, prefix:]
    if patches.shape[-1] != maps.shape[-1]:
        raise ValueError(
            f"affinity must have {prefix} + {maps.shape[-1]} tokens like maps, "
            f"got {affinity.shape[-1]}"
        )
    return maps @ patches.transpose(1, 2)


def predicted_tags(logits: Float[Tensor, "v k"], views: int) -> Float[Tensor, "b k"]:
    """Predict tags by the sign of the logits, averaged over the views of an image.

    Args:
        logits: of all first views, then of all second ones.
        views: views per image.
    """
    mean = logits.detach().unflatten(0, (views, -1)).mean(dim=0)
    return (mean > 0).to(mean.dtype)


def whole_patches(size: tuple[int, int], stride: int) -> tuple[int, int]:
    """Round the sides of an image, px, half up to multiples of the stride; at least one patch."""
    h, w = (max(1, int(side / stride + 0.5)) * stride for side in size)
    return h, w


def join_mirror(
    maps: Float[Tensor, "v k gh gw"], tags: Float[Tensor, "b k"], size: tuple[int, int]
) -> Float[Tensor, "b k h w"]:
    """Resize the maps of images and mirror images, sum them, and bring each class to 0..1.

    Args:
        maps: [images; mirrored images] on the token grid.
        tags: classes wanted, 0 or 1.
        size: (h, w) of the result, px.

    Returns:
        Maps of the wanted classes; the others are 0.
    """
    index, present = present_classes(tags)
    picked = index.repeat(2, 1)[:, :, None, None].expand(-1, -1, *maps.shape[2:])
    views = maps.gather(1, picked)  # only the wanted classes are resized
    cam = normalize_cam(fuse_cams([views], size, FUSION), NORMALIZATION)
    cam = cam * present[:, :, None, None]
    out = cam.new_zeros(*tags.shape, *cam.shape[2:])
    return out.scatter_(1, index[:, :, None, None].expand_as(cam), cam)
