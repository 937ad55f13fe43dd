"""Fully connected CRF by mean field (Krähenbühl and Koltun, NeurIPS 2011), in plain PyTorch.

Every pixel exchanges messages with every other through two Gaussian kernels, one over positions and
one over positions and colours. One mean-field step is

    Q <- softmax( -U + sum_m w_m D_m K_m D_m Q ),   D_m = diag(K_m 1)^(-1/2),

with U the negative log of the given probabilities and K_m Q a filter. With the kernels written out
(`refine.exact`) that is attention: queries and keys are positions and colours, values are the
class probabilities. `DenseCRF` filters with the permutohedral lattice instead.

All four papers call pydensecrf (a binding of the CRF authors' C++ code) with Potts compatibility,
diagonal kernels and symmetric normalisation; those are its conventions and ours. Both kernels
include a pixel's message to itself, as there. Differences: images of one size run as a batch; what
pydensecrf accepts without an error (NaN, logits, images in 0..1) is rejected. A paper's parameters
are `CRFS` in the file `values` of its folder.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Annotated

import torch
from jaxtyping import Float, Integer
from torch import Tensor

from wsss_lab.ranges import Factor, Positive, Range, Settings
from wsss_lab.refine.features import Images, bilateral_features, spatial_features
from wsss_lab.refine.inputs import check_images, check_match, check_probs
from wsss_lab.refine.lattice import Bags, Lattice


def unary_from_probs(
    probs: Float[Tensor, "b k1 h w"], clip: float = 1e-5
) -> Float[Tensor, "b k1 h w"]:
    """Return -log of the probabilities clipped to [clip, 1], pydensecrf's `unary_from_softmax`."""
    return -probs.float().clamp(clip, 1).log()


def unary_from_labels(
    labels: Integer[Tensor, "b h w"], classes: int, confidence: float = 0.7
) -> Float[Tensor, "b k1 h w"]:
    """Return -log of `confidence` at the label's class and of an equal share of the rest elsewhere.

    Args:
        labels: 0..classes-1. Other values (255) give all classes the same energy.
        classes: number of classes, background included.
        confidence: in (0, 1); pydensecrf's `gt_prob`.

    Raises:
        ValueError: fewer than two classes, or a confidence outside (0, 1).

    Source: pydensecrf's `unary_from_labels` with `zero_unsure=False`, as in the label CRF of AFA,
    TSCD and ACR. There 255 is an error; here such pixels are labelled by their neighbours.
    """
    if classes < 2 or not 0 < confidence < 1:
        raise ValueError(
            "classes, confidence: expected at least 2 and a number in (0, 1), got "
            f"{classes} and {confidence}; pydensecrf's default confidence is 0.7"
        )
    if labels.ndim != 3 or labels.is_floating_point() or labels.dtype == torch.bool:
        raise ValueError(
            f"labels: expected integers of shape (batch, height, width), got {labels.dtype} "
            f"{tuple(labels.shape)}; add a batch axis or convert with .long()"
        )
    labels = labels.long()[:, None]
    known = (labels >= 0) & (labels < classes)
    here = labels == torch.arange(classes, device=labels.device)[:, None, None]
    probs = torch.where(here, confidence, (1 - confidence) / (classes - 1))
    return -torch.where(known, probs, 1 / classes).log()


class KernelSum:
    """Linear map sum_m w_m D_m K_m D_m, with normalisation and weights folded into its matrices.

    The kernels share one splat and one slice over their stacked corners.
    """

    def __init__(self, lattices: Sequence[Lattice], weights: Sequence[float]) -> None:
        """Combine lattices over the same pixels; `weights` are the w_m."""
        self.blurs = [lattice.blurs for lattice in lattices]
        self.counts = [lattice.corners + 1 for lattice in lattices]  # + 1: "no such corner"
        splats, slices = [], []
        for lattice, weight in zip(lattices, weights, strict=True):
            splat, slice_ = lattice.splat, lattice.slice
            ones = slice_.weight.new_ones(slice_.weight.shape[0], 1)
            root = (lattice.filter_rows(ones) + 1e-20).rsqrt()[:, 0]  # D; 1e-20 as in pydensecrf
            splats.append(replace(splat, weight=splat.weight * root[splat.index]))
            share = (weight * lattice.scale) * root[:, None]
            slices.append(replace(slice_, weight=slice_.weight * share))
        self.splat = _stack_rows(splats)
        self.slice = _stack_columns(slices, self.counts)

    def __call__(self, rows: Float[Tensor, "bn c"]) -> Float[Tensor, "bn c"]:
        """Compute one message; pixels are rows, in and out."""
        parts = list(self.splat(rows).split(self.counts))
        for m, blurs in enumerate(self.blurs):
            for blur in blurs:
                parts[m] = blur(parts[m])
        return self.slice(torch.cat(parts))


def _stack_rows(bags: Sequence[Bags]) -> Bags:
    """Stack matrices over the same input, one above the other."""
    offsets, start = [], 0
    for bag in bags:
        assert bag.offsets is not None
        offsets.append(bag.offsets[:-1] + start)
        start += bag.index.numel()
    offsets.append(offsets[0].new_full((1,), start))
    index = torch.cat([bag.index for bag in bags])
    return Bags(index, torch.cat([bag.weight for bag in bags]), torch.cat(offsets))


