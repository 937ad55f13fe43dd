"""TSCD's network: MiT encoder, tag classifier, SegFormer decoder, affinity head; AFA's, too."""

from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from wsss_lab.cam import Fusion, multi_scale_cam
from wsss_lab.methods.tscd.config import TSCDConfig
from wsss_lab.methods.tscd.released import update_statistics
from wsss_lab.methods.tscd.views import Window
from wsss_lab.models.attention import QueriesKeys, attention_layers, record_queries_keys
from wsss_lab.models.backbones import build_backbone
from wsss_lab.models.base import Backbone
from wsss_lab.models.folded import folded
from wsss_lab.models.heads import SegFormerHead, TagHead
from wsss_lab.models.modes import evaluation_mode, in_parts, keep_running_statistics
from wsss_lab.models.weights import load_backbone_weights


class Outputs(NamedTuple):
    """Outputs of all heads for a batch, each on its own grid."""

    tag_logits: Float[Tensor, "b k"]
    cam: Float[Tensor, "b k gh gw"]
    seg_logits: Float[Tensor, "b k1 sh sw"]
    affinity: Float[Tensor, "b n n"]
    pyramid: list[Float[Tensor, "b _d _h _w"]]


class ViewOutputs(NamedTuple):
    """Outputs for both views of a batch, from which labels and losses are computed."""

    outputs: Outputs
    """Of the images, with gradients."""
    cam: Float[Tensor, "b k h w"]
    """Maps of the images, 0..1, without gradients."""
    view: Float[Tensor, "b 3 vh vw"]
    """The second view, normalised."""
    view_logits: Float[Tensor, "b k1 _sh _sw"]
    """Segmentation of the second view, with gradients."""
    view_cam: Float[Tensor, "b k vh vw"]
    """Maps of the second view, 0..1, without gradients."""
    window: Window
    """Part of the image that the second view shows."""


class AffinityHead(nn.Module):
    """1x1 convolution over raw attention maps, without these maps.

    A weighted sum of the heads' Q K^T is one product of all queries, weighted by head, and all
    keys. So the maps of the heads (16 of 1024 x 1024 in MiT-B1 at 512 px) never exist.

    Args:
        heads: attention heads of all blocks together.
        symmetric: *AFA* adds the transpose of the attention, *the released TSCD* does not.
    """

    def __init__(self, heads: int, symmetric: bool = False) -> None:
        super().__init__()
        conv = nn.Conv2d(heads, 1, 1)
        nn.init.kaiming_normal_(conv.weight, a=5**0.5, mode="fan_out")
        self.weight, self.bias = conv.weight, cast(nn.Parameter, conv.bias)
        self.symmetric = symmetric

    def forward(self, blocks: Sequence[QueriesKeys]) -> Float[Tensor, "b n n"]:
        """Compute affinity logits.

        Args:
            blocks: queries, keys (b, n, d) and number of heads of every attention block.

        Returns:
            Logits in float32: sums over a thousand products need it.
        """
        weights = self.weight.float().flatten().split([heads for _, _, heads in blocks])
        queries = [
            (q.float().unflatten(-1, (heads, -1)) * weight[:, None]).flatten(2)
            for (q, _, heads), weight in zip(blocks, weights, strict=True)
        ]
        with torch.autocast(queries[0].device.type, enabled=False):
            keys = torch.cat([k.float() for _, k, _ in blocks], dim=-1)
            logits = torch.cat(queries, dim=-1) @ keys.mT
        if self.symmetric:
            logits = logits + logits.mT
        return logits + self.bias.float()


