"""The network of the base: one backbone, a tag classifier, a segmentation head."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from wsss_lab.cam import Fusion, multi_scale_cam
from wsss_lab.methods.mix.config import MixConfig
from wsss_lab.models.backbones import build_backbone
from wsss_lab.models.base import Backbone
from wsss_lab.models.heads import SegFormerHead, TagHead
from wsss_lab.models.modes import evaluation_mode, in_parts
from wsss_lab.models.weights import load_backbone_weights


class Outputs(NamedTuple):
    """Outputs of the network for a batch, each on its own grid."""

    tag_logits: Float[Tensor, "b k"]
    cam: Float[Tensor, "b k gh gw"]
    """Raw class activation maps, of any sign."""
    seg_logits: Float[Tensor, "b k1 sh sw"]
    """Background first."""
    features: Float[Tensor, "b d gh gw"]
    """The last feature map, which the classifier reads."""


class MixNetwork(nn.Module):
    """Backbone, tag classifier on its last map, SegFormer decoder on all of them.

    The decoder drops nothing, so that a technique without random numbers changes none.

    Args:
        backbone: with two maps or more.
        classes: foreground classes `k`.
        config: uses `pool`, `hidden` and `scales`.

    Raises:
        ValueError: the backbone returns a single map.
    """

    def __init__(self, backbone: Backbone, classes: int, config: MixConfig) -> None:
        super().__init__()
        if len(backbone.widths) < 2:
            raise ValueError(
                f"backbone: expected one with two maps or more, {backbone.name} returns "
                f"{len(backbone.widths)}; take toy_mit2, toy_vit2 or toy_cnn"
            )
        self.backbone = backbone
        self.tag_head = TagHead(backbone.width, classes, pool=config.pool)
        self.seg_head = SegFormerHead(backbone.widths, classes + 1, config.hidden, dropout=0.0)
        self.fusion = Fusion(scales=config.scales)

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> Outputs:
        """Run all heads on normalised images."""
        pyramid = self.backbone(images).pyramid
        last = pyramid[-1]
        return Outputs(self.tag_head(last), self.tag_head.cam(last), self.seg_head(pyramid), last)

    @torch.no_grad()
    def joined_cam(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b k h w"]:
        """Join the maps of all scales and mirror images at the size of the images, 0 or more.

        In evaluation mode: labels shall not depend on the other images of a batch.
        """

        def raw(views: Tensor) -> Tensor:
            maps = [self.tag_head.cam(self.backbone(part).last) for part in in_parts(views)]
            return torch.cat(maps)

        with evaluation_mode(self):
            return multi_scale_cam(raw, images, self.fusion, normalize=None)

    @torch.no_grad()
    def segment(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b k1 sh sw"]:
        """Compute segmentation logits in evaluation mode, to make labels from."""
        with evaluation_mode(self):
            return self.seg_head(self.backbone(images).pyramid)


def mix_backbone(config: MixConfig, weights: str = "imagenet") -> Backbone:
    """Build the backbone that the settings name, with pre-trained weights.

    Args:
        config: uses `backbone`.
        weights: source for `load_backbone_weights`; `random` loads nothing.
    """
    # the maps of this one have one stride; the decoder wants finer ones, too
    options = {"stem_levels": True} if config.backbone == "lite0_vit" else {}
    backbone = build_backbone(config.backbone, **options)
    return backbone if weights == "random" else load_backbone_weights(backbone, weights)
