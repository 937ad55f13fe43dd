"""Local refinement: every pixel takes the mean of 48 neighbours, weighted by colour similarity.

PAMR, PAR and VARM are one algorithm. Eight neighbours at each of several distances (`dilations`)
receive weights that depend on the image alone (`local_affinity`); the masks are then replaced
several times by the weighted sum over the neighbours (`propagate`). Coordinates are clamped at the
border, and the pixel itself is not among its neighbours. Only the weights differ (`LocalKernel`).

With the colour I, its spread s over the neighbours (standard deviation with n - 1, per channel) and
means over the channels, the colour weight of neighbour n is the softmax over all n of

========  =====================================  ===============================  ===========
name      logit                                  second term                      sum of all
========  =====================================  ===============================  ===========
PAMR      -mean(abs(I_n - I) / (0.1 s + 1e-8))   none                             1
PAR       -mean((I_n - I) / (0.3 (s + 1e-8)))^2  + 0.01 softmax(position)         1.01
VARM      -mean(4 (I_n - I) / (s + 1e-8))^2      - 0.01 softmax(variation)        0.99
========  =====================================  ===============================  ===========

where the mean is taken after the square. PAMR counts the pixel itself once per dilation when it
measures s. All of this is the released code of the papers; `LocalKernel` describes its effect.

Sources: PAMR, Araslanov and Roth, CVPR 2020 (also in the released code of ACR, unused there); PAR,
AFA, Ru et al., CVPR 2022 (also in that of CoSA, unused in its training); VARM, TSCD, AAAI 2023.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from wsss_lab.ranges import Factor, Positive, Settings
from wsss_lab.refine.neighbours import (
    DILATIONS,
    check_masks,
    dilated_offsets,
    full_precision,
    propagate,
    real,
    window,
)

_BLOCK = 1 << 16
"""Pixels whose weights are computed together on the CPU; more would not fit its caches."""


@dataclass(frozen=True)
class LocalKernel(Settings):
    """Parameters of the weights that an image gives to the neighbours of a pixel.

    VARM differs little from PAR: with `variation=0` it *is* PAR at another contrast. The variation
    of a shifted image lies in 0..2, so its softmax is nearly uniform, and subtracting a hundredth
    of it makes some weights slightly negative. TSCD's released code also builds PAR's table of
    positions and never uses it; it is left out here.
    """

    contrast: Factor
    """Factor of the colour difference, which is measured in units of its spread."""
    power: Literal[1, 2] = 2
    """Absolute difference (1, PAMR) or squared difference (2)."""
    eps: Positive = 1e-8
    """Added to the spread; in units of the image."""
    centre: bool = False
    """Whether the spread counts the pixel itself, once per dilation."""
    position: Factor = 0.0
    """Weight of the second softmax, over -(distance / (its spread + 1e-8) / 0.3)^2. Added."""
    variation: Factor = 0.0
    """Weight of the third softmax, over the squared forward differences of the shifted image,
    downwards and to the right, mean over channels; 0 in its last row and column. Subtracted."""


PAMR_KERNEL = LocalKernel(contrast=10.0, power=1, eps=1e-7, centre=True)
PAR_KERNEL = LocalKernel(contrast=1 / 0.3, position=0.01)
VARM_KERNEL = LocalKernel(contrast=4.0, variation=0.01)


@torch.no_grad()
def local_affinity(
    images: Float[Tensor, "b 3 h w"],
    kernel: LocalKernel = PAR_KERNEL,
    dilations: Sequence[int] = DILATIONS,
    by_plane: bool = False,
) -> Float[Tensor, "b n h w"]:
    """Compute the weights of every pixel's neighbours from the image.

    Args:
        images: RGB in 0..1. All but the variation term is scale-free (up to `eps`).
        kernel: one of the three.
        dilations: distances in px; may exceed the image.
        by_plane: on the CPU, lay out the weights of one neighbour after the other in memory, as
            `propagate` by plane reads them, and not the neighbours of a pixel side by side.

    Returns:
        Weights of the `8 * len(dilations)` neighbours in the order of `dilated_offsets`, in
        float32 (float64 for float64 images). Without gradient, as in the originals: the image is a
        constant there.

    Raises:
        ValueError: if `images` is no float image batch or `dilations` is wrong.
    """
    offsets = dilated_offsets(dilations)
    _check_images(images)
    pad = max(int(d) for d in dilations)
    b, _, h, w = images.shape
    with full_precision(images):
        padded = F.pad(real(images), (pad,) * 4, mode="replicate")
        edges = _edges(padded) if kernel.variation else None
        if not images.is_cpu:
            weights = _block_weights(padded, edges, slice(0, h), offsets, pad, kernel)
            return weights.transpose(0, 1)
        n = len(offsets)
        if by_plane:
            weights = padded.new_empty(b, n, h, w)
        else:  # neighbours last in memory: `propagate` reads all weights of a pixel together
            weights = padded.new_empty(b, h, w, n).permute(0, 3, 1, 2)
        step = max(1, _BLOCK // (b * w))
        for top in range(0, h, step):
            rows = slice(top, min(top + step, h))
            block = _block_weights(padded, edges, rows, offsets, pad, kernel)
            weights[:, :, rows] = block.transpose(0, 1)
    return weights


class LocalRefiner(nn.Module):
    """Base of `PAMR`, `PAR` and `VARM`: refine masks by an image (resize, weigh, propagate)."""

    kernel: LocalKernel
    max_value: float | None = 1.0
    """Largest image value accepted; None where the scale does not matter."""

    def __init__(
        self, dilations: Sequence[int] = DILATIONS, iterations: int = 10, by_plane: bool = False
    ) -> None:
        """Store the settings; there are no parameters to train. `by_plane`: see `propagate`."""
        super().__init__()
        dilated_offsets(dilations)
        if iterations < 0:
            raise ValueError(f"iterations must be 0 or more, got {iterations}; the papers use 10")
        self.dilations, self.iterations = tuple(int(d) for d in dilations), iterations
        self.by_plane = by_plane

    def extra_repr(self) -> str:
        """Return the settings for `repr`."""
        return f"dilations={self.dilations}, iterations={self.iterations}"

    def forward(
        self,
        images: Float[Tensor, "b 3 h w"],
        masks: Float[Tensor, "b k _h _w"],
        check: bool | None = None,
    ) -> Float[Tensor, "b k h w"]:
        """Refine the masks.

        Args:
            images: RGB in 0..1 (`PAMR`: any scale from 0 up).
            masks: probabilities or maps, 0 or more; resized to the image (bilinear,
                align_corners=True, as all three originals do). Gradients flow through them.
            check: check the values: finite, in range, not negative. On a GPU that would
                synchronise, so None checks on the CPU only. False accepts negative masks, which
                VARM sometimes returns. Types and shapes are always checked.

        Returns:
            Refined masks at the size of the images, float32 also under autocast.

        Raises:
            ValueError: an argument has a wrong shape, type or (if checked) value.
        """
        _check_images(images)
        check_masks(masks)
        if len(masks) != len(images):
            raise ValueError(
                f"masks must come one set per image, expected {len(images)}, got {len(masks)}"
            )
        if images.is_cpu if check is None else check:
            _check_values("images", images, self.max_value, "pass RGB / 255, not normalised")
            _check_values("masks", masks, None, "pass probabilities, or check=False if meant")
        with full_precision(images):
            masks = real(masks)
            if masks.shape[2:] != images.shape[2:]:
                size = tuple(images.shape[2:])
                masks = F.interpolate(masks, size, mode="bilinear", align_corners=True)
        weights = local_affinity(images, self.kernel, self.dilations, self.by_plane)
        return propagate(masks, weights, self.dilations, self.iterations, self.by_plane)


class PAMR(LocalRefiner):
    """Pixel-adaptive mask refinement (Araslanov and Roth, CVPR 2020). Weights sum to 1.

    The scale of the image does not matter: 0..1 and 0..255 give the same result.
    """

    kernel = PAMR_KERNEL
    max_value = None


class PAR(LocalRefiner):
    """Pixel-adaptive refinement of AFA (CVPR 2022).

    Weights sum to 1.01, so masks grow by 1 % per iteration.
    """

    kernel = PAR_KERNEL


class VARM(LocalRefiner):
    """Variation-aware refinement of TSCD (AAAI 2023). Weights sum to 0.99 and may be negative."""

    kernel = VARM_KERNEL


def _check_images(images: Tensor) -> None:
    if images.ndim != 4 or images.shape[1] != 3 or images.numel() == 0:
        raise ValueError(
            f"images must be (b, 3, h, w), not empty, got {tuple(images.shape)}; add the batch axis"
        )
    if not images.is_floating_point():
        raise ValueError(f"images must be float in 0..1, got {images.dtype}; divide by 255")


def _check_values(name: str, x: Tensor, most: float | None, remedy: str) -> None:
    low, high = (float(v) for v in x.detach().aminmax())  # both are NaN if any value is
    if not (low >= 0 and high <= (torch.finfo(x.dtype).max if most is None else most + 1e-3)):
        span = "0 or more" if most is None else f"in 0..{most:g}"
        raise ValueError(f"{name} must be finite and {span}, got {low:.4g}..{high:.4g}; {remedy}")


def _edges(padded: Tensor) -> tuple[Tensor, Tensor]:
    """Return squared forward differences, down and right, mean over channels."""
    return padded.diff(dim=-2).square().mean(dim=1), padded.diff(dim=-1).square().mean(dim=1)


def _block_weights(
    padded: Tensor,
    edges: tuple[Tensor, Tensor] | None,
    rows: slice,
    offsets: list[tuple[int, int]],
    pad: int,
    kernel: LocalKernel,
) -> Float[Tensor, "n b _rows w"]:
    """Compute the weights of some rows, neighbours first."""
    b, channels, height, width = padded.shape
    width, height = width - 2 * pad, height - 2 * pad
    here = window(padded, pad, (0, 0), rows, width)
    samples = offsets + [(0, 0)] * (len(offsets) // 8 if kernel.centre else 0)
    mean, spread, work = torch.zeros_like(here), torch.zeros_like(here), torch.empty_like(here)
    for offset in samples:
        mean += window(padded, pad, offset, rows, width)
    mean /= len(samples)
    for offset in samples:  # a second pass: the mean of squares would cancel in float32
        torch.sub(window(padded, pad, offset, rows, width), mean, out=work)
        spread.addcmul_(work, work)
    spread.div_(len(samples) - 1).sqrt_()
    # the sign and the mean over channels are folded in: one product per neighbour below
    scale = (kernel.contrast / (spread + kernel.eps)) ** kernel.power / -channels
    weights = padded.new_empty(len(offsets), b, rows.stop - rows.start, width)
    for n, offset in enumerate(offsets):
        torch.sub(window(padded, pad, offset, rows, width), here, out=work)
        work = work.square_() if kernel.power == 2 else work.abs_()
        torch.sum(work.mul_(scale), dim=1, out=weights[n])
    weights = weights.softmax(dim=0)
    if kernel.position:
        table = _position_softmax(offsets).to(weights)[:, None, None, None]
        weights.add_(table, alpha=kernel.position)
    if edges is not None:
        varied = torch.zeros_like(weights)
        inside = slice(rows.start, min(rows.stop, height - 1))  # the last row has no difference
        for plane, offset in zip(varied, offsets, strict=True):
            start = plane[:, : inside.stop - inside.start]
            start.add_(window(edges[0], pad, offset, inside, width))
            plane[..., :-1].add_(window(edges[1], pad, offset, rows, width - 1))
        weights.sub_(varied.softmax(dim=0), alpha=kernel.variation)
    return weights


def _position_softmax(offsets: list[tuple[int, int]]) -> Tensor:
    """Compute PAR's second term, the same for every pixel."""
    distance = torch.tensor(offsets, dtype=torch.float64).norm(dim=1)
    return (distance / (distance.std() + 1e-8) / 0.3).square().neg().softmax(dim=0)
