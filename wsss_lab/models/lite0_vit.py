"""A small transformer on the early stages of EfficientNet-Lite0: the little sister of R50 + ViT-B.

ACR puts a ViT-B (12 blocks of width 768) on three stages of a ResNet-50. Here, five stages of
EfficientNet-Lite0 take an image to stride 16 and 112 channels, and six blocks of width 192 with a
class token and learned positions follow: 3.2 million parameters, small enough for a processor.
"""

from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from wsss_lab.models.base import Features
from wsss_lab.models.lite0 import (
    LITE0_MEAN,
    LITE0_STD,
    LITE0_TAG,
    keep_statistics,
    lite0_stem,
    read_lite0,
)
from wsss_lab.models.state import load_strictly, read_state_dict
from wsss_lab.models.vit import PosEmbedMode, ViTBackbone

STEM_STAGES = 5
STEM_WIDTHS = (24, 40, 112)
STEM_STRIDES = (4, 8, 16)
STEM_DEVIATION = 6.5
"""Standard deviation of the pre-trained stem's map over photos."""
STEM_PREFIX = "patch_embed.backbone."
"""Prefix of the stem's tensors in `Lite0ViTBackbone.net`."""
HEADS_PREFIX = "heads."
"""Prefix of the two linear heads of pre-training in the packaged file; no backbone has them."""
PACKAGED = Path(__file__).parent.parent / "weights" / "lite0_vit.safetensors"
"""The transformer's tensors in half precision."""


class Lite0Stem(nn.Module):
    """Stages 1 to 5 of timm's `tf_efficientnet_lite0` under timm's names: 112 maps at stride 16."""

    def __init__(self) -> None:
        import timm

        super().__init__()
        net: Any = timm.create_model("tf_efficientnet_lite0")
        self.conv_stem, self.bn1 = net.conv_stem, net.bn1
        self.blocks = net.blocks[:STEM_STAGES]

    def levels(self, image: Float[Tensor, "b 3 h w"]) -> list[Float[Tensor, "b _d _gh _gw"]]:
        """Compute the maps of 24, 40 and 112 channels at strides 4, 8 and 16."""
        maps = lite0_stem(self, image, STEM_STAGES)
        return [maps[1], maps[2], maps[4]]

    def forward(self, image: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 112 gh gw"]:
        """Compute the map at stride 16."""
        return lite0_stem(self, image, STEM_STAGES)[-1]


class Lite0Embed(nn.Module):
    """Patch embedding by `Lite0Stem` and a 1x1 convolution, for timm's `VisionTransformer`."""

    def __init__(self, img_size: int, patch_size: int, embed_dim: int, **_: object) -> None:
        super().__init__()
        self.grid_size = (img_size // patch_size, img_size // patch_size)
        self.num_patches = self.grid_size[0] * self.grid_size[1]
        self.backbone = Lite0Stem()
        self.proj = nn.Conv2d(STEM_WIDTHS[-1], embed_dim, 1)
        with torch.no_grad():  # else tokens start far larger than what blocks add to them
            self.proj.weight.div_(STEM_DEVIATION)


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
            mode too.
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
        width: int = 192,
        depth: int = 6,
        heads: int = 3,
        **net_options: Any,
    ) -> None:
        from timm.models.vision_transformer import VisionTransformer

        net = VisionTransformer(
            img_size=224,
            patch_size=16,
            num_classes=0,
            embed_dim=width,
            depth=depth,
            num_heads=heads,
            embed_layer=Lite0Embed,
            **net_options,
        )
        super().__init__(
            "lite0_vit", net, 16, levels, final_norm, pos_mode, train_pos_embed, min_size=32
        )
        self.stem_levels = stem_levels
        self.freeze_norm = freeze_norm
        if stem_levels:
            self.widths = STEM_WIDTHS + self.widths
            self.strides = STEM_STRIDES + self.strides

    def train(self, mode: bool = True) -> "Lite0ViTBackbone":
        """Switch the mode; statistics of batch normalisation follow only if they are not frozen."""
        super().train(mode)
        if self.freeze_norm:
            keep_statistics(self)
        return self

    def tokens_of(
        self, stem: Float[Tensor, "b 112 gh gw"]
    ) -> tuple[list[Float[Tensor, "b d gh gw"]], Float[Tensor, "b n d"]]:
        """Run the transformer on the stem's map.

        Args:
            stem: output of `Lite0Stem`.

        Returns:
            Maps of the blocks in `levels` and the last map; class token and patch tokens after the
            last block, normalised if `final_norm`.
        """
        return self.run_blocks(*self.embed_map(stem))

    def features(self, image: Float[Tensor, "b 3 h w"]) -> Features:
        """Run stem, blocks and final LayerNorm."""
        finer = self.net.patch_embed.backbone.levels(image)
        maps, x = self.tokens_of(finer[-1])
        return Features((finer if self.stem_levels else []) + maps, x[:, 1:], x[:, 0])


def load_stem(backbone: Lite0ViTBackbone) -> None:
    """Load the stem's tensors from the pip package, strictly; the transformer stays as it is.

    Raises:
        FileNotFoundError: the package is not installed.
    """
    stem = backbone.net.patch_embed.backbone
    early = ("conv_stem.", "bn1.", *(f"blocks.{i}." for i in range(STEM_STAGES)))
    state = {name: value for name, value in read_lite0().items() if name.startswith(early)}
    load_strictly(stem, state, what=LITE0_TAG, widen=True)


def load_lite0_vit(backbone: Lite0ViTBackbone) -> None:
    """Load the stem from the pip package and the transformer that comes with this package.

    The transformer's file holds only what was trained here; see its card, `lite0_vit.json`.

    Raises:
        FileNotFoundError: the pip package or the packaged file is absent.
        ValueError: a tensor does not fit (another `width` or `depth`).
    """
    load_stem(backbone)
    stem = backbone.net.patch_embed.backbone.state_dict()
    trained = read_state_dict(PACKAGED)
    state = {name: v for name, v in trained.items() if not name.startswith(HEADS_PREFIX)}
    state |= {STEM_PREFIX + name: value for name, value in stem.items()}
    load_strictly(backbone.net, state, what=f"packaged weights {PACKAGED.name}", widen=True)
