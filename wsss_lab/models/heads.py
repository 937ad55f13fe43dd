"""Heads that turn features into tag logits, activation maps and segmentation logits."""

from collections.abc import Iterator, Sequence
from functools import reduce
from typing import Literal, cast

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


class TagHead(nn.Module):
    """Head for image tags from a feature map, with their class activation maps.

    Args:
        width: channels of the feature map.
        classes: number of foreground classes k.
        pool: ``"gap"`` averages each channel over the map (logits are then the mean of the
            activation map). ``"gmp"`` takes the maximum of each *channel*, then the linear layer,
            as CoSA and TSCD do; this is not the maximum of the activation map.
        bias: add a bias to the logits.

    Raises:
        ValueError: unknown `pool`.
    """

    def __init__(
        self, width: int, classes: int, pool: Literal["gap", "gmp"] = "gap", bias: bool = False
    ) -> None:
        super().__init__()
        if pool not in ("gap", "gmp"):
            raise ValueError(f"pool must be 'gap' or 'gmp', got {pool!r}")
        self.pool = pool
        self.linear = nn.Linear(width, classes, bias=bias)

    def forward(self, features: Float[Tensor, "b d gh gw"]) -> Float[Tensor, "b k"]:
        """Return the tag logits of a feature map."""
        if self.pool == "gap":
            return self.linear(features.mean(dim=(2, 3)))
        return self.linear(F.adaptive_max_pool2d(features, 1).flatten(1))

    def cam(
        self, features: Float[Tensor, "b d gh gw"], with_bias: bool = False
    ) -> Float[Tensor, "b k gh gw"]:
        """Return raw class activation maps: the linear layer applied to every cell.

        Args:
            features: feature map before pooling.
            with_bias: add the bias of the logits to every cell (ACR's patch maps do).

        Returns:
            Maps of any sign, not normalised, differentiable in features and weights.
        """
        bias = self.linear.bias if with_bias else None
        return F.conv2d(features, self.linear.weight[:, :, None, None], bias)


class LargeFOV(nn.Module):
    """Segmentation head of DeepLab-LargeFOV as CoSA uses it: two dilated convolutions and a 1x1.

    No biases and PyTorch's default initialisation, as in CoSA's released code.

    Args:
        width: channels of the feature map.
        classes: number of output channels, background included (k1).
        hidden: channels in between.
        dilation: dilation of the 3x3 convolutions.
    """

    def __init__(self, width: int, classes: int, hidden: int = 512, dilation: int = 5) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, hidden, 3, padding=dilation, dilation=dilation, bias=False)
        self.conv2 = nn.Conv2d(hidden, hidden, 3, padding=dilation, dilation=dilation, bias=False)
        self.classify = nn.Conv2d(hidden, classes, 1, bias=False)

    def forward(self, features: Float[Tensor, "b d gh gw"]) -> Float[Tensor, "b k1 gh gw"]:
        """Return segmentation logits on the grid of the feature map."""
        return self.classify(F.relu(self.conv2(F.relu(self.conv1(features)))))


class DilatedHead(nn.Module):
    """Segmentation head of ASDT: two 3x3 convolutions of dilation 12, with biases.

    Weights start Xavier-uniform, biases at PyTorch's default, as in ASDT's released code.

    Args:
        width: channels of the feature map.
        classes: number of output channels, background included (k1).
        hidden: channels in between.
        dilation: dilation of both convolutions.
    """

    def __init__(self, width: int, classes: int, hidden: int = 512, dilation: int = 12) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, hidden, 3, padding=dilation, dilation=dilation)
        self.conv2 = nn.Conv2d(hidden, classes, 3, padding=dilation, dilation=dilation)
        for conv in (self.conv1, self.conv2):
            nn.init.xavier_uniform_(conv.weight)

    def forward(self, features: Float[Tensor, "b d gh gw"]) -> Float[Tensor, "b k1 gh gw"]:
        """Return segmentation logits on the grid of the feature map."""
        return self.conv2(F.relu(self.conv1(features)))


