"""Modes of a network that last for one `with` block: dropout, statistics, gradients, short cuts.

Each of these managers changes how a network runs, none changes an equation; on leaving the block,
also by an exception, the network is as before. They keep such plumbing out of the methods.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import cast

from jaxtyping import Float
from torch import Tensor, nn

from wsss_lab.models.base import Backbone
from wsss_lab.models.vit import ViTBackbone

DROPOUT = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout)
"""Layers that leave out activations; stochastic depth (`timm.layers.DropPath`) is none of them."""

PIXELS_AT_ONCE = 2**19
"""Pixels of a pass that only makes maps, on a CPU: 32 images of 128 px, 10 of 224, 2 of 512."""


def in_parts(images: Float[Tensor, "b 3 h w"]) -> Sequence[Float[Tensor, "_n 3 h w"]]:
    """Split a batch for passes without gradients, of at most `PIXELS_AT_ONCE` on a CPU.

    Single images cost up to five times as much where they are small, all at once a multiple of the
    memory where they are large. Elsewhere than on a CPU the batch stays whole.
    """
    if not images.is_cpu:
        return [images]
    return images.split(max(1, PIXELS_AT_ONCE // (images.shape[2] * images.shape[3])))


@contextmanager
def evaluation_mode(
    module: nn.Module, kinds: tuple[type[nn.Module], ...] = (nn.Module,), on: bool = True
) -> Iterator[None]:
    """Put layers into evaluation mode: no dropout, no stochastic depth, running statistics.

    Unlike `module.eval()`, then `module.train()`, it gives back to every layer its own mode, so
    that layers which were frozen in evaluation mode stay frozen.

    Args:
        module: the network.
        kinds: classes of the layers that are switched; all by default.
        on: whether to do anything at all.
    """
    switched = [x for x in module.modules() if x.training and isinstance(x, kinds)] if on else []
    for layer in switched:
        layer.training = False
    try:
        yield
    finally:
        for layer in switched:
            layer.training = True


@contextmanager
def keep_running_statistics(norm: nn.BatchNorm2d, on: bool = True) -> Iterator[None]:
    """Let a batch normalisation use the statistics of the batch without learning from them.

    Args:
        norm: a layer in training mode.
        on: whether to do anything at all.
    """
    before = norm.momentum
    if on:
        norm.momentum = 0.0
    try:
        yield
    finally:
        norm.momentum = before


@contextmanager
def stateless_pass(module: nn.Module) -> Iterator[None]:
    """Switch off noise and the update of running statistics.

    Layers in training mode go to evaluation mode (no dropout, no stochastic depth), but for batch
    normalisation, which goes on using the statistics of the batch and keeps none. Layers that are
    frozen in evaluation mode stay as they are.
    """
    training = [layer for layer in module.modules() if layer.training]
    norms = [layer for layer in training if isinstance(layer, nn.modules.batchnorm._BatchNorm)]
    tracked = [layer for layer in norms if layer.track_running_stats]
    for layer in training:
        layer.training = layer in norms
    for layer in tracked:
        layer.track_running_stats = False
    try:
        yield
    finally:
        for layer in training:
            layer.training = True
        for layer in tracked:
            layer.track_running_stats = True


@contextmanager
def without_parameter_gradients(module: nn.Module) -> Iterator[None]:
    """Take the parameters out of the autograd graph; gradients of activations remain possible."""
    trained = [p for p in module.parameters() if p.requires_grad]
    for p in trained:
        p.requires_grad_(False)
    try:
        yield
    finally:
        for p in trained:
            p.requires_grad_()


@contextmanager
def class_token_only(backbone: Backbone) -> Iterator[None]:
    """Run the MLP of the last block on the class token alone.

    The class token of the output and all attention matrices are exact, and so are all gradients
    that come from them: after the last attention, tokens no longer exchange anything. The last
    block's *patch* tokens are meaningless inside, so use it only where they are unused. It saves
    two thirds of the last block, forwards and in every backward pass.

    Args:
        backbone: a `ViTBackbone`; others run unchanged.
    """
    if not isinstance(backbone, ViTBackbone):
        yield
        return

    def first_token(_: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor]:
        return (args[0][:, :1],)  # the residual sum broadcasts it over all tokens

    last = cast(nn.Module, backbone.net.blocks[-1].norm2)
    handle = last.register_forward_pre_hook(first_token)
    try:
        yield
    finally:
        handle.remove()


__all__ = [
    "DROPOUT",
    "class_token_only",
    "evaluation_mode",
    "keep_running_statistics",
    "stateless_pass",
    "without_parameter_gradients",
]
