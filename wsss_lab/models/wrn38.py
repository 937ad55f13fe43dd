"""Wide ResNet-38 (arXiv 1611.10080, model A1) at stride 8, the backbone of ASDT and its ancestors.

timm has no such network. Pre-activation blocks, no pooling; the last three stages trade stride for
dilation. Names of released checkpoints are translated by `wsss_lab.models.keymaps`.
"""

from typing import Any

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from wsss_lab.models.base import Backbone, Features


class WideBlock(nn.Module):
    """Pre-activation residual block with two 3x3 convolutions, or 1x1, 3x3, 1x1 (bottleneck).

    Each convolution is preceded by batch normalisation and ReLU. The shortcut is a 1x1 convolution
    of the *activated* input where the shape changes, and the raw input where it does not.

    Args:
        width_in: input channels.
        hidden: output channels of the convolutions but the last.
        width_out: output channels.
        stride: stride of the first convolution and the shortcut.
        dilations: dilation of each convolution.
        kernels: size of each convolution.
        dropout: probability of dropping a channel before the second and third convolution.
    """

    def __init__(
        self,
        width_in: int,
        hidden: tuple[int, ...],
        width_out: int,
        stride: int = 1,
        dilations: tuple[int, ...] = (1, 1),
        kernels: tuple[int, ...] = (3, 3),
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        widths = (width_in, *hidden, width_out)
        self.norms = nn.ModuleList(nn.BatchNorm2d(width) for width in widths[:-1])
        self.convs = nn.ModuleList()
        for i, (kernel, dilation) in enumerate(zip(kernels, dilations, strict=True)):
            conv = nn.Conv2d(
                widths[i],
                widths[i + 1],
                kernel,
                stride=stride if i == 0 else 1,
                padding=dilation * (kernel // 2),
                dilation=dilation,
                bias=False,
            )
            self.convs.append(conv)
        self.dropout = nn.Dropout2d(dropout)
        self.shortcut = (
            nn.Conv2d(width_in, width_out, 1, stride=stride, bias=False)
            if stride != 1 or width_in != width_out
            else None
        )

    def forward(
        self, x: Float[Tensor, "b d h w"]
    ) -> tuple[Float[Tensor, "b e gh gw"], Float[Tensor, "b d h w"]]:
        """Return the block's output and its activated input."""
        activated = F.relu(self.norms[0](x))
        skip = x if self.shortcut is None else self.shortcut(activated)
        y = self.convs[0](activated)
        for norm, conv in zip(self.norms[1:], self.convs[1:], strict=True):
            y = conv(self.dropout(F.relu(norm(y))))
        return y + skip, activated


def _stages(widths: tuple[int, ...]) -> nn.ModuleList:
    """Build the six stages; `widths` = channels of stem and the stages' outputs."""
    w = widths
    stages = []
    for i, blocks in ((1, 3), (2, 3), (3, 6)):
        first = WideBlock(w[i - 1], (w[i],), w[i], stride=2)
        stages.append([first] + [WideBlock(w[i], (w[i],), w[i]) for _ in range(blocks - 1)])
    mid = w[4] // 2
    stages.append(
        [WideBlock(w[3], (mid,), w[4], dilations=(1, 2))]
        + [WideBlock(w[4], (mid,), w[4], dilations=(2, 2)) for _ in range(2)]
    )
    for i, rate in ((5, 0.3), (6, 0.5)):
        hidden = (w[i] // 4, w[i] // 2)
        stages.append([WideBlock(w[i - 1], hidden, w[i], 1, (1, 4, 1), (1, 3, 1), rate)])
    return nn.ModuleList(nn.ModuleList(stage) for stage in stages)


class WideResNet38(nn.Module):
    """Network of `wrn38`: stem, six stages, batch normalisation.

    Args:
        width_factor: multiplies all channel counts; 1 is the published network (105 M parameters).
    """

    def __init__(self, width_factor: float = 1.0) -> None:
        super().__init__()
        channels = (64, 128, 256, 512, 1024, 2048, 4096)
        self.widths = tuple(max(4, int(c * width_factor)) for c in channels)
        self.stem = nn.Conv2d(3, self.widths[0], 3, padding=1, bias=False)
        self.stages: Any = _stages(self.widths)
        self.norm = nn.BatchNorm2d(self.widths[-1])

    def forward(self, image: Float[Tensor, "b 3 h w"]) -> list[Float[Tensor, "b _d gh gw"]]:
        """Return the activated outputs of stages 3, 4 and 6, all at stride 8."""
        x = self.stem(image)
        maps = []
        for i, stage in enumerate(self.stages):
            for j, block in enumerate(stage):
                x, activated = block(x)
                if j == 0 and i in (3, 4):  # the activated input of stage i closes stage i - 1
                    maps.append(activated)
        maps.append(F.relu(self.norm(x)))
        return maps


class WRN38Backbone(Backbone):
    """`WideResNet38` behind the `Backbone` interface; 512, 1024 and 4096 channels at stride 8.

    Args:
        width_factor: see `WideResNet38`.
        freeze_norm: keep all batch normalisations in evaluation mode with fixed scale and shift, as
            ASDT does (its batches are too small for statistics).
    """

    def __init__(self, width_factor: float = 1.0, freeze_norm: bool = True) -> None:
        net = WideResNet38(width_factor)
        super().__init__("wrn38", (net.widths[3], net.widths[4], net.widths[6]), (8, 8, 8), 8)
        self.net = net
        self.freeze_norm = freeze_norm
        if freeze_norm:
            for layer in self._norms():
                layer.requires_grad_(False)
            self.train(self.training)

    def _norms(self) -> list[nn.Module]:
        return [m for m in self.net.modules() if isinstance(m, nn.BatchNorm2d)]

    def train(self, mode: bool = True) -> "WRN38Backbone":
        """Switch dropout; batch normalisation follows only if it is not frozen."""
        super().train(mode)
        if self.freeze_norm:
            for layer in self._norms():
                layer.eval()
        return self

    def features(self, image: Float[Tensor, "b 3 h w"]) -> Features:
        """Run the network."""
        return Features(pyramid=self.net(image))
