"""Class maps from the gradients of class logits with respect to attention.

A class logit is differentiated with respect to the attention matrices of the last layers, each
treated as an independent variable. Where the class token's row has a positive derivative, more
attention would make the class more likely. GETAM (arXiv 2112.02841) multiplies by the attention
itself; ACR (arXiv 2308.04321) takes the gradient alone, then spreads it by the summed
patch-to-patch attention.

| step (ACR, released code) | here |
|---|---|
| backward of one logit per class, with all weight gradients | `attention_gradients`, no weights |
| four ways to combine gradient and attention of a layer | `layer_map` |
| class-token row, summed over the layers from `start_layer` on | `gradient_maps` |
| affinity: head means of all layers, summed, not normalised | `record_for_localisation` |
| output patch i gathers ``sum_j P_ij s_j`` | `spread` |

Usage, for any network whose attention `record_attention` can record::

    with record_for_localisation(network, start_layer=-2) as trace:
        logits = network(images)
    maps = spread(gradient_maps(logits, trace.attention, tags), trace.affinity)
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from wsss_lab.cam.maps import present_classes
from wsss_lab.models.attention import attention_layers, record_attention

Variant = Literal["grad", "grad_s", "cam_grad", "cam_grad_s"]
"""Combination of a layer's gradient G and attention A, see `layer_map`."""


@dataclass
class Trace:
    """Recorded attention of one forward pass, for localisation."""

    attention: list[Float[Tensor, "b _a _n _m"]]
    """Per-head attention of the layers from the start layer on; the graph begins at the first."""
    affinity: Float[Tensor, "b n n"] | None = None
    """Sum over all layers of head-mean attention, detached, prefix tokens included."""


@contextmanager
def record_for_localisation(
    network: nn.Module, start_layer: int = -2, affinity: bool = True
) -> Iterator[Trace]:
    """Record only the parts of one forward pass that gradient localisation needs.

    Inside, parameters need no gradient and the autograd graph begins at the attention of
    `start_layer`: everything before it runs as under `torch.no_grad()`, and a backward pass ends
    there. Of earlier layers only the sum of head means is kept; without `affinity` they use the
    fused kernel. On leaving, everything is restored. Run the network in `eval()` mode.

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
        stack.enter_context(_without_parameter_gradients(network))
        record = stack.enter_context(record_attention(network, wanted))
        trace = Trace(record.maps)
        for i, layer in enumerate(layers.values()):
            if wanted is None or i in wanted:
                hook = _Watch(trace, early=i < first, add=affinity)
                stack.callback(layer.attn_drop.register_forward_pre_hook(hook).remove)  # type: ignore[union-attr, operator]
        yield trace


@dataclass
class _Watch:
    """Hook after the recorder's on the same tensor: drop early maps, begin the graph."""

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


@contextmanager
def _without_parameter_gradients(network: nn.Module) -> Iterator[None]:
    trained = [p for p in network.parameters() if p.requires_grad]
    for p in trained:
        p.requires_grad_(False)
    try:
        yield
    finally:
        for p in trained:
            p.requires_grad_()


