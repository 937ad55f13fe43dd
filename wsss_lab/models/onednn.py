"""Linear layers that multiply by oneDNN on a CPU.

PyTorch passes float32 matrix products on x86 to MKL, which uses its widest instructions on Intel's
processors only. oneDNN, in every build of PyTorch for its convolutions, selects by instruction set
alone: on an AMD EPYC with AVX-512 it multiplies the same float32 numbers 2 times as fast
(`benchmarks/onednn.py`). Transformers spend most of a step there. Numbers differ from MKL's by
rounding only. Small products, other types, autocast, accelerators and builds without MKL take the
usual path, unchanged.
"""

from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Network = TypeVar("Network", bound=nn.Module)

SMALL = 2**21
"""Number of multiplications below which the usual path is as fast."""


@torch.library.custom_op("wsss_lab::linear", mutates_args=(), device_types="cpu")
def onednn_linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Compute x W^T + b by oneDNN; differentiable, also twice and under vmap over gradients.

    Args:
        x: (..., d), float32 on a CPU, at least two axes, not empty.
        weight: (e, d), contiguous or the transpose of a contiguous matrix; others give the same
            result a thousand times slower.
        bias: (e) or None.

    Returns:
        (..., e).
    """
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")


@onednn_linear.register_fake
def _shape(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return x.new_empty((*x.shape[:-1], weight.shape[0]))


@onednn_linear.register_vmap
def _many(
    info: Any, axes: tuple[int | None, ...], x: Tensor, weight: Tensor, bias: Tensor | None
) -> tuple[Tensor, int]:
    if axes[0] is not None and axes[1:] == (None, None):
        return onednn_linear(x.movedim(axes[0], 0), weight, bias), 0

    def many(t: Tensor, axis: int | None) -> Tensor:
        return t.expand(info.batch_size, *t.shape) if axis is None else t.movedim(axis, 0)

    x = many(x, axes[0])
    y = x.flatten(1, -2) @ many(weight, axes[1]).mT
    y = y if bias is None else y + many(bias, axes[2])[:, None]
    return y.unflatten(1, x.shape[1:-1]), 0


def _keep(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor | None], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:2])


def _gradients(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    x, weight = ctx.saved_tensors
    found: list[Tensor | None] = [None, None, None]
    if ctx.needs_input_grad[0]:
        found[0] = onednn_linear(grad, weight.t(), None)
    # other strides than those of a matrix or its transpose are a thousand times slower
    rows = grad.reshape(-1, grad.shape[-1]).contiguous()
    tokens = x.reshape(-1, x.shape[-1]).contiguous()
    if ctx.needs_input_grad[1]:  # the product with fewer rows than columns is the faster one
        wide = weight.shape[0] < weight.shape[1]
        left, right = (rows, tokens) if wide else (tokens, rows)
        product = onednn_linear(left.t(), right.t(), None)
        found[1] = product if wide else product.t()
    if ctx.needs_input_grad[2]:
        found[2] = rows.sum(0)
    return tuple(found)


onednn_linear.register_autograd(_gradients, setup_context=_keep)


class OneDNNLinear(nn.Linear):
    """`torch.nn.Linear` that computes large float32 products on a CPU with oneDNN."""

    def forward(self, input: Tensor) -> Tensor:
        """Map (..., d) to (..., e)."""
        if (
            input.device.type == "cpu"
            and input.dtype == self.weight.dtype == torch.float32
            and input.ndim > 1
            and input.numel() * self.out_features >= SMALL
            and self.weight.is_contiguous()
            and not torch.is_autocast_enabled("cpu")
            and torch.backends.mkl.is_available()  # else PyTorch does not multiply by MKL anyway
            and torch.backends.mkldnn.is_available()
            and torch.backends.mkldnn.enabled
        ):
            return onednn_linear(input, self.weight, self.bias)
        return F.linear(input, self.weight, self.bias)


def multiply_by_onednn(network: Network, on: bool = True) -> Network:
    """Turn every `torch.nn.Linear` of a network into `OneDNNLinear`, or back, in place.

    Parameters, hooks and names stay; sub-classes of Linear are left unchanged.
    """
    old, new = (nn.Linear, OneDNNLinear) if on else (OneDNNLinear, nn.Linear)
    for layer in network.modules():
        if type(layer) is old:
            layer.__class__ = new
    return network
