"""Class maps from attention: gradients of class logits with respect to it, and roll-out.

Both take the attention that `wsss_lab.models.attention.record_attention` has recorded in a forward
pass. How ACR makes class maps from the gradients stands in `wsss_lab.methods.acr.localisation`.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from wsss_lab.cam.maps import present_classes


def attention_gradients(
    logits: Float[Tensor, "b k"],
    attention: Sequence[Float[Tensor, "b _a _n _m"]],
    tags: Float[Tensor, "b k"],
    rows: slice = slice(0, 1),
    batched: bool | None = None,
) -> tuple[list[Float[Tensor, "m b _a _r _n"]], Int[Tensor, "b m"], Bool[Tensor, "b m"]]:
    """Differentiate the tagged class logits of every image with respect to attention.

    Pass j asks every image for its own j-th class, so a batch costs as many passes as the image
    with most tags has. Images must not influence each other's logits (no batch statistics).

    Args:
        logits: class logits.
        attention: recorded per-head attention that the logits depend on.
        tags: 0 or 1; the classes wanted per image.
        rows: query rows that are kept; the released code uses the class token's only.
        batched: one vectorised backward pass for all classes, or one pass after another, with less
            memory (on a CPU also 2 to 10 % less time). None: vectorised on accelerators only.

    Returns:
        Gradients per layer, m = largest number of tags; class index and which entries are real
        (`present_classes`). Entries that are not real have gradient 0.

    Raises:
        ValueError: no gradient can flow, or the shapes disagree.
    """
    if not attention or not (logits.requires_grad and all(a.requires_grad for a in attention)):
        raise ValueError(
            "logits and attention must be of one recorded forward pass with gradients; run the "
            "network inside record_attention(), not under no_grad()"
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


def attention_rollout(
    attention: Sequence[Float[Tensor, "b _a n n"]], prefix: int = 1
) -> Float[Tensor, "b p"]:
    """Multiply the attention of all layers: attention roll-out (Abnar and Zuidema, 2020).

    The layers' head means, each mixed half and half with the identity for the shortcut round it,
    are multiplied. The result is the same for all classes.

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
    for layer in reversed(attention):  # only one row is wanted: from the left, a vector is enough
        row = (row @ layer.float().mean(dim=1) + row) / 2
    return row[:, 0, prefix:]
