"""Class maps of a transformer in all variants of the study of localisation, from one pass."""

from dataclasses import dataclass
from typing import get_args

import torch
from jaxtyping import Float
from torch import Tensor

from wsss_lab.cam.attention_maps import attention_gradients, attention_rollout
from wsss_lab.cam.fusion import fuse_cams
from wsss_lab.cam.maps import normalize_cam
from wsss_lab.methods.acr.localisation import Variant, layer_map, record_for_localisation, spread
from wsss_lab.methods.acr.method import ACR
from wsss_lab.methods.acr.values import CAM_FUSION, NORMALIZATION
from wsss_lab.models.attention import attention_layers

OTHERS = ("attention roll-out", "tag head on patches")


@dataclass(frozen=True)
class Row:
    """One kind of class map."""

    name: str
    variant: str
    start_layer: int | None
    """Start layer, negative from the end; None for kinds without one."""
    spread: bool | None


def rows_of(depth: int) -> list[Row]:
    """List all kinds for a network of `depth` attention layers, in the order of `all_maps`."""
    rows = [
        Row(f"{variant}, last {last}{', spread' if wide else ''}", variant, -last, wide)
        for wide in (False, True)
        for variant in get_args(Variant)
        for last in range(1, depth + 1)
    ]
    return rows + [Row(name, name, None, None) for name in OTHERS]


def all_maps(
    method: ACR, images: Float[Tensor, "b 3 h w"], tags: Float[Tensor, "b k"]
) -> Float[Tensor, "r b k h w"]:
    """Compute class maps of all rows, 0..1, from one pass and a backward pass per tag.

    The gradients of a layer do not depend on the start layer, and the maps of several layers are
    sums: so all start layers come from one running sum, beginning with the last layer.

    Args:
        method: trained method, in eval mode.
        images: RGB in [0, 1]; sides that are multiples of the stride.
        tags: true tags; maps of other classes are 0.
    """
    depth = len(attention_layers(method.backbone))
    both, wanted = torch.cat([images, images.flip(-1)]), tags.repeat(2, 1)
    with record_for_localisation(method, -depth) as trace:
        features = method.backbone(method.prepare(both))
        logits = method.head.linear(features.cls)
    grid = (features.last.shape[-2], features.last.shape[-1])
    gradients, index, present = attention_gradients(logits, trace.attention, wanted)
    found: list[Tensor] = []
    for variant in get_args(Variant):
        layers = [
            layer_map(gradient, layer[..., :1, :], variant)[..., 0, 1:]  # (m, 2b, p)
            for gradient, layer in zip(gradients, trace.attention, strict=True)
        ]
        found += torch.stack(layers[::-1]).cumsum(0).transpose(1, 2).detach()
    narrow = torch.stack(found, 1)  # (2b, variants x start layers, m, p)
    assert trace.affinity is not None
    wide = spread(narrow.flatten(1, 2), trace.affinity).view_as(narrow)
    with torch.no_grad():
        seen = attention_rollout(trace.attention)[:, None].expand(-1, index.shape[1], -1)
        patch = method.patch_cam(both).flatten(2)
        patch = patch.gather(1, index[:, :, None].expand(-1, -1, patch.shape[2]))
    maps = torch.cat([narrow, wide, seen[:, None], patch[:, None]], 1)
    rows, m = maps.shape[1:3]
    size = (images.shape[2], images.shape[3])
    cam = fuse_cams([maps.flatten(1, 2).unflatten(2, grid)], size, CAM_FUSION)
    cam = normalize_cam(cam, NORMALIZATION).unflatten(1, (rows, m)).transpose(0, 1)
    index, present = index[: len(images)], present[: len(images)]
    out = cam.new_zeros(rows, *tags.shape, *size)
    where = index[None, :, :, None, None].expand(rows, -1, -1, *size)
    return out.scatter_add_(2, where, cam * present[:, :, None, None])
