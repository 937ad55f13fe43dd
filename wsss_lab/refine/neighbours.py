"""Weighted sums over dilated neighbours, the common core of PAMR, PAR and VARM.

Every pixel has eight neighbours at each of several distances. `propagate` replaces masks by the
weighted sum of these neighbours, without a copy per neighbour: on the CPU by index or, for a few
classes, plane by plane; on an accelerator by shifted views.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

DILATIONS = (1, 2, 4, 8, 12, 24)
"""Distances of the neighbours in px, the same in all three papers' code."""


def dilated_offsets(dilations: Sequence[int] = DILATIONS) -> list[tuple[int, int]]:
    """List the neighbours: (down, right) in px, eight per dilation, row by row.

    Raises:
        ValueError: if `dilations` is empty or holds anything but positive integers.
    """
    if not dilations or any(d != int(d) or d < 1 for d in dilations):
        raise ValueError(
            f"dilations must be positive whole distances in px, got {tuple(dilations)}; "
            f"the papers use {DILATIONS}"
        )
    steps = [(y, x) for y in (-1, 0, 1) for x in (-1, 0, 1) if y or x]
    return [(y * int(d), x * int(d)) for d in dilations for y, x in steps]


def propagate(
    masks: Float[Tensor, "b k h w"],
    weights: Float[Tensor, "b n h w"],
    dilations: Sequence[int] = DILATIONS,
    iterations: int = 10,
    by_plane: bool = False,
) -> Float[Tensor, "b k h w"]:
    """Replace the masks by the weighted sum of their neighbours, several times.

    The neighbours' values are read in place; no copy per neighbour is made. Every class is refined
    on its own.

    Args:
        masks: values per class; gradients flow through them.
        weights: from `local_affinity`, for the same dilations.
        dilations: distances in px.
        iterations: number of repetitions; 0 returns the masks.
        by_plane: on the CPU, take a whole plane of one neighbour after the other. Faster for up to
            six classes of one image; sums in another order, so a last bit may differ.

    Returns:
        Refined masks, float32 (float64 for float64 masks); on the CPU in the channels-last layout,
        but by plane.

    Raises:
        ValueError: if sizes disagree, there is no class, or `weights` requires a gradient.
    """
    offsets = dilated_offsets(dilations)
    check_masks(masks)
    expected = (masks.shape[0], len(offsets), *masks.shape[2:])
    if tuple(weights.shape) != expected:
        raise ValueError(
            f"weights must be (b, 8 * dilations, h, w) = {expected} for these masks, got "
            f"{tuple(weights.shape)}; resize the masks to the image and pass the same dilations"
        )
    if weights.requires_grad:
        raise ValueError(
            "weights must not require a gradient: only masks pass one on; detach the weights"
        )
    if iterations < 0:
        raise ValueError(f"iterations must be 0 or more, got {iterations}; the papers use 10")
    with full_precision(masks):
        masks = real(masks)
        return _Propagate.apply(masks, weights.to(masks.dtype), offsets, iterations, by_plane)


def window(padded: Tensor, pad: int, offset: tuple[int, int], rows: slice, width: int) -> Tensor:
    """Return a view of `rows` of the image, shifted by the offset."""
    top, left = pad + offset[0], pad + offset[1]
    return padded[..., top + rows.start : top + rows.stop, left : left + width]


def real(x: Tensor) -> Tensor:
    """Convert to float32; keep float64."""
    return x if x.dtype == torch.float64 else x.float()


def full_precision(x: Tensor) -> torch.autocast:
    """Switch autocast off: sums of 48 weights need float32."""
    return torch.autocast(x.device.type, enabled=False)


def check_masks(masks: Tensor) -> None:
    """Check that masks are float (b, k, h, w) and not empty."""
    if masks.ndim != 4 or masks.numel() == 0:
        raise ValueError(
            f"masks must be (b, k, h, w) with at least one class, got {tuple(masks.shape)}; "
            "leave images without classes out, or refine their background channel"
        )
    if not masks.is_floating_point():
        raise ValueError(f"masks must be float, got {masks.dtype}; one-hot labels need .float()")


