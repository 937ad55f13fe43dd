"""The two consistency losses of ACR: attention to an image against attention to a view of it.

`wsss_lab.methods.acr.network` records the attention, `wsss_lab.methods.acr.method` adds the losses
to those on the tags, and `wsss_lab.methods.acr.plugin` adds them to the loss of any other method
that trains a transformer.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from wsss_lab.methods.acr.alignment import Pairs, align_pair, align_tokens
from wsss_lab.methods.acr.views import Grid, View


def activation_consistency(
    first: Float[Tensor, "*batch n n"],
    second: Float[Tensor, "*batch m m"],
    view: View,
    grid: Grid,
    prefix: int = 1,
    renormalise: bool = True,
) -> Float[Tensor, ""]:
    """Compute the L1 distance of the class token's attention to an image and to a view of it.

    Released code: ``mean |A1[0, 1+j] - A2[0, 1+pi(j)]|`` over batch, layers and patches j, on
    attention averaged over the heads; gradients flow to both. No temperature, no detaching.

    Args:
        first: head-averaged attention of the images, 0..1, rows sum to 1.
        second: head-averaged attention of their views.
        view: how the second images came from the first.
        grid: (gh, gw), token grid of the images.
        prefix: tokens before the patches; the first one is the class token.
        renormalise: for views that hide tokens: restrict rows to common tokens and sum them to 1.

    Raises:
        ValueError: the matrices do not fit the grid, or there is no class token.
    """
    if prefix < 1:
        raise ValueError("prefix must be at least 1: activation consistency needs a class token")
    return _mean_distance(*align_pair(first, second, view, grid, prefix, renormalise, slice(0, 1)))


def affinity_consistency(
    first: Float[Tensor, "*batch n n"],
    second: Float[Tensor, "*batch m m"],
    view: View,
    grid: Grid,
    prefix: int = 1,
    renormalise: bool = True,
) -> Float[Tensor, ""]:
    """Compute the L1 distance of the attention of all pairs of patches, in an image and its view.

    Released code: ``mean |A1[1+i, 1+j] - A2[1+pi(i), 1+pi(j)]|`` over batch, layers, i and j.
    Arguments as in `activation_consistency`; `prefix` may be 0, for networks without class token.
    """
    rows = slice(prefix, None)
    a, b, valid = align_pair(first, second, view, grid, prefix, renormalise, rows)
    # who attends has moved, too: rows are averaged where a scale joins several of them
    b = align_tokens(b, view, grid, dim=-2, add=False)
    return _mean_distance(a, b, None if valid is None else valid[:, None] & valid)


def _mean_distance(a: Tensor, b: Tensor, valid: Tensor | None) -> Float[Tensor, ""]:
    """Average |a - b| over the valid entries; 0 if there are none."""
    if valid is None:
        return F.l1_loss(a, b)
    distance = (a - b).abs() * valid
    return distance.sum() / valid.expand_as(distance).sum().clamp(min=1)


def consistency(
    pairs: Pairs,
    view: View,
    grid: Grid,
    prefix: int = 1,
    *,
    activation: bool = True,
    affinity: bool = True,
    renormalise: bool = True,
) -> dict[str, Float[Tensor, ""]]:
    """Compute both losses, each as the mean over the layers, without weight.

    Args:
        pairs: of the layers that are compared.
        view: how the second images came from the first.
        grid: (gh, gw), token grid of the images.
        prefix: tokens before the patches.
        activation: compute `activation_consistency`.
        affinity: compute `affinity_consistency`.
        renormalise: see there.

    Returns:
        "activation" and "affinity", those that are asked for.

    Raises:
        ValueError: the view shows no token of the image, so that there is nothing to compare.
    """
    if not (view.whole or bool(view.valid(grid).any())):
        raise ValueError(
            f"view: {view} leaves nothing of a grid of {grid[0]}x{grid[1]} patches to compare; "
            "take larger images or another view"
        )
    rules = (
        ("activation", activation, activation_consistency),
        ("affinity", affinity, affinity_consistency),
    )
    return {
        name: torch.stack([rule(a, b, view, grid, prefix, renormalise) for a, b in pairs]).mean()
        for name, wanted, rule in rules
        if wanted
    }
