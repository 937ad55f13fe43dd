"""Networks of 0.7 to 1.1 million parameters that train on a laptop's processor.

All are made of timm's own parts, map an image of 128 px to 16 x 16 cells (stride 8), and take any
image of at least 32 px a side:

=============  ==================================================================================
``toy_cnn``    residual network; a small relative of the ResNets of CAM papers and of ASDT
``toy_mit2``   hierarchical transformer; a small relative of MiT-B1 (TSCD, AFA)
``toy_vit2``   convolutional stem and a plain transformer with a class token; a small relative of
               ViT-B (CoSA) and of the R50 hybrid (ACR)
``toy_mit``,   the same two with fewer convolutions in front. Their class maps are weak; earlier
``toy_vit``    studies ran on them
=============  ==================================================================================
"""

from collections.abc import Callable
from functools import partial

from jaxtyping import Float
from timm.models.pvt_v2 import PyramidVisionTransformerV2
from timm.models.resnet import BasicBlock
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from wsss_lab.models.pyramid import ConvBackbone, MiTBackbone
from wsss_lab.models.vit import ViTBackbone


def residual_block(width_in: int, width_out: int, stride: int = 1) -> BasicBlock:
    """Build two 3x3 convolutions with a shortcut, a 1x1 convolution where the shape changes."""
    shortcut = None
    if stride != 1 or width_in != width_out:
        shortcut = nn.Sequential(
            nn.Conv2d(width_in, width_out, 1, stride=stride, bias=False), nn.BatchNorm2d(width_out)
        )
    return BasicBlock(width_in, width_out, stride=stride, downsample=shortcut)


def residual_stage(width_in: int, width_out: int, stride: int = 1) -> nn.Sequential:
    """Two residual blocks, the first of them with the stride."""
    return nn.Sequential(
        residual_block(width_in, width_out, stride), residual_block(width_out, width_out)
    )


