"""Exact filter and exact mean field over all pairs of pixels: attention, written out.

For small images, for reading, and as reference for the lattice.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from wsss_lab.refine.crf import DenseCRF
from wsss_lab.refine.features import Images, bilateral_features, spatial_features
from wsss_lab.refine.inputs import check_images, check_match, check_probs

EXACT_LIMIT = 16384
"""Largest number of pixels for the exact forms: 1 GiB of float32 pairs."""


def exact_filter(
    features: Float[Tensor, "b d n"], values: Float[Tensor, "b c n"]
) -> Float[Tensor, "b c n"]:
    """Sum over all pairs with the weights `exp(-|f_i - f_j|^2 / 2)` of attention, not normalised.

    For small images, and as reference for the lattice.

    Raises:
        ValueError: shapes that do not fit, or more than `EXACT_LIMIT` pixels.
    """
    if values.ndim != 3 or values.shape[::2] != features.shape[::2]:
        raise ValueError(
            "values: expected (batch, channels, pixels) with batch and pixels of features "
            f"{tuple(features.shape)}, got {tuple(values.shape)}; flatten both from axis 2 on"
        )
    return values @ gaussian_kernel(features)


def gaussian_kernel(features: Float[Tensor, "b d n"]) -> Float[Tensor, "b n n"]:
    """Return `exp(-|f_i - f_j|^2 / 2)` for all pairs of at most `EXACT_LIMIT` points."""
    if features.ndim != 3 or features.shape[-1] > EXACT_LIMIT:
        raise ValueError(
            f"features: expected (batch, dimension, at most {EXACT_LIMIT} pixels), got "
            f"{tuple(features.shape)}; all pairs of more do not fit in memory, use Lattice"
        )
    rows = features.transpose(1, 2)
    distance = torch.cdist(rows, rows, compute_mode="donot_use_mm_for_euclid_dist")
    return torch.exp(-0.5 * distance.square())


def exact_mean_field(
    crf: DenseCRF, images: Images, probs: Float[Tensor, "b k1 h w"]
) -> Float[Tensor, "b k1 h w"]:
    """Run the mean field of `crf` exactly, over all pairs of pixels; differentiable.

    Mean field is attention repeated: weights from positions and colours, fixed; values are the
    current probabilities; the unary term is the residual connection; softmax runs over classes
    instead of pixels.

    Args:
        crf: the parameters.
        images: RGB in 0..255.
        probs: as for `crf`; gradients flow to them.

    Raises:
        ValueError: as `DenseCRF`, and for more than `EXACT_LIMIT` pixels.
    """
    check_images(images)
    check_probs(probs, normalised=crf.normalised)
    check_match(images, probs, ("images", "probs"))
    h, w = probs.shape[-2:]
    near = spatial_features((h, w), crf.spatial_sigma, device=probs.device)
    near = near.to(probs.dtype)
    colour = bilateral_features(images, crf.bilateral_sigma_xy, crf.bilateral_sigma_rgb)
    kernel = probs.new_zeros(())
    for features, weight in [(near, crf.spatial_weight), (colour, crf.bilateral_weight)]:
        pairs = gaussian_kernel(features.flatten(2).to(probs.dtype))
        root = pairs.sum(-1).rsqrt()
        kernel = kernel + weight * root[:, None] * pairs * root[:, :, None]
    unary = -probs.clamp(crf.clip, 1).log().flatten(2)
    q = torch.softmax(-unary, 1)
    for _ in range(crf.iterations):
        q = torch.softmax(q @ kernel - unary, 1)
    return q.view(probs.shape)
