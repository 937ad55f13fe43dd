"""Attention matrices of a view laid over those of the image, token on token.

The view permutes the tokens, so the matrix of the view is that of the image with rows *and* columns
permuted. `align_attention` is the whole matrix, as in the equations of the chapter. The losses need
its class row or its patch rows only, with what both views show: `align_pair`.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from wsss_lab.methods.acr.views import Grid, View

Pairs = list[tuple[Float[Tensor, "b n n"], Float[Tensor, "b m m"]]]
"""Head-averaged attention of the images and of their views, one pair per layer."""


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
    """Lay the patch columns of a view's attention over those of the image, in float32.

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
