"""Convolution, frozen batch normalisation and ReLU6 as one operation, for inference.

An EfficientNet, which `lite0` and the stem of `lite0_vit` are, reads and writes every map of an
inference three times: convolution, normalisation, activation. Frozen statistics are a factor and a
constant per channel, so they can be multiplied into the convolution's weights, and oneDNN applies
the activation before it writes. Sums are rounded in another order: a map differs by about 1e-5 of
its largest value.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

PAIRS = {
    "EfficientNet": (("conv_stem", "bn1"), ("conv_head", "bn2")),
    "EfficientNetLite0": (("conv_stem", "bn1"), ("conv_head", "bn2")),
    "SeparableBlock": (("conv_dw", "bn1"), ("conv_pw", "bn2")),
    "InvertedBlock": (("conv_pw", "bn1"), ("conv_dw", "bn2"), ("conv_pwl", "bn3")),
    "DepthwiseSeparableConv": (("conv_dw", "bn1"), ("conv_pw", "bn2")),
    "InvertedResidual": (("conv_pw", "bn1"), ("conv_dw", "bn2"), ("conv_pwl", "bn3")),
}
"""Class of timm or of this package -> its convolutions, each with the normalisation behind it."""


@contextmanager
def folded(network: nn.Module) -> Iterator[None]:
    """Run a network faster inside the block; nothing changes where that does not apply.

    It applies on a CPU with oneDNN, in float32, without gradients, to batch normalisations in
    evaluation mode. Weights must not change inside: they are folded on entry. Parameters, names and
    types stay as they are.

    Args:
        network: any; its layers listed in `PAIRS` are folded.
    """
    with ExitStack() as undo:
        for module in network.modules():
            for first, second in PAIRS.get(type(module).__name__, ()):
                conv: Any = getattr(module, first, None)
                norm: Any = getattr(module, second, None)
                if _foldable(conv, norm):
                    _fold(conv, norm, undo)
        yield


def _foldable(conv: Any, norm: Any) -> bool:
    return bool(
        isinstance(conv, nn.Conv2d)
        and isinstance(norm, nn.BatchNorm2d)
        and not norm.training
        and norm.running_mean is not None
        and conv.weight.device.type == "cpu"
        and conv.weight.dtype == torch.float32
        and conv.padding_mode == "zeros"
        and isinstance(getattr(norm, "act", nn.Identity()), nn.ReLU6 | nn.Identity)
        and "forward" not in vars(conv)  # folded already
        and torch.backends.mkldnn.is_available()
        and hasattr(torch.ops.mkldnn, "_convolution_pointwise")
    )


def _fold(conv: Any, norm: Any, undo: ExitStack) -> None:
    """Replace the `forward` of both layers until `undo` closes."""
    with torch.no_grad():
        fused, bias = fuse_conv_bn_weights(
            conv.weight, conv.bias, norm.running_mean, norm.running_var,
            norm.eps, norm.weight, norm.bias,
        )  # fmt: skip
        weight = fused.contiguous(memory_format=torch.channels_last)
    cut = isinstance(getattr(norm, "act", None), nn.ReLU6)
    activation = ("hardtanh", [0.0, 6.0], "") if cut else ("none", [], "")
    convolve: Callable[[Tensor], Tensor] = conv.forward
    normalise: Callable[[Tensor], Tensor] = norm.forward

    def both(x: Tensor) -> Tensor:
        if not _applies(x):
            return convolve(x)
        x, padding = _padded(x, conv)
        return torch.ops.mkldnn._convolution_pointwise(
            x.contiguous(memory_format=torch.channels_last), weight, bias,
            padding, conv.stride, conv.dilation, conv.groups, *activation,
        )  # fmt: skip

    def nothing(x: Tensor) -> Tensor:
        return x if _applies(x) else normalise(x)

    for layer, forward in ((conv, both), (norm, nothing)):
        vars(layer)["forward"] = forward
        undo.callback(vars(layer).pop, "forward")


def _applies(x: Tensor) -> bool:
    return (
        x.device.type == "cpu"
        and x.dtype == torch.float32
        and not torch.is_grad_enabled()
        and not torch.is_autocast_enabled("cpu")
        and bool(torch.backends.mkldnn.enabled)
    )


def _padded(x: Tensor, conv: nn.Conv2d) -> tuple[Tensor, list[int]]:
    """Pad as the convolution does: TensorFlow's "same" by the input, others by a number."""
    if type(conv).__name__ not in ("Conv2dSame", "SameConv"):
        return x, list(conv.padding)  # type: ignore[arg-type]
    sides = []
    for size, kernel, stride, dilation in zip(
        x.shape[-2:], conv.kernel_size, conv.stride, conv.dilation, strict=True
    ):
        sides.append(max((-(-size // stride) - 1) * stride + (kernel - 1) * dilation + 1 - size, 0))
    down, right = sides
    if down % 2 == 0 and right % 2 == 0:
        return x, [down // 2, right // 2]
    return F.pad(x, (right // 2, right - right // 2, down // 2, down - down // 2)), [0, 0]
