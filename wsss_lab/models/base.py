"""Interface of all backbones."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from jaxtyping import Float
from torch import Tensor, nn

from wsss_lab.config import IMAGENET_MEAN, IMAGENET_STD

WeightStd = Literal["timm", "added_eps"]
"""Weight standardisation of the R50 + ViT hybrid, see `wsss_lab.models.hybrid.AddedEpsConv`."""
NORM_LAYERS = (
    nn.LayerNorm,
    nn.GroupNorm,
    nn.modules.batchnorm._BatchNorm,
    nn.modules.instancenorm._InstanceNorm,
)


@dataclass(frozen=True)
class Features:
    """Output of a backbone.

    Attributes:
        pyramid: feature maps, finest (or earliest) first, each (b, d, gh, gw). The last one is the
            map that class activation maps are read from.
        tokens: patch tokens of a vision transformer, (b, n, d), row-major over the grid of the last
            map; `None` for convolutional and pyramid networks.
        cls: class token, (b, d), or `None` where the network has none.
    """

    pyramid: list[Float[Tensor, "b _d _gh _gw"]]
    tokens: Float[Tensor, "b n d"] | None = None
    cls: Float[Tensor, "b d"] | None = None

    @property
    def last(self) -> Float[Tensor, "b d gh gw"]:
        """The map that class activation maps are read from."""
        return self.pyramid[-1]


def normalize(
    images: Float[Tensor, "b 3 h w"], mean: Sequence[float], std: Sequence[float]
) -> Float[Tensor, "b 3 h w"]:
    """Compute (images - mean) / std per channel; every network's own values: `Backbone.normalize`.

    Args:
        images: RGB in [0, 1], floats.
        mean: of each channel.
        std: deviation of each channel.
    """
    middle = images.new_tensor(mean)[:, None, None]
    return (images - middle) / images.new_tensor(std)[:, None, None]


class Backbone(nn.Module):
    """A network that turns an image into `Features`.

    Sub-classes implement `features`. Parameters of the wrapped network live under the prefix
    ``net.``.

    Attributes:
        name: key of `wsss_lab.models.backbones.BACKBONES`.
        widths: channels of each map in `Features.pyramid`.
        strides: input pixels per cell of each map in `Features.pyramid`.
        min_size: smallest accepted image side in pixels.
        weight_tag: where the weights came from; ``"random"`` until something is loaded.
        net: the wrapped network.
        input_mean: what is subtracted from each channel of an image in [0, 1].
        input_std: what each channel is divided by afterwards.
        prefix_tokens: tokens before those of the cells in its attention, such as a class token.
    """

    net: Any
    prefix_tokens: int = 0
    input_mean: tuple[float, ...] = IMAGENET_MEAN
    input_std: tuple[float, ...] = IMAGENET_STD

    def __init__(
        self, name: str, widths: tuple[int, ...], strides: tuple[int, ...], min_size: int = 32
    ) -> None:
        super().__init__()
        self.name = name
        self.widths = tuple(widths)
        self.strides = tuple(strides)
        self.min_size = min_size
        self.weight_tag = "random"

    @property
    def width(self) -> int:
        """Channels of the last map."""
        return self.widths[-1]

    @property
    def stride(self) -> int:
        """Input pixels per cell of the last map."""
        return self.strides[-1]

    def normalize(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
        """Bring images in [0, 1] into the range that this network's weights were trained with.

        Args:
            images: RGB in [0, 1], floats.

        Returns:
            (images - `input_mean`) / `input_std`, per channel.
        """
        return normalize(images, self.input_mean, self.input_std)

    def features(self, image: Float[Tensor, "b 3 h w"]) -> Features:
        """Compute the features of an image that `forward` has checked."""
        raise TypeError(f"{type(self).__name__} does not say how to compute features")

    def forward(self, image: Float[Tensor, "b 3 h w"]) -> Features:
        """Compute the features of a batch of images.

        Args:
            image: images after `normalize`, (b, 3, h, w). They may be rectangular.

        Returns:
            `Features`; a map of stride s has ceil(h / s) x ceil(w / s) cells (the plain ViT,
            whose patches do not overlap: floor).

        Raises:
            ValueError: wrong number of dimensions or channels, an integer image, or a side shorter
                than `min_size`.
        """
        if image.ndim != 4 or image.shape[1] != 3:
            raise ValueError(f"image must be (b, 3, h, w), got {tuple(image.shape)}")
        if not image.is_floating_point():
            raise ValueError(
                f"image must be normalised floats, got {image.dtype}: normalise it first"
            )
        if min(image.shape[2:]) < self.min_size:
            raise ValueError(
                f"image sides must be at least {self.min_size} px for {self.name}, "
                f"got {image.shape[2]}x{image.shape[3]}: resize the image"
            )
        return self.features(image)

    def extra_repr(self) -> str:
        """Name, widths, strides and weights in one line."""
        return (
            f"{self.name}, widths={self.widths}, strides={self.strides}, weights={self.weight_tag}"
        )


def split_norm_parameters(
    module: nn.Module,
) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Separate the affine parameters of normalisation layers from all others.

    TSCD trains the first group with learning rate and weight decay 0; other recipes only spare it
    the weight decay.

    Args:
        module: any network.

    Returns:
        (parameters of normalisation layers, all other parameters), each in the order of
        `module.parameters()`; their union is `module.parameters()` and they share nothing.
    """
    owned_by_norm = {
        id(parameter)
        for layer in module.modules()
        if isinstance(layer, NORM_LAYERS)
        for parameter in layer.parameters(recurse=False)
    }
    parameters = list(module.parameters())
    norm = [p for p in parameters if id(p) in owned_by_norm]
    other = [p for p in parameters if id(p) not in owned_by_norm]
    return norm, other


def freeze_batch_norms(module: nn.Module) -> None:
    """Keep running statistics, scale and shift of all batch norms as they are.

    For networks whose batches are too small for statistics. `train()` switches batch norms back, so
    call this after it, too.
    """
    for layer in module.modules():
        if isinstance(layer, nn.modules.batchnorm._BatchNorm):
            layer.eval().requires_grad_(False)


def count_parameters(module: nn.Module) -> int:
    """Number of parameters, trainable or not."""
    return sum(parameter.numel() for parameter in module.parameters())


__all__ = [
    "NORM_LAYERS",
    "Backbone",
    "Features",
    "count_parameters",
    "freeze_batch_norms",
    "normalize",
    "split_norm_parameters",
]