class _Propagate(torch.autograd.Function):
    """Propagation, linear in the masks: its backward pass needs the weights only."""

    @staticmethod
    def forward(
        ctx: Any,
        masks: Tensor,
        weights: Tensor,
        offsets: list[tuple[int, int]],
        iterations: int,
        by_plane: bool,
    ) -> Tensor:
        ctx.save_for_backward(weights)
        ctx.offsets, ctx.iterations = offsets, iterations
        if iterations == 0:
            return masks.clone()
        if masks.is_cpu and not by_plane:
            return _by_index(masks, weights, offsets, iterations)
        return _by_shift(masks, weights.contiguous() if by_plane else weights, offsets, iterations)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None, None]:
        (weights,) = ctx.saved_tensors
        return _transposed(grad, weights, ctx.offsets, ctx.iterations), None, None, None, None


def _by_index(
    masks: Tensor, weights: Tensor, offsets: list[tuple[int, int]], iterations: int
) -> Tensor:
    """Gather the neighbours of a pixel by index; its classes are contiguous."""
    b, k, h, w = masks.shape
    n = len(offsets)
    kind = torch.int32 if b * h * w * n < 2**31 else torch.int64
    down, right = torch.tensor(offsets, dtype=kind, device=masks.device).T
    y = torch.arange(h, dtype=kind, device=masks.device)[:, None]
    x = torch.arange(w, dtype=kind, device=masks.device)[:, None]
    line, column = (y + down).clamp_(0, h - 1).mul_(w), (x + right).clamp_(0, w - 1)
    first = torch.arange(0, b * h * w, h * w, dtype=kind, device=masks.device)[:, None, None]
    index = ((first + line)[:, :, None] + column).view(b * h * w, n)
    table = masks.permute(0, 2, 3, 1).reshape(b * h * w, k)
    share = weights.permute(0, 2, 3, 1).reshape(b * h * w, n)
    for _ in range(iterations):
        table = F.embedding_bag(index, table, mode="sum", per_sample_weights=share)
    return table.view(b, h, w, k).permute(0, 3, 1, 2)


def _by_shift(
    masks: Tensor, weights: Tensor, offsets: list[tuple[int, int]], iterations: int
) -> Tensor:
    """Add up shifted views of the padded masks: whole planes at a time."""
    pad, (h, w) = max(y for y, _ in offsets), masks.shape[2:]
    now = F.pad(masks, (pad,) * 4, mode="replicate")
    total = torch.empty_like(masks, memory_format=torch.contiguous_format)
    middle = window(now, pad, (0, 0), slice(0, h), w)
    # the views are the same in every repetition: making them takes as long as a small product
    pairs = [
        (window(now, pad, offset, slice(0, h), w), weights[:, n : n + 1])
        for n, offset in enumerate(offsets)
    ]
    for repetition in range(iterations):
        if repetition:
            middle.copy_(total)
            now[..., pad:-pad, :pad] = total[..., :1]
            now[..., pad:-pad, -pad:] = total[..., -1:]
            now[..., :pad, :] = now[..., pad : pad + 1, :]
            now[..., -pad:, :] = now[..., -pad - 1 : -pad, :]
        total.zero_()
        for values, weight in pairs:
            total.addcmul_(values, weight)
    return total


def _transposed(
    grad: Tensor, weights: Tensor, offsets: list[tuple[int, int]], iterations: int
) -> Tensor:
    """Scatter every value back to the neighbours it came from; border copies to the border."""
    pad, (h, w) = max(y for y, _ in offsets), grad.shape[2:]
    weights = weights.contiguous()  # a plane per neighbour
    for _ in range(iterations):
        big = grad.new_zeros(*grad.shape[:2], h + 2 * pad, w + 2 * pad)
        for n, offset in enumerate(offsets):
            window(big, pad, offset, slice(0, h), w).addcmul_(grad, weights[:, n : n + 1])
        big[..., pad] += big[..., :pad].sum(dim=-1)
        big[..., -pad - 1] += big[..., -pad:].sum(dim=-1)
        big[..., pad, :] += big[..., :pad, :].sum(dim=-2)
        big[..., -pad - 1, :] += big[..., -pad:, :].sum(dim=-2)
        grad = big[..., pad:-pad, pad:-pad].contiguous()
    return grad
