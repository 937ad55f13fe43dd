"""Views of an image whose token grids can be laid over that of the image.

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

ACR's abstract mentions augmented views in general; its released code has the horizontal flip
only, done in place, one row of tokens at a time, on square grids.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Literal, get_args

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from wsss_lab.ranges import Range, Settings

Grid = tuple[int, int]


class View(Settings):
    """A geometric transformation of images with a known effect on the token grid."""

    @property
    def whole(self) -> bool:
        """Whether the view shows every token of the image."""
        return True

    def move(self, x: Tensor, unit: int = 1, dims: tuple[int, int] = (-2, -1)) -> Tensor:
        """Transform a tensor on a grid.

        Args:
            x: any tensor with a vertical and a horizontal axis.
            unit: entries per patch side: the stride for pixels, 1 for tokens.
            dims: the vertical and the horizontal axis, negative numbers.
        """
        raise TypeError(f"{type(self).__name__} must define `move`")

    def inverse(self) -> "View":
        """Return the view that undoes this one."""
        raise TypeError(f"{type(self).__name__} has no inverse")

    def grid(self, grid: Grid) -> Grid:
        """Compute the token grid (gh, gw) of the view of an image with token grid `grid`."""
        return grid

    def image(self, images: Float[Tensor, "b c h w"], stride: int) -> Float[Tensor, "b c vh vw"]:
        """Make the view of a batch of images.

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

    def valid(self, grid: Grid, device: torch.device | str | None = None) -> Bool[Tensor, " n"]:
        """Mark the tokens of the image, row-major, that the view shows, too."""
        seen = self.move(torch.ones(grid, dtype=torch.bool, device=device))
        return self.restore(seen, grid, (-2, -1), add=True).flatten()


@dataclass(frozen=True)
class Flip(View):
    """Mirror image; its own inverse. `"width"` swaps left and right, `"height"` top and bottom."""

    axis: Literal["width", "height"] = "width"

    def move(self, x: Tensor, unit: int = 1, dims: tuple[int, int] = (-2, -1)) -> Tensor:
        """Reverse one axis."""
        return x.flip(dims[1] if self.axis == "width" else dims[0])

    def inverse(self) -> View:
        """Return the same view."""
        return self


@dataclass(frozen=True)
class Turn(View):
    """Turn counter-clockwise by a number of right angles. Odd numbers swap the sides."""

    quarters: Annotated[int, Range("[-4, 4]")] = 1

    def move(self, x: Tensor, unit: int = 1, dims: tuple[int, int] = (-2, -1)) -> Tensor:
        """Turn the two axes."""
        return torch.rot90(x, self.quarters, dims)

    def inverse(self) -> View:
        """Return the same number of right angles, clockwise."""
        return Turn(-self.quarters)

    def grid(self, grid: Grid) -> Grid:
        """Swap the sides for odd numbers of right angles."""
        return (grid[1], grid[0]) if self.quarters % 2 else grid


@dataclass(frozen=True)
class Shift(View):
    """Move the content by whole patches. What leaves the frame is lost, what enters is 0."""

    down: Annotated[int, Range("[-65535, 65535]")] = 0
    right: Annotated[int, Range("[-65535, 65535]")] = 0

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
        """Return the shift back; what was lost stays lost."""
        return Shift(-self.down, -self.right)


@dataclass(frozen=True)
class Scale(View):
    """Resize by a factor; the sides are rounded to whole patches, at least one."""

    factor: Annotated[float, Range("(0, 100]")] = 0.5

    def grid(self, grid: Grid) -> Grid:
        """Multiply the sides by the factor, rounded half up."""
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

    def valid(self, grid: Grid, device: torch.device | str | None = None) -> Bool[Tensor, " n"]:
        """Mark all tokens."""
        return torch.ones(grid[0] * grid[1], dtype=torch.bool, device=device)


@cache
def overlap(old: int, new: int) -> tuple[tuple[float, ...], ...]:
    """Compute the shares of `old` equal cells of a unit segment that fall into `new` equal cells.

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


ViewName = Literal["flip", "vflip", "turn90", "translation", "scale"]
"""Names of the views that the command line and studies offer."""
NAMED_VIEWS: dict[str, tuple[View, ...]] = {
    "flip": (Flip("width"),),
    "vflip": (Flip("height"),),
    "turn90": (Turn(1), Turn(-1)),
    "translation": (Shift(4, 4), Shift(-4, 4), Shift(-4, -4), Shift(4, -4)),
    "scale": (Scale(0.75), Scale(1.25)),
}
"""Name -> views, taken in turn. The released code of ACR has `flip`; 0.75 and 1.25 stand, switched
off, in its history. The others, and their sizes, are ours."""


def views_of(names: Sequence[ViewName]) -> tuple[View, ...]:
    """List the views of some names, in turn: first those of the first name.

    Raises:
        ValueError: no name, or one that is not known.
    """
    wrong = [name for name in names if name not in NAMED_VIEWS]
    if wrong or not names:
        raise ValueError(
            f"views: expected at least one of {', '.join(get_args(ViewName))}, got {list(names)}"
        )
    return tuple(view for name in names for view in NAMED_VIEWS[name])