class TSCDNetwork(nn.Module):
    """Encoder, GMP tag classifier, SegFormer decoder, affinity head.

    Args:
        backbone: a `MiTBackbone`, or a vision transformer with levels of its stem (`lite0_vit`).
        classes: foreground classes `k`.
        hidden: channels of the decoder.
        symmetric: the affinity is that of A plus its transpose (AFA) or of A alone (TSCD).
        dropout: of the decoder.

    Raises:
        ValueError: the backbone's last stage has no two attention blocks without reduction.
    """

    def __init__(
        self,
        backbone: Backbone,
        classes: int,
        hidden: int = 256,
        symmetric: bool = False,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        layers = _last_attention(backbone)
        if len(layers) < 2 or not all(_sees_all(layer) for layer in layers):
            raise ValueError(
                "backbone must end in two attention blocks without spatial reduction, got "
                f"{backbone.name}; use mit_b0..mit_b5, toy_mit2, toy_mit or lite0_vit"
            )
        self.prefix = backbone.prefix_tokens
        # MiT's tokens are images with channels last; convolutions that are not copy them twice
        self.backbone = backbone.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.tag_head = TagHead(backbone.width, classes, pool="gmp")
        self.seg_head = SegFormerHead(backbone.widths, classes + 1, hidden, dropout)
        self.affinity_head = AffinityHead(sum(int(a.num_heads) for a in layers), symmetric)

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> Outputs:
        """Compute the outputs of all heads for normalised images."""
        with record_queries_keys(_last_attention(self.backbone)) as blocks:
            pyramid = self.backbone(images).pyramid
        last = pyramid[-1]
        cells = [(q[:, self.prefix :], k[:, self.prefix :], heads) for q, k, heads in blocks]
        return Outputs(
            self.tag_head(last),
            self.tag_head.cam(last),
            self.seg_head(pyramid),
            self.affinity_head(cells).sigmoid(),
            pyramid,
        )

    def segment(
        self, images: Float[Tensor, "b 3 h w"], update: bool = True
    ) -> tuple[Float[Tensor, "b k1 sh sw"], Float[Tensor, "b k gh gw"]]:
        """Compute segmentation logits and raw maps, without affinity.

        Args:
            images: normalised images.
            update: whether this pass updates the running statistics of the decoder.
        """
        pyramid = self.backbone(images).pyramid
        with keep_running_statistics(self.seg_head.norm, not update):
            return self.seg_head(pyramid), self.tag_head.cam(pyramid[-1])

    @torch.no_grad()
    def raw_cam(
        self, images: Float[Tensor, "b 3 h w"], decoder: bool = False
    ) -> Float[Tensor, "b k gh gw"]:
        """Compute raw maps alone, without gradient.

        Args:
            images: normalised images.
            decoder: update the decoder's running statistics, as every pass of the released code
                does; costs the decoder up to its normalisation.
        """
        decoder = decoder and self.seg_head.training
        first = 0 if decoder else -1
        pyramids = [self.backbone(part).pyramid[first:] for part in in_parts(images)]
        pyramid = [torch.cat(level) for level in zip(*pyramids, strict=True)]
        if decoder:
            update_statistics(self.seg_head.norm, self.seg_head.fused_features(pyramid))
        return self.tag_head.cam(pyramid[-1])

    @torch.no_grad()
    def joined_cam(
        self,
        images: Float[Tensor, "b 3 h w"],
        fusion: Fusion,
        scale_1: Float[Tensor, "b k gh gw"] | None = None,
        noise: bool = False,
        decoder: bool = False,
    ) -> Float[Tensor, "b k h w"]:
        """Join the maps of all scales and mirror images at the size of the images, 0 or more.

        Args:
            images: normalised images.
            fusion: scales, and how they are joined.
            scale_1: raw maps of the images as they are, to spare that pass.
            noise: keep stochastic depth.
            decoder: see `raw_cam`.
        """

        def raw(views: Tensor) -> Tensor:
            done = []
            if scale_1 is not None and views.shape[-2:] == images.shape[-2:]:
                done, views = [scale_1.detach()], views[len(images) :]
            return torch.cat([*done, self.raw_cam(views, decoder)])

        with evaluation_mode(self.backbone, on=not noise), folded(self.backbone):
            return multi_scale_cam(raw, images, fusion, normalize=None)


def _last_attention(backbone: Backbone) -> list[Any]:
    """Return the attention of the last two blocks, the only one without pooled keys."""
    return list(attention_layers(backbone).values())[-2:]


def _sees_all(layer: Any) -> bool:
    """Whether a layer attends between all cells: MiT's pool keys and values but in the last."""
    return hasattr(layer, "qkv") or (hasattr(layer, "kv") and layer.sr is None)


def tscd_backbone(config: TSCDConfig, weights: str = "imagenet", **options: Any) -> Backbone:
    """Build the backbone that the settings name, with pre-trained weights.

    Args:
        config: uses `backbone` and `drop_path`.
        weights: source for `load_backbone_weights`; `random` loads nothing.
        **options: further options of the backbone.
    """
    usual: dict[str, Any] = {"drop_path": config.drop_path}
    if config.backbone == "lite0_vit":
        # its own maps have one stride, and the decoder wants finer ones. The classifier reads the
        # largest value of a channel: a final LayerNorm would lift cells that show nothing to the
        # size of those that show a class, and random blocks would hide what the stem knows
        usual = {"stem_levels": True, "final_norm": False, "residual": 0.1}
        usual["drop_path_rate"] = config.drop_path
    backbone = build_backbone(config.backbone, **(usual | options))
    return backbone if weights == "random" else load_backbone_weights(backbone, weights)
