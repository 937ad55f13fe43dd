"""Three networks of 0.7 to 1.1 million parameters that train on a laptop's processor.

All are made of timm's own parts, map an image of 128 px to 16 x 16 cells (stride 8), and take any
image of at least 32 px a side:

=============  ==================================================================================
``toy_cnn``    residual network; a small relative of the ResNets of CAM papers and of ASDT
``toy_mit``    hierarchical transformer; a small relative of MiT-B1 (TSCD, AFA)
``toy_vit``    convolutional stem and a plain transformer with a class token; a small relative of
               ViT-B (CoSA) and of the R50 hybrid (ACR)
=============  ==================================================================================
"""

from typing import Any

from timm.models.pvt_v2 import PyramidVisionTransformerV2
from timm.models.resnet import BasicBlock
from timm.models.vision_transformer import VisionTransformer
from torch import nn

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
        stage = nn.Sequential(residual_block(before, width, stride), residual_block(width, width))
        net.add_module(f"stage{i}", stage)
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


class ConvEmbed(nn.Module):
    """Patch embedding by convolutions: stem and two residual blocks to stride 8, then 1x1.

    A vision transformer that starts from raw patches does not learn in minutes; one that starts
    from these features does. The arguments are those that timm's `VisionTransformer` passes.
    """

    def __init__(self, img_size: int, patch_size: int, embed_dim: int, **_: Any) -> None:
        super().__init__()
        self.grid_size = (img_size // patch_size, img_size // patch_size)
        self.num_patches = self.grid_size[0] * self.grid_size[1]
        self.backbone = nn.Sequential(
            conv_stem(24), residual_block(24, 48, 2), residual_block(48, 96, 2)
        )
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
