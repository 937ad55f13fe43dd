"""How differently a transformer attends to an image and to a view of it: two losses.

They are the heart of ACR (arXiv 2308.04321), whose method is `wsss_lab.methods.acr.method`; here
they stand for themselves, because they fit any transformer whose attention can be recorded,
whatever else it is trained for (`wsss_lab.methods.common.plugin`).
"""

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from wsss_lab.methods.acr.views import (
    Flip,
    Grid,
    Scale,
    Shift,
    Turn,
    View,
    align_pair,
    align_tokens,
)
from wsss_lab.models.attention import attention_layers, record_attention
from wsss_lab.models.base import Backbone
from wsss_lab.models.shortcut import class_token_only
from wsss_lab.models.vit import ViTBackbone

Pairs = list[tuple[Float[Tensor, "b n n"], Float[Tensor, "b m m"]]]
"""Head-averaged attention of the images and of their views, one pair per layer."""
ViewName = Literal["flip", "vflip", "turn90", "translation", "scale"]
"""Views that the command line and studies can ask for."""
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
    """All views of some names, in turn: first those of the first name.

    Raises:
        ValueError: no name, or one that is not known.
    """
    wrong = [name for name in names if name not in NAMED_VIEWS]
    if wrong or not names:
        raise ValueError(
            f"views: expected at least one of {', '.join(get_args(ViewName))}, got {list(names)}"
        )
    return tuple(view for name in names for view in NAMED_VIEWS[name])


def activation_consistency(
    first: Float[Tensor, "*batch n n"],
    second: Float[Tensor, "*batch m m"],
    view: View,
    grid: Grid,
    prefix: int = 1,
    renormalise: bool = True,
) -> Float[Tensor, ""]:
    """Mean distance between where the class token looks in an image and in a view of it.

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
    """Mean distance between the attention of all pairs of patches in an image and in its view.

    Released code: ``mean |A1[1+i, 1+j] - A2[1+pi(i), 1+pi(j)]|`` over batch, layers, i and j.
    Arguments as in `activation_consistency`; `prefix` may be 0, for networks without class token.
    """
    rows = slice(prefix, None)
    a, b, valid = align_pair(first, second, view, grid, prefix, renormalise, rows)
    b = align_tokens(b, view, grid, dim=-2, add=False)
    return _mean_distance(a, b, None if valid is None else valid[:, None] & valid)


def _mean_distance(a: Tensor, b: Tensor, valid: Tensor | None) -> Float[Tensor, ""]:
    """L1 over the valid entries; 0 if there are none."""
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
    """Both losses, each the mean over the layers, without weight.

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
        ValueError: the view shows nothing of the image, so that there is nothing to compare.
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


def both_views(
    backbone: Backbone,
    images: Float[Tensor, "b 3 h w"],
    other: Float[Tensor, "b 3 vh vw"],
    layers: Sequence[int] | None = None,
    *,
    record: bool = True,
    joint: bool = True,
) -> tuple[list[Float[Tensor, "b d"] | None], Pairs, Grid]:
    """Run images and their views through a transformer and keep what the losses need.

    In a `ViTBackbone` the MLP of the last block runs on the class token alone
    (`class_token_only`): nobody here reads its patches.

    Args:
        backbone: the transformer.
        images: normalised.
        other: a view of each of them.
        layers: attention layers to record; None for all.
        record: keep attention; without, only the class tokens come back.
        joint: one batch for both where they have one size.

    Returns:
        Class tokens of images and views (None where there are none), pairs of attention in
        float32, and the token grid of the images.
    """
    joint = joint and images.shape == other.shape
    tokens: list[Tensor | None] = []
    attention: list[list[Tensor]] = []
    grids: list[Grid] = []
    for x in [torch.cat([images, other])] if joint else [images, other]:
        recorded: list[Tensor] = []
        with ExitStack() as stack:
            stack.enter_context(class_token_only(backbone))
            if record:
                recorded = stack.enter_context(record_attention(backbone, layers)).maps
            features = backbone(x)
        attention.append([head_mean(layer) for layer in recorded])
        tokens.append(features.cls)
        grids.append((features.last.shape[-2], features.last.shape[-1]))
    if joint:
        attention = [[layer.chunk(2)[i] for layer in attention[0]] for i in (0, 1)]
        both = tokens[0]
        tokens = [None, None] if both is None else list(both.chunk(2))
    first, second = attention
    return tokens, list(zip(first, second, strict=True)), grids[0]


def head_mean(attention: Float[Tensor, "b a n m"]) -> Float[Tensor, "b n m"]:
    """Mean over heads in float32.

    The sum is divided, not its terms, so that backward divides one matrix and not one per head.
    """
    return attention.sum(dim=1, dtype=torch.float32) / attention.shape[1]


def comparable_layers(backbone: Backbone, layers: Sequence[int] | None = None) -> list[int]:
    """Attention layers with a key for every query; others have no patch-to-patch matrix.

    Args:
        backbone: the network.
        layers: layers that are wanted, negative ones from the end; None for all that will do.

    Returns:
        Their numbers, ascending. In MiT those of the stages without spatial reduction.

    Raises:
        ValueError: the network has no attention, or a wanted layer does not exist or is reduced.
    """
    found = list(attention_layers(backbone).values())
    fit = [i for i, layer in enumerate(found) if getattr(layer, "sr", None) is None]
    if not fit:
        raise ValueError(
            f"backbone: {backbone.name} has no attention between all pairs of patches to compare; "
            "use a transformer (toy_vit, vit_b16, deit_*, r50_vit_b16, toy_mit, mit_b*)"
        )
    if layers is None:
        return fit
    wanted = sorted({i % len(found) for i in layers if -len(found) <= i < len(found)})
    outside = any(not -len(found) <= i < len(found) for i in layers)
    if outside or not wanted or not set(wanted) <= set(fit):
        raise ValueError(
            f"layers: expected some of {fit} of the {len(found)} attention layers of "
            f"{backbone.name} (the others attend to fewer keys than queries), got {list(layers)}"
        )
    return wanted


def prefix_of(backbone: Backbone) -> int:
    """Tokens before the patches: 1 class token in a `ViTBackbone`, else 0."""
    return int(isinstance(backbone, ViTBackbone))
