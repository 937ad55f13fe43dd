"""Attention of a transformer to two views of the same images, ready for the losses."""

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from wsss_lab.methods.acr.alignment import Pairs
from wsss_lab.methods.acr.views import Grid
from wsss_lab.models.attention import attention_layers, record_attention
from wsss_lab.models.base import Backbone
from wsss_lab.models.modes import class_token_only
from wsss_lab.models.vit import ViTBackbone


@torch.no_grad()
def flatten_attention(backbone: Backbone, factor: float) -> None:
    """Multiply the queries of every attention layer by a factor, in the weights.

    Below 1 attention becomes flatter, and with it, without any second view, attention to two views
    more alike: the control for what consistency brings beyond that.

    Args:
        backbone: a vision transformer.
        factor: above 0; 1 changes nothing.

    Raises:
        ValueError: a layer projects queries, keys and values apart.
    """
    for name, layer in attention_layers(backbone).items():
        if not hasattr(layer, "qkv"):
            raise ValueError(
                f"backbone: expected a vision transformer, got {backbone.name}, whose layer {name} "
                "has no joint projection of queries, keys and values; use factor 1"
            )
        projection: Any = layer.qkv
        queries = projection.out_features // 3
        projection.weight[:queries] *= factor
        if projection.bias is not None:
            projection.bias[:queries] *= factor


def forward_views(
    backbone: Backbone,
    images: Float[Tensor, "b 3 h w"],
    other: Float[Tensor, "b 3 vh vw"],
    layers: Sequence[int] | None = None,
    *,
    record: bool = True,
    joint: bool = True,
) -> tuple[list[Float[Tensor, "b d"] | None], Pairs, Grid]:
    """Run images and their views through a transformer; record what the losses compare.

    In a `ViTBackbone` the MLP of the last block runs on the class token alone
    (`class_token_only`): its patch tokens are used nowhere.

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
    # two passes would launch every operation twice; only views of another size need their own
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
    """Average attention over the heads, in float32.

    Float32, because the losses are differences of nearly equal numbers, which bf16 rounds away. The
    sum is divided, not its terms, so that backward divides one matrix and not one per head.
    """
    return attention.sum(dim=1, dtype=torch.float32) / attention.shape[1]


def comparable_layers(backbone: Backbone, layers: Sequence[int] | None = None) -> list[int]:
    """List the attention layers with a key for every query; others have no matrix of pairs.

    Args:
        backbone: the network.
        layers: layers that are wanted, negative ones from the end; None for all that have one.

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
            "use a transformer (toy_vit2, vit_b16, deit_*, r50_vit_b16, toy_mit2, mit_b*)"
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
    """Count the tokens before the patches: 1 class token in a `ViTBackbone`, else 0."""
    return int(isinstance(backbone, ViTBackbone))
