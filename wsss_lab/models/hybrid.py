"""The R50 + ViT-B/16 hybrid, with timm's weight standardisation or with that of ACR's release."""

from functools import partial
from typing import Any

import torch.nn.functional as F
from jaxtyping import Float
from timm.layers import HybridEmbed, StdConv2dSame, pad_same
from timm.models.resnetv2 import ResNetV2
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from wsss_lab.models.base import WeightStd


class AddedEpsConv(StdConv2dSame):
    """Weight-standardised convolution that adds eps to the standard deviation.

    Older timm, which ACR ships, computes (w - mean) / (std + 1e-5); current timm computes
    (w - mean) / sqrt(variance + 1e-8). With small weights the features differ visibly.
    """

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d gh gw"]:
        """Standardise the weights per output channel, pad as TensorFlow does, convolve."""
        if self.same_pad:
            x = pad_same(x, list(self.kernel_size), list(self.stride), list(self.dilation))
        weight = self.weight.float()
        centred = weight - weight.mean(dim=(1, 2, 3), keepdim=True)
        std = weight.std(dim=(1, 2, 3), keepdim=True, correction=0)
        weight = centred / (std + self.eps)
        return F.conv2d(x, weight, self.bias, self.stride, self.padding, self.dilation, self.groups)


def hybrid_transformer(
    weight_std: WeightStd = "timm",
    layers: tuple[int, ...] = (3, 4, 9),
    channels: tuple[int, ...] = (256, 512, 1024),
    stem_width: int = 64,
    **vit: Any,
) -> VisionTransformer:
    """Build a `VisionTransformer` on top of timm's `ResNetV2` at stride 16.

    Args:
        weight_std: ``"timm"`` (for timm's own weights), or ``"added_eps"``: eps is added to the
            deviation instead of the variance, as in ACR's code.
        layers: blocks per stage of the residual network.
        channels: output channels per stage.
        stem_width: channels after the first convolution.
        **vit: arguments of `VisionTransformer`; defaults are those of ViT-B at 384 px.

    Raises:
        ValueError: unknown `weight_std`.
    """
    if weight_std not in ("timm", "added_eps"):
        raise ValueError(f"weight_std must be 'timm' or 'added_eps', got {weight_std!r}")
    conv = (
        partial(StdConv2dSame, eps=1e-8)
        if weight_std == "timm"
        else partial(AddedEpsConv, eps=1e-5)
    )
    cnn = ResNetV2(
        layers=list(layers),
        channels=channels,
        num_classes=0,
        global_pool="",
        stem_chs=stem_width,
        stem_type="same",
        preact=False,
        conv_layer=conv,
    )
    defaults = {"img_size": 384, "embed_dim": 768, "depth": 12, "num_heads": 12, "num_classes": 0}
    return VisionTransformer(
        patch_size=1, embed_layer=partial(HybridEmbed, backbone=cnn), **(defaults | vit)
    )
