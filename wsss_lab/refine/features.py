"""Positions and colours as the feature vectors of Gaussian kernels."""

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

Images = Float[Tensor, "b 3 h w"] | UInt8[Tensor, "b 3 h w"]


def spatial_features(
    size: tuple[int, int], sigma: float, *, device: torch.device | str | None = None
) -> Float[Tensor, "1 2 h w"]:
    """Return pixel coordinates (x, y) in units of `sigma` px."""
    h, w = size
    y, x = torch.meshgrid(
        torch.arange(h, dtype=torch.float32, device=device),
        torch.arange(w, dtype=torch.float32, device=device),
        indexing="ij",
    )
    return torch.stack([x, y])[None] / sigma


def bilateral_features(
    images: Images, sigma_xy: float, sigma_rgb: float
) -> Float[Tensor, "b 5 h w"]:
    """Return coordinates (x, y) in units of `sigma_xy` px and colours in units of `sigma_rgb`.

    Args:
        images: RGB in 0..255, `uint8` or float.
        sigma_xy: px.
        sigma_rgb: on the 0..255 scale.
    """
    colour = images if images.is_floating_point() else images.float()
    b, _, h, w = colour.shape
    place = spatial_features((h, w), sigma_xy, device=images.device).to(colour.dtype)
    return torch.cat([place.expand(b, -1, -1, -1), colour / sigma_rgb], dim=1)
