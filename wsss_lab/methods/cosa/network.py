"""The network that CoSA has twice: one backbone, two tag classifiers, one segmentation head."""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from wsss_lab.methods.cosa.config import CoSAConfig
from wsss_lab.models.backbones import build_backbone
from wsss_lab.models.base import Backbone
from wsss_lab.models.heads import LargeFOV, TagHead
from wsss_lab.models.modes import in_parts
from wsss_lab.models.weights import load_backbone_weights


class Outputs(NamedTuple):
    """Outputs of one of the two networks for a batch, on the network's own grid."""

    tag_logits: Float[Tensor, "b k"]
    """From the last feature map."""
    aux_logits: Float[Tensor, "b k"]
    """From the feature map of an earlier block."""
    seg_logits: Float[Tensor, "b k1 gh gw"]
    """Background first."""
    cam: Float[Tensor, "b k gh gw"]
    """Raw class activation maps of the tag classifier, of any sign."""
    aux_cam: Float[Tensor, "b k _gh _gw"]
    """Raw maps of the auxiliary classifier."""
    features: Float[Tensor, "b d gh gw"]
    """The last feature map."""


class CoSANetwork(nn.Module):
    """Backbone, tag classifier, auxiliary tag classifier, LargeFOV segmentation head.

    Args:
        backbone: its last map feeds classifier and segmentation, the map before it the auxiliary
            classifier.
        classes: foreground classes `k`.
        hidden: channels of the segmentation head.

    Raises:
        ValueError: the backbone returns a single map.
    """

    def __init__(self, backbone: Backbone, classes: int, hidden: int = 512) -> None:
        super().__init__()
        if len(backbone.widths) < 2:
            raise ValueError(
                f"backbone must return two maps, {backbone.name} returns {len(backbone.widths)}; "
                "build a vision transformer with levels=(-3,)"
            )
        self.backbone = backbone
        self.tag_head = TagHead(backbone.width, classes, pool="gmp")
        self.aux_head = TagHead(backbone.widths[-2], classes, pool="gmp")
        self.seg_head = LargeFOV(backbone.width, classes + 1, hidden)

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> Outputs:
        """Run all heads on normalised images."""
        maps = self.backbone(images).pyramid
        last, aux = maps[-1], maps[-2]
        return Outputs(
            self.tag_head(last),
            self.aux_head(aux),
            self.seg_head(last),
            self.tag_head.cam(last),
            self.aux_head.cam(aux),
            last,
        )


def forward_views(
    network: nn.Module, images: Float[Tensor, "b 3 h w"], scales: tuple[float, ...]
) -> list[Outputs]:
    """Run a network on images and their mirror images at several scales.

    Args:
        network: a `CoSANetwork` or a teacher around one.
        images: normalised images.
        scales: sides relative to the image, above 0; sizes are rounded down to whole pixels.

    Returns:
        One entry per scale; each batch is [images; mirrored images], of which the second half is
        not mirrored back.
    """
    height, width = images.shape[2:]
    both = torch.cat([images, images.flip(-1)])
    views = []
    for scale in scales:
        view = F.interpolate(both, (int(height * scale), int(width * scale)), mode="bilinear")
        parts = [network(part) for part in in_parts(view)]
        views.append(Outputs(*map(torch.cat, zip(*parts, strict=True))))
    return views


def cosa_backbone(config: CoSAConfig, weights: str = "imagenet", **options: Any) -> Backbone:
    """Build the backbone that the settings name, with pre-trained weights.

    Args:
        config: uses `backbone` and `aux_level`.
        weights: source for `load_backbone_weights`; `imagenet` is the file the paper starts from
            (`vit_base_patch16_224.orig_in21k_ft_in1k`); `random` loads nothing.
        **options: further options of the backbone.
    """
    if config.backbone.startswith(("vit_", "deit_", "r50_vit")):
        options = {"levels": (config.aux_level,), "train_pos_embed": False} | options
    elif config.backbone in ("toy_vit", "toy_vit2"):
        options = {"levels": (config.aux_level,)} | options
    backbone = build_backbone(config.backbone, **options)
    return backbone if weights == "random" else load_backbone_weights(backbone, weights)
