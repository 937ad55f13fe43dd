"""The network that CoSA has twice: one backbone, two tag classifiers, one segmentation head."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from jaxtyping import Float
from torch import Tensor, nn

from wsss_lab.methods.cosa.config import CoSAConfig
from wsss_lab.models import keymaps
from wsss_lab.models.backbones import build_backbone
from wsss_lab.models.base import Backbone
from wsss_lab.models.heads import LargeFOV, TagHead
from wsss_lab.models.weights import load_backbone_weights, load_strictly


class Stream(NamedTuple):
    """Everything one of the two networks says about a batch, on its own grid."""

    tag_logits: Float[Tensor, "b k"]
    aux_logits: Float[Tensor, "b k"]
    seg_logits: Float[Tensor, "b k1 gh gw"]
    cam: Float[Tensor, "b k gh gw"]
    aux_cam: Float[Tensor, "b k _gh _gw"]
    features: Float[Tensor, "b d gh gw"]


class CoSANetwork(nn.Module):
    """Backbone, tag classifier, auxiliary tag classifier, LargeFOV segmentation head.

    Args:
        backbone: its last map feeds classifier and segmentation, the map before it the auxiliary
            classifier.
        classes: foreground classes `k`.
        hidden: channels of the segmentation head.
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

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> Stream:
        """Run all heads on normalised images."""
        maps = self.backbone(images).pyramid
        last, aux = maps[-1], maps[-2]
        return Stream(
            self.tag_head(last),
            self.aux_head(aux),
            self.seg_head(last),
            self.tag_head.cam(last),
            self.aux_head.cam(aux),
            last,
        )

    def load_released(self, state: Mapping[str, Tensor]) -> None:
        """Load the `model` entry of a released checkpoint, strictly.

        Args:
            state: released names, e.g. from `wsss_lab.models.weights.read_state_dict`.

        Raises:
            ValueError: a tensor is missing, left over, or of another shape.
        """
        parts = keymaps.split_checkpoint(state, keymaps.COSA)
        flat = {
            f"{part}.{key}": value
            for part, tensors in parts.items()
            for key, value in tensors.items()
        }
        load_strictly(self, flat, what="the CoSA checkpoint")


def cosa_backbone(config: CoSAConfig, weights: str = "imagenet", **options: Any) -> Backbone:
    """The backbone that the settings name, with pre-trained weights.

    Args:
        config: uses `backbone` and `aux_level`.
        weights: source for `load_backbone_weights`; `imagenet` is the file the paper starts from
            (`vit_base_patch16_224.orig_in21k_ft_in1k`); `random` loads nothing.
        **options: further options of the backbone.
    """
    if config.backbone.startswith(("vit_", "deit_", "r50_vit")):
        options = {"levels": (config.aux_level,), "train_pos_embed": False} | options
    elif config.backbone == "toy_vit":
        options = {"levels": (config.aux_level,)} | options
    backbone = build_backbone(config.backbone, **options)
    return backbone if weights == "random" else load_backbone_weights(backbone, weights)
