"""Views of an image whose token grids can be laid over one another, and their attention with them.

A view moves pixels. When it moves whole patches to whole patches, it permutes the tokens of a
transformer, so the attention matrix of the view is that of the image with rows *and* columns
permuted. A view here is one function, `View.move`, that is applied to images (a patch is `stride`
pixels) and to token grids (a patch is one cell): pixels and tokens cannot come apart.

=======================  =========================================================  ==============
view                     what happens to the tokens                                 exact
=======================  =========================================================  ==============
`Flip`, `Turn`           a permutation                                              yes
`Shift`                  a permutation of those that stay, see `View.valid`         on valid tokens
`Scale`                  cells of two grids overlap: query rows are averaged, key   in the mass of
                         columns are added up, in proportion to the overlap         every row
=======================  =========================================================  ==============

ACR's abstract speaks of augmented views in general; its released code knows the horizontal flip
only, done in place, one row of tokens at a time, on square grids.
"""

from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

Grid = tuple[int, int]


class View:
    """A geometric transformation of images with a known effect on the token grid."""

    @property
    def whole(self) -> bool:
        """Whether every token of the image can be seen in the view."""
        return True

    def move(self, x: Tensor, unit: int = 1, dims: tuple[int, int] = (-2, -1)) -> Tensor:
        """Transform whatever lies on a grid.

        Args:
            x: any tensor with a vertical and a horizontal axis.
            unit: entries per patch side: the stride for pixels, 1 for tokens.
            dims: the vertical and the horizontal axis, negative numbers.
        """
        raise TypeError(f"{type(self).__name__} does not say how to move a grid")

    def inverse(self) -> "View":
        """The view that undoes this one."""
        raise TypeError(f"{type(self).__name__} has no inverse")

    def grid(self, grid: Grid) -> Grid:
        """Token grid (gh, gw) of the view of an image with token grid `grid`."""
        return grid

    def image(self, images: Float[Tensor, "b c h w"], stride: int) -> Float[Tensor, "b c vh vw"]:
        """The view of a batch of images.

        Args:
            images: any values; what `Shift` uncovers becomes 0, the mean colour of normalised
                images.
            stride: pixels per token.

        Raises:
            ValueError: a side is not a multiple of `stride`: patches would not fall on patches.
        """
        if images.ndim != 4 or any(side % stride for side in images.shape[-2:]):
            raise ValueError(
                f"images must be (b, c, h, w) with sides that are multiples of the stride {stride},"
                f" got {tuple(images.shape)}: crop or resize them"
            )
        return self.move(images, stride)

    def restore(self, x: Tensor, grid: Grid, dims: tuple[int, int], add: bool) -> Tensor:
        """Lay values on the view's token grid back over the image's token grid.

        Args:
            x: any tensor with the view's grid as axes `dims`.
            grid: token grid of the image.
            dims: the vertical and the horizontal axis, negative numbers.
            add: where several cells meet in one, add (attention mass) or average (rows).
        """
        return self.inverse().move(x, 1, dims)

    def valid(self, grid: Grid, device: Any = None) -> Bool[Tensor, " n"]:
        """Tokens of the image, row-major, that can also be seen in the view."""
        seen = self.move(torch.ones(grid, dtype=torch.bool, device=device))
        return self.restore(seen, grid, (-2, -1), add=True).flatten()


@dataclass(frozen=True)
class Flip(View):
    """Mirror image; its own inverse. `"width"` swaps left and right, `"height"` top and bottom."""

    axis: Literal["width", "height"] = "width"

    def __post_init__(self) -> None:
        if self.axis not in ("width", "height"):
            raise ValueError(f"axis must be 'width' or 'height', got {self.axis!r}")

    def move(self, x: Tensor, unit: int = 1, dims: tuple[int, int] = (-2, -1)) -> Tensor:
        """Reverse one axis."""
        return x.flip(dims[1] if self.axis == "width" else dims[0])

    def inverse(self) -> View:
        """Itself."""
        return self