def attention_gradients(
    logits: Float[Tensor, "b k"],
    attention: Sequence[Float[Tensor, "b _a _n _m"]],
    tags: Float[Tensor, "b k"],
    rows: slice = slice(0, 1),
    batched: bool | None = None,
) -> tuple[list[Float[Tensor, "m b _a _r _n"]], Int[Tensor, "b m"], Bool[Tensor, "b m"]]:
    """Differentiate the tagged class logits of every image with respect to attention.

    Pass j differentiates every image's own j-th class, so a batch costs as many passes as the
    largest number of tags of an image. Images must not influence each other's logits (no batch
    statistics).

    Args:
        logits: class logits.
        attention: recorded per-head attention that the logits depend on.
        tags: 0 or 1; the classes to differentiate per image.
        rows: query rows that are kept; the released code uses the class token's only.
        batched: one vectorised backward pass for all classes, or sequential passes with less memory
            (on a CPU also 2 to 10 % less time). None: vectorised on accelerators only.

    Returns:
        Gradients per layer, m = largest number of tags; class index and mask of the real entries
        (`present_classes`). Padding entries have gradient 0.

    Raises:
        ValueError: no gradient can flow, or the shapes disagree.
    """
    if not attention or not (logits.requires_grad and all(a.requires_grad for a in attention)):
        raise ValueError(
            "logits and attention must be of one recorded forward pass with gradients; run the "
            "network inside record_for_localisation() or record_attention(), not under no_grad()"
        )
    if tags.shape != logits.shape:
        raise ValueError(
            f"tags must be (b, k) = {tuple(logits.shape)} like logits, got {tuple(tags.shape)}"
        )
    index, present = present_classes(tags)
    seeds = torch.zeros(index.shape[1], *logits.shape, dtype=logits.dtype, device=logits.device)
    seeds.scatter_(2, index.T.unsqueeze(2), present.T.unsqueeze(2).to(logits.dtype))
    if logits.device.type != "cpu" if batched is None else batched:
        found = torch.autograd.grad(logits, list(attention), seeds, is_grads_batched=True)
        return [g[..., rows, :] for g in found], index, present
    last = len(seeds) - 1
    passes = [
        [g[..., rows, :] for g in torch.autograd.grad(logits, list(attention), s, j < last)]
        for j, s in enumerate(seeds)
    ]
    return [torch.stack(layer) for layer in zip(*passes, strict=True)], index, present


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
    """Compute class maps over the patch tokens from the class token's row, summed over layers.

    A ReLU follows the sum. Without a class token (`prefix=0`, e.g. MiT) the logits are read from
    the patches, so the mean over all query rows takes the place of the class row; that is ours, no
    paper's.

    Args:
        logits: class logits.
        attention: per-head attention of the layers to use, from `record_for_localisation`; square
            matrices of one size.
        tags: classes to map; the maps of the others are 0.
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
    total: Any = 0
    for gradient, layer in zip(gradients, attention, strict=True):
        total = total + layer_map(gradient, layer[..., rows, :], variant)
    maps = total[..., prefix:].mean(dim=-2).relu().transpose(0, 1)
    out = maps.new_zeros(*logits.shape, maps.shape[-1])
    return out.scatter_(1, index[:, :, None].expand_as(maps), maps)


def attention_rollout(
    attention: Sequence[Float[Tensor, "b _a n n"]], prefix: int = 1
) -> Float[Tensor, "b p"]:
    """Compute the class token's attention through all layers (roll-out, Abnar and Zuidema 2020).

    The layers' head means, each mixed half and half with the identity for the shortcut round it,
    are multiplied. The result does not depend on a class.

    Args:
        attention: per-head attention of all layers, first layer first.
        prefix: tokens before the patches; the first one is the class token.

    Returns:
        The class token's row over the patch tokens, >= 0, not normalised.

    Raises:
        ValueError: there is no layer, or no class token.
    """
    if not attention or prefix < 1:
        raise ValueError(
            f"attention, prefix: expected layers of a network with a class token, got "
            f"{len(attention)} layers and prefix {prefix}"
        )
    row = torch.zeros_like(attention[-1][:, 0, :1], dtype=torch.float32)
    row[..., 0] = 1
    for layer in reversed(attention):  # only one row is needed: a vector times matrices
        row = (row @ layer.float().mean(dim=1) + row) / 2
    return row[:, 0, prefix:]


def spread(
    maps: Float[Tensor, "b k p"], affinity: Float[Tensor, "b n n"] | None, prefix: int = 1
) -> Float[Tensor, "b k p"]:
    """Propagate maps by affinity: patch i gathers ``sum_j P_ij s_j`` from all patches j.

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
