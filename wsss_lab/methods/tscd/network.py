"""TSCD's network: MiT encoder, tag classifier, SegFormer decoder, affinity head; AFA's, too."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import reduce
from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from wsss_lab.cam import Fusion, multi_scale_cam
from wsss_lab.methods.tscd.config import TSCDConfig
from wsss_lab.models import keymaps
from wsss_lab.models.attention import attention_layers
from wsss_lab.models.backbones import build_backbone
from wsss_lab.models.base import Backbone
from wsss_lab.models.heads import SegFormerHead, TagHead
from wsss_lab.models.weights import load_backbone_weights, load_strictly


class Stream(NamedTuple):
    """Everything the network says about a batch, on its own grids."""

    tag_logits: Float[Tensor, "b k"]
    cam: Float[Tensor, "b k gh gw"]
    seg_logits: Float[Tensor, "b k1 sh sw"]
    affinity: Float[Tensor, "b n n"]
    pyramid: list[Float[Tensor, "b _d _h _w"]]


class Look(NamedTuple):
    """What a training step knows before it computes losses."""

    student: Stream
    cam: Float[Tensor, "b k h w"]
    view: Float[Tensor, "b 3 vh vw"]
    view_logits: Float[Tensor, "b k1 _sh _sw"]
    view_cam: Float[Tensor, "b k vh vw"]
    centre: Float[Tensor, "b 2"]


class TSCDNetwork(nn.Module):
    """Encoder, GMP tag classifier, SegFormer decoder, affinity head.

    Args:
        backbone: a `MiTBackbone`.
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
        layers: list[Any] = list(attention_layers(backbone).values())[-2:]
        if len(layers) < 2 or not all(hasattr(a, "kv") and a.sr is None for a in layers):
            raise ValueError(
                "backbone must end in two attention blocks without spatial reduction, got "
                f"{backbone.name}; use mit_b0..mit_b5 or toy_mit"
            )
        self.symmetric = symmetric
        # MiT's tokens are images with channels last; convolutions that are not copy them twice
        self.backbone = backbone.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.tag_head = TagHead(backbone.width, classes, pool="gmp")
        self.seg_head = SegFormerHead(backbone.widths, classes + 1, hidden, dropout)
        self.affinity_head = nn.Conv2d(sum(int(a.num_heads) for a in layers), 1, 1)
        nn.init.kaiming_normal_(self.affinity_head.weight, a=5**0.5, mode="fan_out")

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> Stream:
        """Run all heads on normalised images."""
        with _projections(self.backbone) as pairs:
            pyramid = self.backbone(images).pyramid
        last = pyramid[-1]
        logits = affinity_logits(pairs, self.affinity_head, self.symmetric)
        return Stream(
            self.tag_head(last),
            self.tag_head.cam(last),
            decode(self.seg_head, pyramid),
            logits.sigmoid(),
            pyramid,
        )

    def segment(
        self, images: Float[Tensor, "b 3 h w"], update: bool = True
    ) -> tuple[Float[Tensor, "b k1 sh sw"], Float[Tensor, "b k gh gw"]]:
        """Segmentation logits and maps, without affinity.

        Args:
            images: normalised images.
            update: whether the running statistics of the decoder learn of this pass.
        """
        pyramid = self.backbone(images).pyramid
        with keep_statistics(self.seg_head.norm, not update):
            return decode(self.seg_head, pyramid), self.tag_head.cam(pyramid[-1])

    @torch.no_grad()
    def raw_cam(
        self, images: Float[Tensor, "b 3 h w"], decoder: bool = False
    ) -> Float[Tensor, "b k gh gw"]:
        """Maps alone, without gradient.

        Args:
            images: normalised images.
            decoder: let this pass leave its mark on the decoder's running statistics, as every
                pass of the released code does; costs the decoder up to its normalisation.
        """
        learn = decoder and self.seg_head.training
        # one by one on a CPU: a fraction of the memory, and of the time it takes to get it
        parts = images.split(1) if images.is_cpu else [images]
        pyramids = [self.backbone(part).pyramid[0 if learn else -1 :] for part in parts]
        pyramid = [torch.cat(level) for level in zip(*pyramids, strict=True)]
        if learn:
            learn_statistics(self.seg_head.norm, fused_map(self.seg_head, pyramid))
        return self.tag_head.cam(pyramid[-1])

    @torch.no_grad()
    def joined_cam(
        self,
        images: Float[Tensor, "b 3 h w"],
        fusion: Fusion,
        known: Float[Tensor, "b k gh gw"] | None = None,
        noise: bool = False,
        decoder: bool = False,
    ) -> Float[Tensor, "b k h w"]:
        """Maps over all scales and mirror images, joined at the size of the images, 0 or more.

        Args:
            images: normalised images.
            fusion: scales, and how they are joined.
            known: raw maps of the images as they are, to spare that pass.
            noise: keep stochastic depth.
            decoder: see `raw_cam`.
        """

        def raw(views: Tensor) -> Tensor:
            done = []
            if known is not None and views.shape[-2:] == images.shape[-2:]:
                done, views = [known.detach()], views[len(images) :]
            return torch.cat([*done, self.raw_cam(views, decoder)])

        with without_noise(self.backbone, not noise):
            return multi_scale_cam(raw, images, fusion, normalize=None)

    def load_released(self, state: Mapping[str, Tensor]) -> None:
        """Load a released checkpoint of TSCD or AFA, strictly.

        Args:
            state: released names, with or without `module.` in front.

        Raises:
            ValueError: a tensor is missing, left over, or of another shape.
        """
        parts = keymaps.split_checkpoint(state, keymaps.TSCD)
        flat = {
            f"{part}.{key}": value for part, some in parts.items() for key, value in some.items()
        }
        load_strictly(self, flat, what="the TSCD checkpoint")