def _stack_columns(bags: Sequence[Bags], counts: Sequence[int]) -> Bags:
    """Concatenate matrices with the same output side by side, for stacked inputs."""
    starts = [sum(counts[:m]) for m in range(len(counts))]
    index = torch.cat([bag.index + start for bag, start in zip(bags, starts, strict=True)], 1)
    return Bags(index, torch.cat([bag.weight for bag in bags], 1))


def mean_field(
    unary: Float[Tensor, "n k1"], kernel: KernelSum, iterations: int
) -> Float[Tensor, "n k1"]:
    """Run mean field from energies: start at softmax(-unary), then `iterations` updates."""
    q = _softmax(-unary)
    for _ in range(iterations):
        # Potts: the penalty by all other classes is a constant minus K q; softmax drops the former
        q = _softmax(kernel(q).sub_(unary))
    return q


def _softmax(logits: Float[Tensor, "n k1"]) -> Float[Tensor, "n k1"]:
    """Return the softmax of every row; may overwrite its argument.

    PyTorch's own takes five times as long on a CPU where rows are short (11.5 against 2.4 ms for
    187 500 rows of 4), and less than this from 21 entries on.
    """
    if logits.shape[1] > 16 or not logits.is_cpu:
        return logits.softmax(dim=1)
    powers = logits.sub_(logits.amax(dim=1, keepdim=True)).exp_()
    return powers.div_(powers.sum(dim=1, keepdim=True))


@lru_cache(maxsize=4)
def _spatial_lattice(
    batch: int, size: tuple[int, int], sigma: float, device: torch.device
) -> Lattice:
    """Build the position kernel, the same for all images of one size, once."""
    return Lattice(spatial_features(size, sigma, device=device).expand(batch, -1, -1, -1))


@dataclass(frozen=True)
class DenseCRF(Settings):
    """Dense CRF with one position kernel and one position-and-colour kernel.

    It is a value, not a module: there are no parameters to train. Gradients do not pass; for those
    see `exact_mean_field`.

    Attributes:
        iterations: mean-field steps.
        spatial_sigma: px; pydensecrf's `sxy` of the Gaussian term.
        spatial_weight: its `compat`.
        bilateral_sigma_xy: px; `sxy` of the bilateral term.
        bilateral_sigma_rgb: on the 0..255 scale; `srgb`.
        bilateral_weight: its `compat`.
        clip: lower bound of the probabilities.
        normalised: whether the input must sum to 1 over classes. The CAM variants of ACR and ASDT
            pass [background score; CAMs], which does not.
    """

    iterations: Annotated[int, Range("[0, 10000]")] = 10
    spatial_sigma: Positive = 3
    spatial_weight: Factor = 3
    bilateral_sigma_xy: Positive = 80
    bilateral_sigma_rgb: Positive = 13
    bilateral_weight: Factor = 10
    clip: Annotated[float, Range("(0, 1)", hint="pydensecrf's clip is 1e-5")] = 1e-5
    normalised: bool = True

    def __call__(
        self, images: Images, probs: Float[Tensor, "b k1 h w"]
    ) -> Float[Tensor, "b k1 h w"]:
        """Refine probabilities; the result is float32 and sums to 1.

        Args:
            images: RGB in 0..255, `uint8` or float (the papers' code passes `uint8`).
            probs: softmax output, or scores in [0, 1] if not `normalised`.

        Raises:
            ValueError: shapes, types or devices that do not fit; on the CPU also values that do
                not: NaN, logits, images in 0..1 or mean-subtracted.
        """
        check_probs(probs, normalised=self.normalised)
        return self.from_unary(images, unary_from_probs(probs.detach(), self.clip))

    @torch.no_grad()
    def kernel(self, images: Images) -> KernelSum:
        """Build the sum of both kernels over the pixels of some images, for mean-field steps.

        Build it once to refine several scores of the same images. Its rows are pixels, image
        by image and line by line: `unary.flatten(2).transpose(1, 2).flatten(0, 1)`. It is float32;
        switch autocast off while using it.

        Args:
            images: RGB in 0..255, `uint8` or float, of one size.

        Raises:
            ValueError: shapes, types or (on the CPU) values that do not fit.
        """
        check_images(images)
        b, _, h, w = images.shape
        with torch.autocast(images.device.type, enabled=False):
            colour = bilateral_features(
                images.float(), self.bilateral_sigma_xy, self.bilateral_sigma_rgb
            )
            near = _spatial_lattice(b, (h, w), float(self.spatial_sigma), images.device)
            weights = [self.spatial_weight, self.bilateral_weight]
            return KernelSum([near, Lattice(colour)], weights)

    @torch.no_grad()
    def from_unary(
        self, images: Images, unary: Float[Tensor, "b k1 h w"]
    ) -> Float[Tensor, "b k1 h w"]:
        """Refine from energies, such as those of `unary_from_labels`."""
        check_images(images)
        if unary.ndim != 4:
            raise ValueError(
                "unary: expected (batch, classes, height, width), got "
                f"{tuple(unary.shape)}; see unary_from_labels for label maps"
            )
        check_match(images, unary, ("images", "unary"))
        b, _, h, w = images.shape
        if unary.device.type == "cpu" and not bool(torch.isfinite(unary).all()):
            raise ValueError("unary: expected finite energies, got NaN or infinity; clip first")
        with torch.autocast(images.device.type, enabled=False):
            rows = unary.float().flatten(2).transpose(1, 2).flatten(0, 1).contiguous()
            q = mean_field(rows, self.kernel(images), self.iterations)
        return q.view(b, h, w, -1).permute(0, 3, 1, 2).contiguous()
