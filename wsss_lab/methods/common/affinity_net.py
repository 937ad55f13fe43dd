"""AffinityNet: a network that learns which cells belong together, for propagation of class maps.

Ahn and Kwak, "Learning pixel-level semantic affinity with image-level supervision for weakly
supervised semantic segmentation" (CVPR 2018). A second network learns no classes: from labels that
are sure and mostly empty it learns whether two near cells of an image are of one kind. A random
walk along the learned affinities carries class maps into the places that were empty.

=====================================  ===========================================================
in the paper                           here
=====================================  ===========================================================
pairs nearer than the radius           `pair_offsets` in `wsss_lab.methods.common.affinity_pairs`
affinity W = exp(-L1 distance)         `pair_distance`, `pair_affinity`
sure pairs of three kinds              `pair_kinds`
loss of three parts                    `pair_loss`
transition matrix, power beta          `transition` in `wsss_lab.methods.common.affinity_walk`
maps after t steps of the walk         `random_walk`
network on features of several stages  `AffinityNetwork`
=====================================  ===========================================================

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

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from wsss_lab.methods.common.affinity_pairs import (
    pair_affinity,
    pair_distance,
    pair_kinds,
    pair_loss,
    pair_offsets,
)
from wsss_lab.methods.common.affinity_walk import random_walk
from wsss_lab.methods.common.base import (
    Batch,
    Method,
    ParamGroup,
    SegOutput,
    StepOutput,
    split_decay,
)
from wsss_lab.models.base import Backbone, freeze_batch_norms
from wsss_lab.refine.walk import grid_label


class AffinityNetwork(Method):
    """Backbone and 1x1 convolutions; the distances of their features are affinities.

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
        """Compute features of images in [0, 1], on the grid of the backbone's last map."""
        maps = self.backbone(self.backbone.normalize(images)).pyramid[-len(self.lateral) :]
        grid = maps[-1].shape[-2:]
        lifted = [
            F.adaptive_avg_pool2d(F.elu(lateral(each)), grid)
            for lateral, each in zip(self.lateral, maps, strict=True)
        ]
        return F.elu(self.mix(torch.cat(lifted, 1)))

    def training_step(self, batch: Batch, step: int) -> StepOutput:
        """Compute the loss of a batch whose masks are sure labels, `IGNORE` elsewhere."""
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
        """Propagate class scores along the affinity of their images; see `random_walk`.

        Args:
            images: RGB in [0, 1].
            maps: scores of any size, averaged over cells for the walk and enlarged afterwards.
            power: beta.
            steps: t.
        """
        affinity = pair_affinity(pair_distance(self(images), self.offsets))
        cells = F.adaptive_avg_pool2d(maps.float(), (affinity.shape[2], affinity.shape[3]))
        propagated = random_walk(cells, affinity, self.offsets, power, steps)
        return F.interpolate(propagated, maps.shape[-2:], mode="bilinear", align_corners=False)

    def predict(
        self, images: Float[Tensor, "b 3 h w"], tags: Float[Tensor, "b k"] | None = None
    ) -> SegOutput:
        """Refuse: there is nothing to predict.

        Raises:
            ValueError: always.
        """
        raise ValueError(
            "an affinity network predicts which pixels belong together, not their classes; take "
            "the weights of the segmentation network (model.safetensors in the folder of the run)"
        )

    def param_groups(self, lr: float, head_lr: float, weight_decay: float) -> list[ParamGroup]:
        """List the backbone at `lr`, the 1x1 convolutions at `head_lr`."""
        head = split_decay(nn.ModuleList([self.lateral, self.mix]), head_lr, weight_decay)
        return split_decay(self.backbone, lr, weight_decay) + head