def fused_map(
    head: SegFormerHead, pyramid: Sequence[Float[Tensor, "b _d _h _w"]]
) -> Float[Tensor, "b d sh sw"]:
    """What the decoder normalises, computed in another order than written.

    A 1x1 convolution and a bilinear enlargement can change places, since the weights of the latter
    sum to 1. So every map is taken through both 1x1 convolutions (which are one matrix) at its own
    size, enlarged, and added up. That spares nearly all of the decoder's arithmetic, and the 1024
    channels at stride 4.
    """
    size = pyramid[0].shape[2:]
    hidden = head.fuse.out_channels
    # the released order of the concatenation is coarsest first
    mixers = head.fuse.weight.flatten(1).split(hidden, dim=1)[::-1]
    laterals = cast(list[Any], list(head.lateral))

    def mixed() -> Iterator[Tensor]:  # one after the other: only the sum is kept
        for feature_map, lateral, mix in zip(pyramid, laterals, mixers, strict=True):
            weight, bias = mix @ lateral.weight.flatten(1), mix @ lateral.bias
            x = F.conv2d(feature_map, weight[:, :, None, None], bias)
            if x.shape[2:] != size:
                x = F.interpolate(x, size, mode="bilinear", align_corners=False)
            yield x

    return reduce(Tensor.add_, mixed())


def decode(
    head: SegFormerHead, pyramid: Sequence[Float[Tensor, "b _d _h _w"]]
) -> Float[Tensor, "b k1 sh sw"]:
    """Segmentation logits of `SegFormerHead`, by way of `fused_map`."""
    return head.classify(head.dropout(F.relu(head.norm(fused_map(head, pyramid)))))


def affinity_logits(
    pairs: Sequence[tuple[Tensor, Tensor, int]], head: nn.Conv2d, symmetric: bool
) -> Float[Tensor, "b n n"]:
    """The affinity head on raw attention, before the sigmoid.

    A weighted sum of the heads' Q K^T is one product of all queries, weighted by head, and all
    keys. So the maps of the heads (16 in MiT-B1) never exist.

    Args:
        pairs: queries, keys (b, n, d) and number of heads, per block.
        head: 1x1 convolution from heads to one channel.
        symmetric: *AFA* adds the transpose before the head, *TSCD* does not.

    Returns:
        Logits in float32: sums over a thousand products need it.
    """
    heads = [number for _, _, number in pairs]
    weights = head.weight.float().flatten().split(heads)
    queries = [
        (q.float().unflatten(-1, (number, -1)) * weight[:, None]).flatten(2)
        for (q, _, number), weight in zip(pairs, weights, strict=True)
    ]
    device = pairs[0][0].device.type
    with torch.autocast(device, enabled=False):
        keys = torch.cat([k.float() for _, k, _ in pairs], dim=-1)
        logits = torch.cat(queries, dim=-1) @ keys.mT
    if symmetric:
        logits = logits + logits.mT
    return logits if head.bias is None else logits + head.bias.float()


@contextmanager
def _projections(backbone: Backbone) -> Iterator[list[tuple[Tensor, Tensor, int]]]:
    """Collect (queries, keys, heads) of the last two blocks, with gradients, while inside."""
    found: list[tuple[Tensor, Tensor, int]] = []
    queries: list[Tensor] = []
    handles = []
    layers: list[Any] = list(attention_layers(backbone).values())[-2:]
    for layer in layers:

        def on_q(_: nn.Module, __: Any, output: Tensor) -> None:
            queries.append(output)

        def on_kv(_: nn.Module, __: Any, output: Tensor, heads: int = layer.num_heads) -> None:
            found.append((queries.pop(), output.chunk(2, dim=-1)[0], heads))

        handles += [layer.q.register_forward_hook(on_q), layer.kv.register_forward_hook(on_kv)]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


@torch.no_grad()
def learn_statistics(norm: nn.Module, x: Float[Tensor, "b d h w"]) -> None:
    """Let a batch norm learn of a batch, without its output."""
    if type(norm) is not nn.BatchNorm2d:  # one that asks other processes, too
        norm(x)
        return
    layer: Any = norm
    torch.batch_norm_update_stats(x, layer.running_mean, layer.running_var, layer.momentum)
    layer.num_batches_tracked += 1


@contextmanager
def keep_statistics(norm: nn.Module, keep: bool = True) -> Iterator[None]:
    """Normalise by the batch, but leave the running statistics as they are."""
    layer: Any = norm
    before = layer.momentum
    if keep:
        layer.momentum = 0.0
    try:
        yield
    finally:
        layer.momentum = before


@contextmanager
def without_noise(module: nn.Module, on: bool = True) -> Iterator[None]:
    """Switch stochastic depth and dropout off; every layer is in its old mode afterwards."""
    training = [layer for layer in module.modules() if layer.training] if on else []
    for layer in training:
        layer.training = False
    try:
        yield
    finally:
        for layer in training:
            layer.training = True


def tscd_backbone(config: TSCDConfig, weights: str = "imagenet", **options: Any) -> Backbone:
    """The backbone that the settings name, with pre-trained weights.

    Args:
        config: uses `backbone` and `drop_path`.
        weights: source for `load_backbone_weights`; `random` loads nothing.
        **options: further options of the backbone.
    """
    backbone = build_backbone(config.backbone, **({"drop_path": config.drop_path} | options))
    return backbone if weights == "random" else load_backbone_weights(backbone, weights)
