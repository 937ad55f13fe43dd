"""AffinityNet-style propagation: learn which cells belong together, let class maps walk there.

Ahn and Kwak, "Learning pixel-level semantic affinity with image-level supervision for weakly
supervised semantic segmentation" (CVPR 2018). A second network never sees a class: from labels that
are sure and mostly empty it learns whether two near cells of an image are of one kind. A random
walk along what it learned carries class maps into the places that were empty.

=====================================  ================================
in the paper                           here
=====================================  ================================
pairs nearer than the radius           `pair_offsets`
affinity W = exp(-L1 distance)         `pair_distance`, `pair_affinity`
sure pairs of three kinds              `pair_kinds`
loss of three parts                    `pair_loss`
transition matrix, power beta          `transition`
maps after t steps of the walk         `random_walk`
network on features of several stages  `AffinityNetwork`
=====================================  ================================

Written from the formulas; of the released code facts are named here, and nothing is copied.

Deviations from the released code.

1. Any backbone: features of the last three maps of its pyramid, brought to the grid of the last
   (stride 8 in the convolutional networks). There: stages 4, 5 and 7 of a Wide ResNet-38.
2. All pairs inside the image count. There, cells too near to the edge for a whole neighbourhood
   start no pair.
3. The label of a cell is that of one pixel. There, scores are averaged over the cell first.
4. The walk takes its t steps one after the other on the few neighbours of every cell, instead of
   squaring a matrix of all pairs of cells log2 t times. Same numbers, less memory.

IRN (CVPR 2019) takes edges between two cells and displacements to the middle of objects instead;
that is not implemented here.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, Integer
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from wsss_lab import IGNORE
from wsss_lab.methods.common.base import (
    Batch,
    Method,
    SegOutput,
    StepOutput,
    normalize,
    split_decay,
)
from wsss_lab.models.base import Backbone, freeze_batch_norms
from wsss_lab.refine.walk import grid_label

Offsets = tuple[tuple[int, int], ...]
"""(rows down, columns right) from one cell of a pair to the other; each pair once."""


def pair_offsets(radius: float) -> Offsets:
    """List how the second cell of a pair lies to the first: nearer than `radius`, each pair once.

    Args:
        radius: Euclidean distance in cells, not reached; 5 in the paper, which gives 34 offsets.

    Raises:
        ValueError: no pair is that near.
    """
    if not 1 < radius <= 64:
        raise ValueError(f"radius must be above 1 and at most 64 cells, got {radius}; the paper: 5")
    reach = range(-int(radius), int(radius) + 1)
    half = [(y, x) for y in reach for x in reach if y > 0 or (y == 0 and x > 0)]
    return tuple((y, x) for y, x in half if y * y + x * x < radius * radius)


def pair_valid(offsets: Offsets, gh: int, gw: int) -> Bool[Tensor, "m gh gw"]:
    """Mark the pairs (offset, first cell) whose second cell lies on the grid."""
    y, x = torch.arange(gh), torch.arange(gw)
    inside = [
        ((y + dy >= 0) & (y + dy < gh))[:, None] & ((x + dx >= 0) & (x + dx < gw))
        for dy, dx in offsets
    ]
    return torch.stack(inside)


class _Shifted:
    """Maps (..., gh, gw) as seen from the other cell of a pair; `value` where there is none."""

    def __init__(self, maps: Tensor, offsets: Offsets, value: float = 0) -> None:
        self.size = maps.shape[-2:]
        self.reach = max(max(abs(y), abs(x)) for y, x in offsets)
        self.padded = F.pad(maps, (self.reach,) * 4, value=value)

    def __call__(self, dy: int, dx: int) -> Tensor:
        """The maps at (y + dy, x + dx), a view."""
        top, left = self.reach + dy, self.reach + dx
        return self.padded[..., top : top + self.size[0], left : left + self.size[1]]


class _PairDistance(torch.autograd.Function):
    """Mean |f_i - f_j| over channels, offset by offset: differences are never all in memory."""

    @staticmethod
    def forward(ctx: Any, features: Tensor, offsets: Offsets) -> Tensor:
        """Distances, (b, m, gh, gw)."""
        ctx.save_for_backward(features)
        ctx.offsets = offsets
        second = _Shifted(features, offsets)
        each = [(features - second(*offset)).abs_().mean(1) for offset in offsets]
        return torch.stack(each, 1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        """Sign of every difference, to the first cell and, negative, to the second."""
        (features,) = ctx.saved_tensors
        second, total = _Shifted(features, ctx.offsets), torch.zeros_like(features)
        negative = _Shifted(total, ctx.offsets)
        grad = grad / features.shape[1]
        for m, offset in enumerate(ctx.offsets):
            step = (features - second(*offset)).sign_() * grad[:, m, None]
            total += step
            negative(*offset).sub_(step)
        return total + negative(0, 0), None


def pair_distance(
    features: Float[Tensor, "b d gh gw"], offsets: Offsets
) -> Float[Tensor, "b m gh gw"]:
    """Mean absolute difference over the channels, for every pair of near cells, in float32.

    Args:
        features: on the grid.
        offsets: from `pair_offsets`, `m` of them.

    Returns:
        Entry (m, y, x) is of the pair (y, x) and (y, x) + offset m; infinite where that lies
        outside, so that its affinity and all gradients are 0.

    Raises:
        ValueError: `features` is not (b, d, gh, gw).
    """
    if features.ndim != 4:
        raise ValueError(f"features must be (b, d, gh, gw), got {tuple(features.shape)}")
    with torch.autocast(features.device.type, enabled=False):
        features = features if features.dtype == torch.float64 else features.float()
        distance = _PairDistance.apply(features, offsets)
    inside = pair_valid(offsets, features.shape[2], features.shape[3]).to(features.device)
    return distance.masked_fill(~inside, torch.inf)


def pair_affinity(distance: Float[Tensor, "b m gh gw"]) -> Float[Tensor, "b m gh gw"]:
    """exp(-distance): 1 for equal features, 0 where there is no second cell."""
    return torch.exp(-distance)


class Pairs(NamedTuple):
    """Which pairs are sure, by kind; each (b, m, gh, gw), no pair in two of them."""

    foreground: Tensor
    """Both cells of one object class."""
    background: Tensor
    """Both cells background."""
    different: Tensor
    """Two cells of different classes, background being one."""


def pair_kinds(label: Integer[Tensor, "b gh gw"], offsets: Offsets) -> Pairs:
    """Sort all pairs of near cells by their labels.

    Args:
        label: on the grid; 0 background, `IGNORE` not sure. A pair with such a cell counts nowhere.
        offsets: from `pair_offsets`.

    Raises:
        ValueError: `label` is not (b, gh, gw).
    """
    if label.ndim != 3 or label.is_floating_point():
        raise ValueError(f"label must be integers (b, gh, gw), got {tuple(label.shape)}")
    shifted = _Shifted(label, offsets, IGNORE)
    second = torch.stack([shifted(*offset) for offset in offsets], 1)
    first = label[:, None]
    sure, same = (first != IGNORE) & (second != IGNORE), first == second
    return Pairs(sure & same & (first > 0), sure & same & (first == 0), sure & ~same)


def pair_loss(
    distance: Float[Tensor, "b m gh gw"], pairs: Pairs
) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
    """Cross-entropy of the affinity: pairs of one kind to 1, others to 0.

    A quarter of the mean of -log W over sure object pairs, a quarter of that over sure background
    pairs, half of the mean of -log(1 - W) over different pairs (released code; the paper weighs
    1, 1, 2). Since W = exp(-distance), -log W is the distance itself. 1e-5 keeps log(1 - W) finite.

    Args:
        distance: from `pair_distance`.
        pairs: from `pair_kinds`.

    Returns:
        The loss, and its three means by name; a kind without pairs counts 0.

    Raises:
        ValueError: shapes disagree.
    """
    if any(kind.shape != distance.shape for kind in pairs):
        raise ValueError(
            f"pairs must have the shape of distance, {tuple(distance.shape)}, got "
            f"{[tuple(kind.shape) for kind in pairs]}; make both with the same offsets and grid"
        )
    apart = -torch.log(1 + 1e-5 - pair_affinity(distance))
    terms = (distance, distance, apart)
    means = [
        value.masked_fill(~kind, 0).sum() / kind.sum().clamp(min=1)
        for value, kind in zip(terms, pairs, strict=True)
    ]
    loss = means[0] / 4 + means[1] / 4 + means[2] / 2
    return loss, dict(zip(Pairs._fields, means, strict=True))


def transition(
    affinity: Float[Tensor, "b m gh gw"], offsets: Offsets, power: float = 8.0
) -> tuple[Int[Tensor, "n j"], Float[Tensor, "b n j"]]:
    """Row-normalised transition matrix of the walk, as lists of neighbours.

    T = D^-1 W^power with W_ii = 1 and D the row sums: T(i, j) is how much of cell j's value cell i
    takes over in a step.

    Args:
        affinity: 0..1, from `pair_affinity`.
        offsets: those of `affinity`.
        power: beta; lets weak affinities fade. 8 in the paper.

    Returns:
        For every cell its j = 2m + 1 neighbours (itself, second cells, first cells; itself again
        where there is none) and their weights, which sum to 1 (0 where there is none).

    Raises:
        ValueError: shapes disagree or the power is negative.
    """
    if affinity.ndim != 4 or affinity.shape[1] != len(offsets):
        raise ValueError(
            f"affinity must be (b, {len(offsets)}, gh, gw), one map per offset, got "
            f"{tuple(affinity.shape)}"
        )
    if power < 0:
        raise ValueError(f"power must be at least 0, got {power}; the paper: 8")
    gh, gw = affinity.shape[2:]
    inside = pair_valid(offsets, gh, gw).to(affinity.device)
    forth = torch.where(inside, affinity**power, 0.0)
    own = torch.arange(gh * gw, device=affinity.device).view(gh, gw)
    cell, strength = _Shifted(own, offsets, -1), _Shifted(forth, offsets)
    backwards = [(-dy, -dx) for dy, dx in offsets]
    back = [strength(*offset)[:, m] for m, offset in enumerate(backwards)]
    index = torch.stack([own, *(cell(*offset) for offset in (*offsets, *backwards))])
    index = torch.where(index < 0, own, index).flatten(1).T
    weight = torch.cat([torch.ones_like(forth[:, :1]), forth, torch.stack(back, 1)], 1)
    weight = weight.flatten(2).transpose(1, 2)
    return index.contiguous(), weight / weight.sum(2, keepdim=True)


@torch.no_grad()
def random_walk(
    maps: Float[Tensor, "b c gh gw"],
    affinity: Float[Tensor, "b m gh gw"],
    offsets: Offsets,
    power: float = 8.0,
    steps: int = 256,
) -> Float[Tensor, "b c gh gw"]:
    """Let maps walk along the affinity: T^steps applied to every map.

    Each step replaces a value by a weighted mean of its neighbours', so values stay in their range
    and a constant map stays as it is. Memory: the neighbour lists, b * n * (2m + 1) weights.

    Args:
        maps: class scores on the grid of the affinity, background among them.
        affinity: 0..1, from `pair_affinity`.
        offsets: those of `affinity`.
        power: see `transition`.
        steps: t; 256 in the paper.

    Returns:
        float32 (float64 for float64 maps).

    Raises:
        ValueError: shapes disagree, or a number is negative.
    """
    if maps.ndim != 4 or (len(maps), *maps.shape[2:]) != (len(affinity), *affinity.shape[2:]):
        raise ValueError(
            f"maps must be (b, c, gh, gw) on the grid of affinity, {tuple(affinity.shape)}, got "
            f"{tuple(maps.shape)}; average them over the cells first"
        )
    if steps < 0:
        raise ValueError(f"steps must be at least 0, got {steps}; the paper: 256")
    kind = torch.float64 if maps.dtype == torch.float64 else torch.float32
    with torch.autocast(maps.device.type, enabled=False):
        index, weight = transition(affinity.to(kind), offsets, power)
        b, n, _ = weight.shape
        start = n * torch.arange(b, device=maps.device)[:, None, None]
        index, weight = (start + index).flatten(0, 1), weight.flatten(0, 1).contiguous()
        rows = maps.to(kind).flatten(2).transpose(1, 2).flatten(0, 1).contiguous()
        for _ in range(steps):
            rows = F.embedding_bag(index, rows, mode="sum", per_sample_weights=weight)
    return rows.view(b, n, -1).transpose(1, 2).unflatten(2, tuple(maps.shape[2:])).contiguous()


class AffinityNetwork(Method):
    """Backbone and 1x1 convolutions whose features tell which cells belong together.

    Each of the last maps of the backbone gets a 1x1 convolution and ELU; they are joined at the
    grid of the last one, and a last 1x1 convolution with ELU mixes them.

    Args:
        backbone: gives a pyramid; its last `len(widths)` maps are used.
        widths: channels each of them is brought to; 64, 128 and 256 in the paper.
        radius: see `pair_offsets`.
        freeze_norm: keep batch statistics, scale and shift of the backbone as they are.

    Raises:
        ValueError: the backbone has fewer maps than `widths`, or a bad radius.
    """

    def __init__(
        self,
        backbone: Backbone,
        widths: Sequence[int] = (64, 128, 256),
        radius: float = 5.0,
        freeze_norm: bool = True,
    ):
        super().__init__()
        if not 1 <= len(widths) <= len(backbone.widths):
            raise ValueError(
                f"widths must name 1 to {len(backbone.widths)} maps of {backbone.name}, got "
                f"{tuple(widths)}"
            )
        self.backbone, self.offsets, self.freeze_norm = backbone, pair_offsets(radius), freeze_norm
        used = backbone.widths[-len(widths) :]
        self.lateral = nn.ModuleList(
            nn.Conv2d(width, out, 1, bias=False) for width, out in zip(used, widths, strict=True)
        )
        self.mix = nn.Conv2d(sum(widths), sum(widths), 1, bias=False)
        self.train(self.training)

    def train(self, mode: bool = True) -> "AffinityNetwork":
        """Switch to training; frozen batch norms stay in eval mode."""
        super().train(mode)
        if self.freeze_norm:
            freeze_batch_norms(self.backbone)
        return self

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b d gh gw"]:
        """Features of images in [0, 1] whose distances are affinities."""
        maps = self.backbone(normalize(images)).pyramid[-len(self.lateral) :]
        grid = maps[-1].shape[-2:]
        lifted = [
            F.adaptive_avg_pool2d(F.elu(lateral(each)), grid)
            for lateral, each in zip(self.lateral, maps, strict=True)
        ]
        return F.elu(self.mix(torch.cat(lifted, 1)))

    def training_step(self, batch: Batch, step: int) -> StepOutput:
        """Loss of a batch whose masks are sure labels, `IGNORE` elsewhere."""
        features = self(batch["images"])
        label = grid_label(batch["masks"], (features.shape[2], features.shape[3]))
        distance = pair_distance(features, self.offsets)
        loss, parts = pair_loss(distance, pair_kinds(label, self.offsets))
        return StepOutput(loss, parts)

    @torch.no_grad()
    def propagate(
        self,
        images: Float[Tensor, "b 3 h w"],
        maps: Float[Tensor, "b c _h _w"],
        power: float = 8.0,
        steps: int = 256,
    ) -> Float[Tensor, "b c _h _w"]:
        """Let class scores walk along the affinity of their images; see `random_walk`.

        Args:
            images: RGB in [0, 1].
            maps: scores of any size, averaged over cells for the walk and enlarged afterwards.
            power: beta.
            steps: t.
        """
        affinity = pair_affinity(pair_distance(self(images), self.offsets))
        cells = F.adaptive_avg_pool2d(maps.float(), (affinity.shape[2], affinity.shape[3]))
        walked = random_walk(cells, affinity, self.offsets, power, steps)
        return F.interpolate(walked, maps.shape[-2:], mode="bilinear", align_corners=False)

    def predict(
        self, images: Float[Tensor, "b 3 h w"], tags: Float[Tensor, "b k"] | None = None
    ) -> SegOutput:
        """There is nothing to predict.

        Raises:
            ValueError: always.
        """
        raise ValueError(
            "an affinity network says which pixels belong together, not what they are; take the "
            "weights of the segmentation network (model.safetensors in the folder of the run)"
        )

    def param_groups(self, lr: float, head_lr: float, weight_decay: float) -> list[dict[str, Any]]:
        """Backbone at `lr`, the 1x1 convolutions at `head_lr`."""
        head = split_decay(nn.ModuleList([self.lateral, self.mix]), head_lr, weight_decay)
        return split_decay(self.backbone, lr, weight_decay) + head
