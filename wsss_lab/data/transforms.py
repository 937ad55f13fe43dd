"""Conversion between pixels 0..255 and the network's normalised input."""

import torch
from jaxtyping import Float, Num, UInt8
from torch import Tensor

from wsss_lab.config import IMAGENET_MEAN, IMAGENET_STD


def _constants(like: Tensor) -> tuple[Tensor, Tensor]:
    if like.ndim < 3 or like.shape[-3] != 3:
        raise ValueError(
            f"images must have shape (..., 3, h, w), got {tuple(like.shape)}; "
            "permute(2, 0, 1) an array that has its channels last"
        )
    # float64: 0.485 x 255 then rounds to the 123.675 that the released codes write
    both = torch.tensor([IMAGENET_MEAN, IMAGENET_STD], dtype=torch.float64) * 255
    mean, std = both.float().to(like.device).view(2, 3, 1, 1)
    return mean, std


def normalise(image: Num[Tensor, "*b 3 h w"]) -> Float[Tensor, "*b 3 h w"]:
    """Normalise an image: (image - mean) / std with ImageNet's constants x 255, in float32.

    The same for images in [0, 1] is `wsss_lab.methods.common.base.normalize`.

    Args:
        image: RGB, 0..255 (not 0..1), any number type.

    Returns:
        float32, about -2.1..2.7.

    Raises:
        ValueError: the channel axis is not third from the end.
    """
    mean, std = _constants(image)
    return (image.float() - mean) / std


def denormalise(image: Float[Tensor, "*b 3 h w"]) -> Float[Tensor, "*b 3 h w"]:
    """Invert `normalise`: float32 RGB, 0..255 up to rounding.

    Raises:
        ValueError: the channel axis is not third from the end.
    """
    mean, std = _constants(image)
    return image.float() * std + mean


def denormalise_u8(image: Float[Tensor, "*b 3 h w"]) -> UInt8[Tensor, "*b 3 h w"]:
    """Invert `normalise` to uint8, truncated and not rounded, as the released codes do.

    The truncation makes about 1 % of the values one lower than the source image (12.9999 becomes
    12). PAR, VARM and the CRF of the released codes all use this image, so recorded numbers need
    it. Values outside 0..255, which zero padding cannot produce, are clamped first.

    Raises:
        ValueError: the channel axis is not third from the end.
    """
    return denormalise(image).clamp(0, 255).to(torch.uint8)
