"""Gaussian filtering in any feature space, by the permutohedral lattice, in plain PyTorch.

The exact filter `y_i = sum_j exp(-|f_i - f_j|^2 / 2) x_j` costs n^2. The lattice (Adams, Baek and
Davis, "Fast High-Dimensional Filtering Using the Permutohedral Lattice", Eurographics 2010) costs
about n: *splat* every value onto the d + 1 corners of the simplex its feature lies in, *blur* along
the d + 1 directions of the lattice, *slice* the values back. All three are sparse matrices with a
few entries per row; each is one `embedding_bag` call: a weighted sum of rows that lie contiguously
in memory. No compiler is needed, and every sum has a fixed order, on a CPU or a GPU.

Two programs are the reference: the filter inside pydensecrf and the `bilateralfilter` extension
that AFA, ToCo, TSCD, CoSA and ASDT compile. Both use the same constants as this file: spacing
`sqrt(2/3) (d + 1)`, blur `[1/2, 1, 1/2]` (not normalised), output scale `1 / (1 + 2^-d)`. Ours
differs in how corners are found. They hash; here corners are numbered so that neighbours differ by
a constant, then sorted once, which also gives the order in which splatting reads the pixels.

The lattice is an approximation: for d = 5 the output is about 0.5 to 0.6 of the exact sum, and
correlates with it at 0.96 to 0.99. The loss of `refine.energy` inherits this scale.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from wsss_lab.refine.simplex import elevate, enclosing_simplex, find_neighbours, number_corners

LIMIT = 1e5
"""Largest feature, in standard deviations: beyond, float32 cannot place a point in its simplex."""


@dataclass(frozen=True)
class Bags:
    """Sparse matrix; output row r is the weighted sum of a bag of input rows.

    Attributes:
        index: input rows; (rows, width), or flat with `offsets`.
        weight: same shape as `index`.
        offsets: start of each bag in a flat `index`, and the end of the last; None for 2-D.
    """

    index: Int[Tensor, "..."]
    weight: Float[Tensor, "..."]
    offsets: Int[Tensor, " starts"] | None = None

    def __call__(self, rows: Float[Tensor, "n c"]) -> Float[Tensor, "rows c"]:
        """Multiply the matrix by `rows`."""
        return F.embedding_bag(
            self.index,
            rows,
            self.offsets,
            mode="sum",
            per_sample_weights=self.weight,
            include_last_offset=self.offsets is not None,
        )


def _check_features(features: Tensor) -> None:
    """Check that a lattice can be built on the features."""
    if features.ndim < 3 or 0 in features.shape:
        raise ValueError(
            f"features: expected (batch, dimension, *grid) with no empty axis, got shape "
            f"{tuple(features.shape)}; add a batch axis with features[None]"
        )
    if features.dtype not in (torch.float32, torch.float64):
        raise ValueError(
            f"features: expected float32 or float64, got {features.dtype}; convert with .float()"
        )
    if features.numel() // features.shape[1] * (features.shape[1] + 1) >= 2**31:
        raise ValueError(
            f"features: expected fewer than 2^31 corners, got shape {tuple(features.shape)}; "
            "filter fewer images at a time"
        )
    if features.device.type == "cpu" and not bool(features.detach().abs().amax() <= LIMIT):
        raise ValueError(
            f"features: expected finite numbers within {LIMIT:g} standard deviations, got NaN or "
            "more; check the images, or use a larger sigma"
        )


def _usable(flat: Float[Tensor, "d n"]) -> Bool[Tensor, " n"]:
    """Mark the points that can be placed; where values go unchecked (no CPU), others become NaN."""
    return (flat.abs() <= LIMIT).all(0)


class Lattice:
    """Permutohedral lattice of a set of features: build once, filter often.

    Attributes:
        splat: pixels to corners.
        slice: corners to pixels, not yet scaled by `scale`.
        blurs: one matrix per lattice direction.
        scale: 1 / (1 + 2^-d).
        batch: number of images.
        grid: the other axes of the features.

    Deterministic on CPU and CUDA: every sum is a gather in a fixed order. On CUDA, building
    synchronises once, for the number of corners. Gradients flow to the filtered values, not to the
    features.
    """

    def __init__(self, features: Float[Tensor, "b d *grid"]) -> None:
        """Build the lattice.

        Args:
            features: float32 or float64; images of a batch do not mix. Positions in units of the
                kernel's standard deviation, as `spatial_features` and `bilateral_features` give.

        Raises:
            ValueError: wrong shape or type; on the CPU also NaN, and features spread over so many
                standard deviations that their corners cannot be numbered. Elsewhere values are not
                checked: such points come out as NaN.
        """
        _check_features(features)
        features = features.detach()
        self.batch, d, *grid = features.shape
        self.grid = tuple(grid)
        self.scale = 1 / (1 + 2.0**-d)
        flat = features.flatten(2).transpose(0, 1).flatten(1)  # (d, b n)
        usable = _usable(flat)
        cell, rank, weight = enclosing_simplex(elevate(torch.where(usable, flat, 0)))
        image = torch.arange(self.batch, device=flat.device)
        image = image.repeat_interleave(flat.shape[1] // self.batch)
        keys, step, extent = number_corners(cell, rank, image)
        cells = extent.double().log2().sum() + math.log2(self.batch)
        if cells.device.type == "cpu" and cells >= 62:
            raise ValueError(
                f"features: expected at most 2^62 lattice cells, got 2^{float(cells):.0f}; use a "
                "larger sigma: neighbours this far apart do not see each other"
            )
        # off the CPU an error would need a synchronisation: mark the results instead
        weight = torch.where(usable & (cells < 62), weight, math.nan)
        self._connect(keys, step, weight)

    def _connect(self, keys: Tensor, step: Tensor, weight: Tensor) -> None:
        """Sort the corners once; derive splat, slice and neighbours from the order."""
        n = keys.shape[1]
        # equal keys are one lattice point; `order % n` is the pixel that a corner belongs to
        ordered, order = torch.sort(keys.flatten(), stable=True)
        new = torch.ones_like(ordered, dtype=torch.bool)
        torch.ne(ordered[1:], ordered[:-1], out=new[1:])
        start = new.nonzero()[:, 0]
        number = new.int().cumsum(0, dtype=torch.int32) - 1
        index = torch.empty_like(number)
        index[order] = number
        ends = start.new_full((2,), order.numel())  # the last bag, "no such corner", is empty
        self.splat = Bags(
            (order % n).int(), weight.flatten()[order], torch.cat([start, ends]).int()
        )
        self.slice = Bags(index.view(-1, n).t().contiguous(), weight.t().contiguous())
        neighbours = find_neighbours(ordered[start], step)
        kernel = weight.new_tensor([1.0, 0.5, 0.5]).expand(neighbours.shape[1], 3).contiguous()
        self.blurs = [Bags(axis, kernel) for axis in neighbours]

    @property
    def corners(self) -> int:
        """Number of lattice points in use, over the whole batch."""
        return self.blurs[0].index.shape[0] - 1

    @property
    def dtype(self) -> torch.dtype:
        """Type in which the filter computes."""
        return self.slice.weight.dtype

    def filter_rows(
        self, rows: Float[Tensor, "bn c"], *, transpose: bool = False
    ) -> Float[Tensor, "bn c"]:
        """Filter pixels laid out as rows; `transpose` gives the adjoint (blurs in reverse)."""
        return _FilterRows.apply(rows, self, transpose)

    def filter(self, values: Float[Tensor, "b c *grid"]) -> Float[Tensor, "b c *grid"]:
        """Filter every channel; differentiable (twice) with respect to `values`.

        Args:
            values: any channels; computed in, and returned as, the type of the features, also
                under autocast.

        Raises:
            ValueError: shape or device differ from those of the features; NaN (CPU only).
        """
        shape = (self.batch, *self.grid)
        if values.ndim < 3 or (values.shape[0], *values.shape[2:]) != shape:
            raise ValueError(
                f"values: expected (batch, channels, *grid) with batch {self.batch} and grid "
                f"{self.grid}, got {tuple(values.shape)}; resize one to the other"
            )
        if values.device != self.splat.weight.device:
            raise ValueError(
                f"values: expected device {self.splat.weight.device}, got {values.device}; "
                "move both to one device"
            )
        if values.device.type == "cpu" and not bool(torch.isfinite(values.detach()).all()):
            raise ValueError(
                "values: expected finite numbers, got NaN or infinity; find the source"
            )
        rows = values.flatten(2).transpose(1, 2).flatten(0, 1).to(self.dtype)
        out = self.filter_rows(rows).unflatten(0, (self.batch, -1))
        return out.transpose(1, 2).contiguous().view(values.shape)


def _filter_rows(rows: Tensor, lattice: Lattice, transpose: bool) -> Tensor:
    """Splat, blur, slice. Splat and slice are each other's transpose: only the blurs change."""
    with torch.autocast(rows.device.type, enabled=False):
        x = lattice.splat(rows.contiguous())
        for blur in reversed(lattice.blurs) if transpose else lattice.blurs:
            x = blur(x)
        return lattice.slice(x).mul_(lattice.scale)


class _FilterRows(torch.autograd.Function):
    """Filter with its derivative, the adjoint, whose derivative is the filter again."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, lattice: Lattice, transpose: bool) -> Tensor:
        ctx.lattice, ctx.transpose = lattice, transpose
        return _filter_rows(rows, lattice, transpose)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:  # type: ignore[override]
        return _FilterRows.apply(grad, ctx.lattice, not ctx.transpose), None, None
