"""EfficientNet-Lite0 in plain torch, with the names and, bit for bit, the numbers of timm's.

timm's `tf_efficientnet_lite0` is the reference and a test compares the two. A network of its own
stands here because it is the one behind `predict` and `explain` when none is named, and importing
timm (with torchvision, sympy and triton) takes longer than importing torch and running it.

Source: M. Tan, Q. V. Le, "EfficientNet: rethinking model scaling for convolutional neural
networks", ICML 2019. The Lite variant drops squeeze-and-excitation and swaps swish for ReLU6.
"""

import math
from dataclasses import dataclass

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

NORM_EPS = 1e-3
"""Added to variances by the TensorFlow original; torch's default is 1e-5."""
STEM_WIDTH, HEAD_WIDTH = 32, 1280


@dataclass(frozen=True)
class Stage:
    """Blocks of one width; the first block has the stride, the others have 1."""

    depth: int
    kernel: int
    stride: int
    expansion: int
    width: int


STAGES = (
    Stage(1, 3, 1, 1, 16),
    Stage(2, 3, 2, 6, 24),
    Stage(2, 5, 2, 6, 40),
    Stage(3, 3, 2, 6, 80),
    Stage(3, 5, 1, 6, 112),
    Stage(4, 5, 2, 6, 192),
    Stage(1, 3, 1, 6, 320),
)
LEVELS = (1, 2, 4)
"""Stages whose outputs are levels of the pyramid: those before the next stride, as trained."""


class SameConv(nn.Conv2d):
    """Convolution without bias that pads as TensorFlow does: a side n gives ceil(n / stride).

    Where the padding is odd, which depends on n, the larger part falls on the lower right.
    """

    def __init__(
        self,
        in_width: int,
        out_width: int,
        kernel: int = 1,
        stride: int = 1,
        dilation: int = 1,
        groups: int = 1,
    ) -> None:
        reach = dilation * (kernel - 1)
        padding = reach // 2 if stride == 1 else 0  # of odd kernels: the same on all sides
        super().__init__(in_width, out_width, kernel, stride, padding, dilation, groups, bias=False)
        self.reach = reach

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b _d _h _w"]:
        """Pad by the size of the input, then convolve."""
        stride = self.stride[0]
        if stride > 1:
            lack = [
                max((-(-n // stride) - 1) * stride + self.reach + 1 - n, 0) for n in x.shape[2:]
            ]
            (top, bottom), (left, right) = ((n // 2, n - n // 2) for n in lack)
            x = F.pad(x, (left, right, top, bottom))
        return super().forward(x)


class Norm(nn.BatchNorm2d):
    """Batch normalisation, with ReLU6 unless it stands before a sum."""

    def __init__(self, width: int, activated: bool = True) -> None:
        super().__init__(width, eps=NORM_EPS)
        self.act = nn.ReLU6(inplace=True) if activated else nn.Identity()

    def forward(self, input: Tensor) -> Tensor:
        """Normalise, then cut at 0 and 6."""
        return self.act(super().forward(input))


class SeparableBlock(nn.Module):
    """Depthwise convolution, then 1x1: the only block of the first stage, without a shortcut."""

    def __init__(self, in_width: int, out_width: int, kernel: int) -> None:
        super().__init__()
        self.conv_dw = SameConv(in_width, in_width, kernel, groups=in_width)
        self.bn1 = Norm(in_width)
        self.conv_pw = SameConv(in_width, out_width)
        self.bn2 = Norm(out_width, activated=False)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b _d h w"]:
        """Filter each channel, then mix them."""
        return self.bn2(self.conv_pw(self.bn1(self.conv_dw(x))))


class InvertedBlock(nn.Module):
    """1x1 to more channels, depthwise convolution, 1x1 back; a shortcut where shapes agree."""

    def __init__(
        self, in_width: int, out_width: int, kernel: int, stride: int, dilation: int, expansion: int
    ) -> None:
        super().__init__()
        inner = in_width * expansion
        self.shortcut = stride == 1 and in_width == out_width
        self.conv_pw = SameConv(in_width, inner)
        self.bn1 = Norm(inner)
        self.conv_dw = SameConv(inner, inner, kernel, stride, dilation, groups=inner)
        self.bn2 = Norm(inner)
        self.conv_pwl = SameConv(inner, out_width)
        self.bn3 = Norm(out_width, activated=False)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b _d _h _w"]:
        """Widen, filter each channel, narrow; add the input if that is possible."""
        out = self.bn2(self.conv_dw(self.bn1(self.conv_pw(x))))
        out = self.bn3(self.conv_pwl(out))
        return out + x if self.shortcut else out


class EfficientNetLite0(nn.Module):
    """The network up to its last activated 1x1 convolution, and ImageNet's classifier if wanted.

    Args:
        output_stride: 8, 16 or 32 (as trained). Where a stage would go beyond, it does not stride;
            the blocks after its first one dilate instead.
        num_classes: outputs of the classifier; 0 builds none.

    Raises:
        ValueError: another `output_stride`.
    """

    def __init__(self, output_stride: int = 32, num_classes: int = 0) -> None:
        if output_stride not in (8, 16, 32):
            raise ValueError(f"output_stride must be 8, 16 or 32, got {output_stride}")
        super().__init__()
        self.conv_stem = SameConv(3, STEM_WIDTH, 3, stride=2)
        self.bn1 = Norm(STEM_WIDTH)
        width, reached, dilation = STEM_WIDTH, 2, 1
        stages = []
        for stage in STAGES:
            blocks: list[nn.Module] = []
            for number in range(stage.depth):
                stride = stage.stride if number == 0 else 1
                after = dilation
                if reached * stride > output_stride:
                    stride, after = 1, dilation * stride
                reached *= stride
                blocks.append(
                    SeparableBlock(width, stage.width, stage.kernel)
                    if stage.expansion == 1
                    else InvertedBlock(
                        width, stage.width, stage.kernel, stride, dilation, stage.expansion
                    )
                )
                width, dilation = stage.width, after
            stages.append(nn.Sequential(*blocks))
        self.blocks = nn.Sequential(*stages)
        self.conv_head = SameConv(width, HEAD_WIDTH)
        self.bn2 = Norm(HEAD_WIDTH)
        self.classifier = nn.Linear(HEAD_WIDTH, num_classes) if num_classes else nn.Identity()
        for layer in self.modules():
            _draw(layer)

    def pyramid(self, image: Float[Tensor, "b 3 h w"]) -> list[Float[Tensor, "b _d _h _w"]]:
        """Compute maps of 24, 40 and 112 channels and the last, of 1,280, activated: 0 to 6."""
        x = self.bn1(self.conv_stem(image))
        maps = []
        for stage in self.blocks:
            x = stage(x)
            maps.append(x)
        return [*(maps[i] for i in LEVELS), self.bn2(self.conv_head(x))]

    def forward(self, image: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b _k"]:
        """Mean of the last map, then the classifier: logits, or 1,280 features without one."""
        return self.classifier(self.pyramid(image)[-1].mean(dim=(2, 3)))


def _draw(layer: nn.Module) -> None:
    """Draw weights as the TensorFlow original: by fan-out, per group."""
    if isinstance(layer, nn.Conv2d):
        fan_out = math.prod(layer.kernel_size) * layer.out_channels // layer.groups
        nn.init.normal_(layer.weight, 0, math.sqrt(2 / fan_out))
    elif isinstance(layer, nn.Linear):
        reach = layer.out_features**-0.5
        nn.init.uniform_(layer.weight, -reach, reach)
        nn.init.zeros_(layer.bias)