@dataclass(frozen=True)
class Turn(View):
    """Turn counter-clockwise by a number of right angles. Odd numbers swap the sides."""

    quarters: int = 1

    def move(self, x: Tensor, unit: int = 1, dims: tuple[int, int] = (-2, -1)) -> Tensor:
        """Turn the two axes."""
        return torch.rot90(x, self.quarters, dims)

    def inverse(self) -> View:
        """The same number of right angles, clockwise."""
        return Turn(-self.quarters)

    def grid(self, grid: Grid) -> Grid:
        """Sides swapped for odd numbers of right angles."""
        return (grid[1], grid[0]) if self.quarters % 2 else grid


@dataclass(frozen=True)
class Shift(View):
    """Move the content by whole patches. What leaves the frame is lost, what enters is 0."""

    down: int = 0
    right: int = 0

    @property
    def whole(self) -> bool:
        """False unless nothing moves."""
        return self.down == 0 and self.right == 0

    def move(self, x: Tensor, unit: int = 1, dims: tuple[int, int] = (-2, -1)) -> Tensor:
        """Shift both axes by whole patches, fill with zeros."""
        for dim, step in zip(dims, (self.down, self.right), strict=True):
            side = x.shape[dim]
            gone = min(abs(step) * unit, side)
            if gone == 0:
                continue
            kept = x.narrow(dim, 0 if step > 0 else gone, side - gone)
            empty = torch.zeros_like(x.narrow(dim, 0, gone))
            x = torch.cat([empty, kept] if step > 0 else [kept, empty], dim)
        return x

    def inverse(self) -> View:
        """Back by as much; what was lost stays lost."""
        return Shift(-self.down, -self.right)


