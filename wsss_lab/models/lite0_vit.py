"""A small transformer on EfficientNet-Lite0: the little sister of R50 + ViT-B.

ACR puts a ViT-B (12 blocks of width 768, pre-trained on ImageNet-21k) on three stages of a
ResNet-50. For photos on a processor there is no such network, so here the knowledge sits in the
stem: all of Lite0 as ImageNet trained it, dilated to stride 16 and frozen, turns an image into
1,280 maps; a 1x1 convolution takes the 192 directions that tell Lite0's classes apart; six blocks
of width 192 with a class token and learned positions follow, drawn at random and trained with the
method. They learn the 20 classes of VOC from tags in some hundred steps (record `vit_start`). A
transformer on Lite0's early stages, pre-trained on 2,451 photos, did not in 400 (declaration of the
study `photos`).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from wsss_lab.models.base import Features
from wsss_lab.models.efficientnet import EfficientNetLite0
from wsss_lab.models.folded import folded
from wsss_lab.models.lite0 import (
    LITE0_MEAN,
    LITE0_STD,
    LITE0_TAG,
    keep_statistics,
    lite0_classifier,
    read_lite0,
)
from wsss_lab.models.state import load_strictly
from wsss_lab.models.timm_nets import without
from wsss_lab.models.vit import PosEmbedMode, ViTBackbone

STEM_WIDTH = 1280
LEVEL_WIDTHS = (24, 40, 112)
LEVEL_STRIDES = (4, 8, 16)
TOKEN_SCALE = 4.2
"""Root mean square of Lite0's last map along a direction of `class_axes`, mean over the first 192
and over photos."""


class Lite0Stem(EfficientNetLite0):
    """EfficientNet-Lite0, dilated to stride 16, without classifier: 1,280 maps.

    Args:
        trained: whether gradients reach it. Without, it runs as in evaluation, which keeps nothing
            for a backward pass, and folds its batch normalisations on a CPU.
    """

    def __init__(self, trained: bool = False) -> None:
        super().__init__(output_stride=16)
        self.trained = trained
        self.requires_grad_(trained)

    def levels(self, image: Float[Tensor, "b 3 h w"]) -> list[Float[Tensor, "b _d _gh _gw"]]:
        """Compute the maps of 24, 40, 112 and 1,280 channels at strides 4, 8, 16 and 16."""
        with self._as_trained():
            return self.pyramid(image)

    def forward(self, image: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 1280 gh gw"]:
        """Compute the last map, activated, 0 to 6."""
        return self.levels(image)[-1]

    @contextmanager
    def _as_trained(self) -> Iterator[None]:
        if self.trained:
            yield
        else:
            with torch.no_grad(), folded(self):
                yield


class Lite0Embed(nn.Module):
    """Patch embedding by `Lite0Stem` and a 1x1 convolution, for timm's `VisionTransformer`."""

    def __init__(
        self, img_size: int, patch_size: int, embed_dim: int, train_stem: bool, **_: object
    ) -> None:
        super().__init__()
        self.grid_size = (img_size // patch_size, img_size // patch_size)
        self.num_patches = self.grid_size[0] * self.grid_size[1]
        self.backbone = Lite0Stem(train_stem)
        self.proj = nn.Conv2d(STEM_WIDTH, embed_dim, 1)


class Lite0ViTBackbone(ViTBackbone):
    """`Lite0Stem`, then `depth` blocks of a vision transformer at stride 16.

    Args:
        levels: see `ViTBackbone`.
        stem_levels: also return the stem's maps (24, 40 and 112 channels at strides 4, 8 and 16),
            before all others, for decoders that want finer maps.
        final_norm: see `ViTBackbone`.
        pos_mode: see `ViTBackbone`.
        train_pos_embed: see `ViTBackbone`.
        freeze_norm: keep the running statistics of the stem's batch normalisations, in training
            mode too; they are kept in any case while the stem is frozen.
        residual: factor on what blocks add at the start, in the weights of the last layer of their
            attention and of their MLP. Below 1 the last map starts near the stem's, in which
            classes are apart already.
        train_stem: train the stem with the rest. By default it stays as ImageNet left it, which
            spares its backward pass; no gradient reaches the image then.
        width: channels of a token.
        depth: blocks.
        heads: attention heads.
        **net_options: further arguments of timm's `VisionTransformer`.
    """

    input_mean = LITE0_MEAN
    input_std = LITE0_STD

    def __init__(
        self,
        levels: tuple[int, ...] = (),
        stem_levels: bool = False,
        final_norm: bool = True,
        pos_mode: PosEmbedMode = "bicubic",
        train_pos_embed: bool = True,
        freeze_norm: bool = True,
        residual: float = 1.0,
        train_stem: bool = False,
        width: int = 192,
        depth: int = 6,
        heads: int = 3,
        **net_options: Any,
    ) -> None:
        from functools import partial

        from timm.models.vision_transformer import VisionTransformer

        net = VisionTransformer(
            img_size=224,
            patch_size=16,
            num_classes=0,
            embed_dim=width,
            depth=depth,
            num_heads=heads,
            embed_layer=partial(Lite0Embed, train_stem=train_stem),
            **net_options,
        )
        super().__init__(
            "lite0_vit", net, 16, levels, final_norm, pos_mode, train_pos_embed, min_size=32
        )
        with torch.no_grad():
            for block in self.net.blocks:
                block.attn.proj.weight *= residual
                block.mlp.fc2.weight *= residual
        self.stem_levels = stem_levels
        self.freeze_norm = freeze_norm or not train_stem
        if stem_levels:
            self.widths = LEVEL_WIDTHS + self.widths
            self.strides = LEVEL_STRIDES + self.strides
        self.train(self.training)

    def train(self, mode: bool = True) -> "Lite0ViTBackbone":
        """Switch the mode; statistics of batch normalisation follow only if they are not frozen."""
        super().train(mode)
        if self.freeze_norm:
            keep_statistics(self)
        return self

    def features(self, image: Float[Tensor, "b 3 h w"]) -> Features:
        """Run stem, blocks and final LayerNorm."""
        *finer, stem = self.net.patch_embed.backbone.levels(image)
        maps, x = self.run_blocks(*self.embed_map(stem))
        return Features((finer if self.stem_levels else []) + maps, x[:, 1:], x[:, 0])


def class_axes(classifier: nn.Linear, count: int) -> Float[Tensor, "1280 a"]:
    """Directions of the last map that matter most to the classifier, scaled by how much.

    The squared distance of two vectors along them is, but for the least directions, that of their
    logits after subtraction of the logits' mean.

    Args:
        classifier: 1,280 to 1,000.
        count: directions kept, a.
    """
    weight = classifier.weight.detach() - classifier.weight.detach().mean(0)
    _, scale, axes = torch.linalg.svd(weight, full_matrices=False)
    largest = axes.gather(1, axes.abs().argmax(1, keepdim=True))
    axes = axes * largest.sign()  # which of two opposite directions comes out is the solver's whim
    return (axes[:count] * scale[:count, None]).T.contiguous()


def load_lite0_vit(backbone: Lite0ViTBackbone) -> None:
    """Load the stem from the pip package and point the 1x1 convolution along `class_axes`.

    Its first `width` directions, scaled so that tokens have a mean square of about 1; the blocks
    stay as they were drawn.

    Raises:
        FileNotFoundError: the pip package is not installed.
        ValueError: its file is damaged.
    """
    embed = backbone.net.patch_embed
    stem = without(read_lite0(), ("classifier.",))
    load_strictly(embed.backbone, stem, what=LITE0_TAG, widen=True)
    axes = class_axes(lite0_classifier(), backbone.width) / TOKEN_SCALE
    with torch.no_grad():
        embed.proj.weight.copy_(axes.T[:, :, None, None])
        embed.proj.bias.zero_()
