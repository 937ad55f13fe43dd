"""Operations of products that PyTorch's own counter gets wrong or does not know."""

from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode


def convolution_backward(
    grad_shape: Any, image_shape: Any, weight_shape: Any, *rest: Any, **_: Any
) -> int:
    """Operations of the gradients of a convolution with respect to its input and its weights.

    PyTorch 2.15 counts those of grouped weights as if there were no groups: of a depthwise
    convolution with 672 channels, 672 times too many.
    """
    transposed, wanted = rest[4], rest[7]
    places = image_shape if transposed else grad_shape
    each = torch.Size(places).numel() * torch.Size(weight_shape[1:]).numel()
    return 2 * each * (bool(wanted[0]) + bool(wanted[1]))


def linear(x_shape: Any, weight_shape: Any, *_: Any, **__: Any) -> int:
    """Operations of `wsss_lab::linear`: x W^T."""
    return 2 * torch.Size(x_shape).numel() * weight_shape[0]


def counter() -> FlopCounterMode:
    """PyTorch's counter, set right."""
    from wsss_lab.models import onednn  # noqa: F401 - registers the product

    mapping = {
        torch.ops.aten.convolution_backward: convolution_backward,
        torch.ops.wsss_lab.linear: linear,
    }
    return FlopCounterMode(display=False, custom_mapping=mapping)