class ASPPHead(nn.Module):
    """Segmentation head of DeepLabV2: parallel dilated 3x3 convolutions to classes, summed.

    The larger the dilation, the larger the field of view of the branch. Weights start normal with
    deviation 0.01, biases at zero.

    Args:
        width: channels of the feature map.
        classes: number of output channels, background included (k1).
        dilations: dilations of the branches; 6, 12, 18 and 24 in the paper (ASPP-L, arXiv
            1606.00915).

    Raises:
        ValueError: no dilations, or one below 1.
    """

    def __init__(
        self, width: int, classes: int, dilations: Sequence[int] = (6, 12, 18, 24)
    ) -> None:
        super().__init__()
        if not dilations or min(dilations) < 1:
            raise ValueError(f"dilations must be numbers of at least 1, got {tuple(dilations)}")
        convs = [nn.Conv2d(width, classes, 3, padding=rate, dilation=rate) for rate in dilations]
        for conv in convs:
            nn.init.normal_(conv.weight, std=0.01)
            nn.init.zeros_(conv.bias)  # type: ignore[arg-type]
        self.branches = nn.ModuleList(convs)

    def forward(self, features: Float[Tensor, "b d gh gw"]) -> Float[Tensor, "b k1 gh gw"]:
        """Return segmentation logits on the grid of the feature map."""
        return torch.stack([branch(features) for branch in self.branches]).sum(0)


class SegFormerHead(nn.Module):
    """SegFormer's all-MLP decoder (arXiv 2105.15203, section 3.2), used by AFA and TSCD.

    One linear layer per map, upsampling to the finest map, concatenation (coarsest first), 1x1
    convolution, batch normalisation, ReLU, dropout, 1x1 convolution. Computed in another order, see
    `fused_features`.

    Args:
        widths: channels of the maps, finest first; any number of maps.
        classes: number of output channels, background included (k1).
        hidden: channels of the decoder (256 in AFA and TSCD).
        dropout: probability of dropping a whole channel before the last convolution.

    Raises:
        ValueError: no widths.
    """

    def __init__(
        self, widths: Sequence[int], classes: int, hidden: int = 256, dropout: float = 0.1
    ) -> None:
        super().__init__()
        if not widths:
            raise ValueError("widths must name the channels of at least one map, got none")
        self.widths = list(widths)
        self.lateral = nn.ModuleList(nn.Conv2d(width, hidden, 1) for width in widths)
        self.fuse = nn.Conv2d(hidden * len(widths), hidden, 1, bias=False)
        self.norm = nn.BatchNorm2d(hidden)
        self.dropout = nn.Dropout2d(dropout)
        self.classify = nn.Conv2d(hidden, classes, 1)
        nn.init.kaiming_normal_(self.fuse.weight, mode="fan_out", nonlinearity="relu")

    def fused_features(
        self, pyramid: Sequence[Float[Tensor, "b _d _gh _gw"]]
    ) -> Float[Tensor, "b d gh gw"]:
        """Compute the input of the normalisation, in another order than written.

        A 1x1 convolution and a bilinear enlargement commute, since the weights of the latter sum to
        1. So both 1x1 convolutions (which are one matrix) are applied to every map at its own size,
        then the map is enlarged and added. That spares nearly all of the head's arithmetic, and the
        concatenation (1024 channels at stride 4 in TSCD).

        Args:
            pyramid: maps, finest first, with the channels given as `widths`.

        Raises:
            ValueError: the maps do not fit `widths`.
        """
        if [m.shape[1] for m in pyramid] != self.widths:
            got = [m.shape[1] for m in pyramid]
            raise ValueError(f"pyramid must have maps of {self.widths} channels, got {got}")
        size = pyramid[0].shape[2:]
        # the released order of the concatenation is coarsest first
        mixers = self.fuse.weight.flatten(1).split(self.fuse.out_channels, dim=1)[::-1]
        laterals = cast(list[nn.Conv2d], list(self.lateral))

        def mixed() -> Iterator[Tensor]:  # one after the other: only the sum is kept
            for feature_map, lateral, mix in zip(pyramid, laterals, mixers, strict=True):
                weight, bias = mix @ lateral.weight.flatten(1), mix @ cast(Tensor, lateral.bias)
                x = F.conv2d(feature_map, weight[:, :, None, None], bias)
                if x.shape[2:] != size:
                    x = F.interpolate(x, size, mode="bilinear", align_corners=False)
                yield x

        return reduce(Tensor.add_, mixed())

    def forward(
        self, pyramid: Sequence[Float[Tensor, "b _d _gh _gw"]]
    ) -> Float[Tensor, "b k1 gh gw"]:
        """Compute segmentation logits on the grid of the finest (first) map.

        Args:
            pyramid: maps, finest first, with the channels given as `widths`.

        Raises:
            ValueError: the maps do not fit `widths`.
        """
        return self.classify(self.dropout(F.relu(self.norm(self.fused_features(pyramid)))))