def conv_stem(width: int) -> nn.Sequential:
    """Build a 5x5 convolution of stride 2, batch normalisation and ReLU."""
    return nn.Sequential(
        nn.Conv2d(3, width, 5, stride=2, padding=2, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(inplace=True),
    )


def init_convolutions(module: nn.Module) -> None:
    """Apply He initialisation; every residual branch starts at zero, as in timm's ResNet."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(layer, BasicBlock):
            layer.zero_init_last()


def toy_cnn() -> ConvBackbone:
    """Build a residual network: 48, 96 and 144 channels at strides 4, 8 and 8."""
    net = nn.Sequential()
    net.add_module("stem", conv_stem(24))
    for i, (before, width, stride) in enumerate([(24, 48, 2), (48, 96, 2), (96, 144, 1)], 1):
        net.add_module(f"stage{i}", residual_stage(before, width, stride))
    init_convolutions(net)
    return ConvBackbone(
        "toy_cnn", net, ["stem"], ["stage1", "stage2", "stage3"], (48, 96, 144), (4, 8, 8)
    )


def toy_mit(drop_path: float = 0.0) -> MiTBackbone:
    """Build a hierarchical transformer: 24, 48, 80 and 128 channels at strides 4, 8, 8 and 8.

    Args:
        drop_path: largest rate of stochastic depth (rises linearly over the blocks from 0).
    """
    net = PyramidVisionTransformerV2(
        num_classes=0,
        depths=(1, 1, 1, 2),
        embed_dims=(24, 48, 80, 128),
        num_heads=(1, 2, 2, 4),
        sr_ratios=(8, 4, 2, 1),
        mlp_ratios=(4.0, 4.0, 4.0, 4.0),
        drop_path_rate=drop_path,
    )
    return MiTBackbone("toy_mit", net, (4, 2, 1, 1))


class ConvPatchEmbed(nn.Module):
    """Patch embedding of `toy_mit2`'s first stage: stem and residual block, stride 4, LayerNorm."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.stem = conv_stem(24)
        self.block = residual_block(24, width, 2)
        self.norm = nn.LayerNorm(width)

    def forward(self, image: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b gh gw d"]:
        """Embed an image, channels last."""
        return self.norm(self.block(self.stem(image)).permute(0, 2, 3, 1))


class ConvDownsample(nn.Module):
    """Patch embedding of a later stage: residual block of stride 2, LayerNorm."""

    def __init__(self, width_in: int, width_out: int) -> None:
        super().__init__()
        self.block = residual_block(width_in, width_out, 2)
        self.norm = nn.LayerNorm(width_out)

    @property
    def proj(self) -> nn.Module:
        """The convolution that has the stride, under the name that timm gives it."""
        return self.block.conv1

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b gh gw d"]:
        """Embed a map, channels last."""
        return self.norm(self.block(x).permute(0, 2, 3, 1))


def toy_mit2(drop_path: float = 0.0) -> MiTBackbone:
    """`toy_mit`, wider, with residual blocks as patch embeddings of its first two stages.

    Maps of 48, 96, 96 and 128 channels at strides 4, 8, 8 and 8.

    Args:
        drop_path: largest rate of stochastic depth (rises linearly over the blocks from 0).
    """
    net = PyramidVisionTransformerV2(
        num_classes=0,
        depths=(1, 1, 1, 2),
        embed_dims=(48, 96, 96, 128),
        num_heads=(1, 2, 2, 4),
        sr_ratios=(4, 2, 2, 1),
        mlp_ratios=(4.0, 4.0, 4.0, 4.0),
        drop_path_rate=drop_path,
    )
    embed, downsample = ConvPatchEmbed(48), ConvDownsample(48, 96)
    for part in (embed, downsample):
        init_convolutions(part)
    net.set_submodule("patch_embed", embed)
    net.set_submodule("stages.1.downsample", downsample)
    return MiTBackbone("toy_mit2", net, (4, 2, 1, 1))


class ConvEmbed(nn.Module):
    """Patch embedding by convolutions: stem and residual blocks to stride 8, then 1x1.

    A vision transformer that starts from raw patches does not learn in minutes; one that starts
    from these features does. The arguments but `stage` are those that timm's `VisionTransformer`
    passes.

    Args:
        img_size: image side in px.
        patch_size: stride of the embedding in px; 8.
        embed_dim: channels of a token.
        stage: makes the convolutions of one stage from widths and stride; `residual_block`, or
            `residual_stage` as in toy_cnn.
    """

    def __init__(
        self,
        img_size: int,
        patch_size: int,
        embed_dim: int,
        stage: Callable[[int, int, int], nn.Module] = residual_block,
        **_: object,
    ) -> None:
        super().__init__()
        self.grid_size = (img_size // patch_size, img_size // patch_size)
        self.num_patches = self.grid_size[0] * self.grid_size[1]
        self.backbone = nn.Sequential(conv_stem(24), stage(24, 48, 2), stage(48, 96, 2))
        self.proj = nn.Conv2d(96, embed_dim, 1)


def toy_vit(levels: tuple[int, ...] = (-2,), drop_path: float = 0.0) -> ViTBackbone:
    """Build a transformer: stem to stride 8, class token, learned positions, four blocks.

    Args:
        levels: blocks whose un-normalised output is returned before the last map.
        drop_path: largest rate of stochastic depth (rises linearly over the blocks from 0).
    """
    net = VisionTransformer(
        img_size=128,
        patch_size=8,
        num_classes=0,
        embed_dim=128,
        depth=4,
        num_heads=4,
        mlp_ratio=2.0,
        drop_path_rate=drop_path,
        embed_layer=ConvEmbed,
    )
    init_convolutions(net.patch_embed.backbone)
    return ViTBackbone("toy_vit", net, 8, levels=levels, min_size=32)


def toy_vit2(levels: tuple[int, ...] = (-2,), drop_path: float = 0.0) -> ViTBackbone:
    """`toy_vit` with all of toy_cnn's convolutions to stride 8, and LayerScale.

    LayerScale (Touvron et al., "Going deeper with image transformers", ICCV 2021) starts every
    attention and MLP branch at a tenth of its size: what a cell shows of itself outweighs what
    attention carries to it from elsewhere.

    Args:
        levels: see `toy_vit`.
        drop_path: see `toy_vit`.
    """
    net = VisionTransformer(
        img_size=128,
        patch_size=8,
        num_classes=0,
        embed_dim=128,
        depth=4,
        num_heads=4,
        mlp_ratio=2.0,
        init_values=0.1,
        drop_path_rate=drop_path,
        embed_layer=partial(ConvEmbed, stage=residual_stage),
    )
    init_convolutions(net.patch_embed.backbone)
    return ViTBackbone("toy_vit2", net, 8, levels=levels, min_size=32)