@dataclass(frozen=True)
class Scale(View):
    """Resize by a factor; the sides are rounded to whole patches, at least one."""

    factor: float = 0.5

    def __post_init__(self) -> None:
        if not self.factor > 0:
            raise ValueError(f"factor must be positive, got {self.factor}")

    def grid(self, grid: Grid) -> Grid:
        """Sides times the factor, rounded half up."""
        return (
            max(1, int(grid[0] * self.factor + 0.5)),
            max(1, int(grid[1] * self.factor + 0.5)),
        )

    def move(self, x: Tensor, unit: int = 1, dims: tuple[int, int] = (-2, -1)) -> Tensor:
        """Resize images bilinearly, with an anti-aliasing filter where they shrink."""
        if dims != (-2, -1) or x.ndim != 4:
            raise ValueError("Scale resizes (b, c, h, w) only; token maps go through `restore`")
        gh, gw = self.grid((x.shape[-2] // unit, x.shape[-1] // unit))
        size = (gh * unit, gw * unit)
        if size == tuple(x.shape[-2:]):
            return x
        return F.interpolate(x, size, mode="bilinear", align_corners=False, antialias=True)

    def restore(self, x: Tensor, grid: Grid, dims: tuple[int, int], add: bool) -> Tensor:
        """Add or average the view's cells in proportion to the area they share."""
        for dim, side in zip(dims, grid, strict=True):
            share = torch.tensor(overlap(x.shape[dim], side), dtype=x.dtype, device=x.device)
            weights = share if add else share / share.sum(1, keepdim=True)
            x = (x.transpose(dim, -1) @ weights.T).transpose(dim, -1)
        return x

    def valid(self, grid: Grid, device: Any = None) -> Bool[Tensor, " n"]:
        """All tokens."""
        return torch.ones(grid[0] * grid[1], dtype=torch.bool, device=device)


@cache
def overlap(old: int, new: int) -> tuple[tuple[float, ...], ...]:
    """Shares of `old` equal cells of a unit segment that fall into each of `new` equal cells.

    Returns:
        `new` rows of `old` numbers in 0..1; every column sums to 1: no cell is lost or doubled.
    """
    # in units of 1 / (old * new), where all borders are whole numbers
    return tuple(
        tuple(
            max(0, min(old * (i + 1), new * (j + 1)) - max(old * i, new * j)) / new
            for j in range(old)
        )
        for i in range(new)
    )


def align_tokens(
    x: Float[Tensor, "..."], view: View, grid: Grid, dim: int = -1, add: bool = True
) -> Float[Tensor, "..."]:
    """Lay one patch-token axis of a view over the tokens of the image.

    Args:
        x: any tensor whose axis `dim` runs over the patch tokens of the view, row-major.
        view: the view.
        grid: (gh, gw), token grid of the image, not of the view.
        dim: -1 or -2.
        add: see `View.restore`; True for key columns, False for query rows.

    Returns:
        The same with gh * gw entries along `dim`; 0 where the view does not show the token.
    """
    spatial = (-2, -1) if dim == -1 else (-3, -2)
    return view.restore(x.unflatten(dim, view.grid(grid)), grid, spatial, add).flatten(*spatial)


def align_attention(
    attention: Float[Tensor, "*batch m m"], view: View, grid: Grid, prefix: int = 1
) -> Float[Tensor, "*batch n n"]:
    """Lay the attention matrix of a view over that of the image, token on token.

    The class token is no place and stays where it is; its row and its column are aligned like any
    other. ACR, released code: ``A2[0, 1 + pi(j)]`` and ``A2[1 + pi(i), 1 + pi(j)]`` with the
    mirroring permutation pi; nothing is renormalised. Row sums are kept by every view whose `whole`
    is true.

    Args:
        attention: attention of the view: rows are queries, columns keys.
        view: the view it was computed on.
        grid: (gh, gw), token grid of the image, not of the view.
        prefix: tokens before the patches: 1 class token, 0 in MiT, 2 in distilled DeiT.

    Returns:
        Attention on the tokens of the image, differentiable. Rows and columns of tokens that the
        view does not show are 0: leave them out by `view.valid(grid)`.

    Raises:
        ValueError: the matrix does not have the size that the grid asks for.
    """
    check_attention(attention, view.grid(grid), prefix)
    columns = align_tokens(attention[..., prefix:], view, grid)
    x = torch.cat([attention[..., :prefix], columns], -1) if prefix else columns
    rows = align_tokens(x[..., prefix:, :], view, grid, dim=-2, add=False)
    return torch.cat([x[..., :prefix, :], rows], -2) if prefix else rows


def align_pair(
    first: Float[Tensor, "*batch n n"],
    second: Float[Tensor, "*batch m m"],
    view: View,
    grid: Grid,
    prefix: int = 1,
    renormalise: bool = True,
    rows: slice = slice(None),
) -> tuple[Float[Tensor, "*batch r p"], Float[Tensor, "*batch s p"], Bool[Tensor, " p"] | None]:
    """Patch columns of an image's and its view's attention, laid over one another, in float32.

    Args:
        first: attention of the image.
        second: attention of the view.
        view: how the view came from the image.
        grid: (gh, gw), token grid of the image.
        prefix: tokens before the patches.
        renormalise: where the view hides tokens, divide the rows of both by what they give to the
            prefix and to common patches: a softmax over common tokens only is compared.
        rows: query rows to return; they are not aligned (`align_tokens` with ``dim=-2`` does).

    Returns:
        Columns of the image, columns of the view, and which patches both show; None for all.
        Columns that do not count are 0.

    Raises:
        ValueError: the matrices do not fit the grid.
    """
    check_attention(first, grid, prefix)
    check_attention(second, view.grid(grid), prefix)
    first, second = first[..., rows, :].float(), second[..., rows, :].float()
    a, b = first[..., prefix:], align_tokens(second[..., prefix:], view, grid)
    if view.whole:
        return a, b, None
    valid = view.valid(grid, first.device)
    a, b = a * valid, b * valid
    if renormalise:
        tiny = torch.finfo(torch.float32).tiny
        a = a / (a.sum(-1, True) + first[..., :prefix].sum(-1, True)).clamp(min=tiny)
        b = b / (b.sum(-1, True) + second[..., :prefix].sum(-1, True)).clamp(min=tiny)
    return a, b, valid


def check_attention(attention: Tensor, grid: Grid, prefix: int) -> None:
    """Refuse an attention matrix that does not fit a token grid.

    Raises:
        ValueError: with the expected and the given size.
    """
    n = prefix + grid[0] * grid[1]
    if attention.ndim < 2 or tuple(attention.shape[-2:]) != (n, n):
        raise ValueError(
            f"attention must end in ({n}, {n}): {prefix} prefix token(s) and a {grid[0]}x{grid[1]} "
            f"grid; got {tuple(attention.shape)}. Pass the grid of the un-transformed image, the "
            "right prefix, and only layers with as many keys as queries"
        )
