"""Stage-wise networks of timm (MiT, ResNet) behind the `Backbone` interface."""

from collections.abc import Sequence
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from wsss_lab.models.base import Backbone, Features


class MiTBackbone(Backbone):
    """Hierarchical transformer: timm's PVTv2, which with MLP ratio 4 is SegFormer's MiT.

    Args:
        name: name of the backbone.
        net: timm `PyramidVisionTransformerV2`.
        stage_strides: stride of each stage's patch embedding, for example (4, 2, 2, 2) for
            SegFormer and (4, 2, 2, 1) for AFA and TSCD. Stage 1 is always 4.

    Raises:
        ValueError: `stage_strides` does not fit the network, or stage 1 is not 4.
    """

    def __init__(self, name: str, net: Any, stage_strides: Sequence[int]) -> None:
        stages = len(net.stages)
        if (
            len(stage_strides) != stages
            or stage_strides[0] != 4
            or any(s not in (1, 2) for s in stage_strides[1:])
        ):
            raise ValueError(
                f"stage_strides must be 4 followed by {stages - 1} numbers out of {{1, 2}}, "
                f"got {tuple(stage_strides)}"
            )
        strides = [stage_strides[0]]
        for stage, step in zip(list(net.stages)[1:], stage_strides[1:], strict=True):
            stage.downsample.proj.stride = (step, step)
            strides.append(strides[-1] * step)
        widths = tuple(info["num_chs"] for info in net.feature_info)
        # A spatial-reduction convolution floors: its stage must be at least `ratio` cells wide.
        ratios = [getattr(stage.blocks[0].attn.sr, "stride", (1,))[0] for stage in net.stages]
        needed = max((r - 1) * s + 1 for r, s in zip(ratios, strides, strict=True))
        super().__init__(name, widths, tuple(strides), max(needed, 4))
        self.net = net

    def features(self, image: Float[Tensor, "b 3 h w"]) -> Features:
        """Run the stages; every stage ends with its own LayerNorm."""
        x = self.net.patch_embed(image)  # (b, gh, gw, d): stage 1 takes channels last
        maps = []
        for stage in self.net.stages:
            x = stage(x)
            maps.append(x)
        return Features(pyramid=maps)


class ConvBackbone(Backbone):
    """Convolutional network whose maps are the outputs of named children run in sequence.

    Args:
        name: name of the backbone.
        net: network with the children named below; anything else in it (a classifier) is not run.
        stem: children that come before the first map.
        stages: children each of which ends in one map of the pyramid.
        widths: channels of the maps.
        strides: strides of the maps.
        min_size: smallest accepted image side.
    """

    def __init__(
        self,
        name: str,
        net: nn.Module,
        stem: Sequence[str],
        stages: Sequence[str],
        widths: tuple[int, ...],
        strides: tuple[int, ...],
        min_size: int = 32,
    ) -> None:
        super().__init__(name, widths, strides, min_size)
        self.net = net
        self.stem, self.stages = tuple(stem), tuple(stages)

    def features(self, image: Float[Tensor, "b 3 h w"]) -> Features:
        """Run the stem and the stages."""
        x = image
        for child in self.stem:
            x = getattr(self.net, child)(x)
        maps = []
        for child in self.stages:
            x = getattr(self.net, child)(x)
            maps.append(x)
        return Features(pyramid=maps)
