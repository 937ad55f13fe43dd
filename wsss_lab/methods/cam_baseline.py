"""The baseline every table starts from: a tag classifier, and the map it draws by itself.

Zhou et al., "Learning deep features for discriminative localization" (CVPR 2016). A network is
trained to name what is in an image. Its last feature map, weighted by the classifier's row for a
class, is a map of where that class is believed to be: the class activation map (CAM).

| in the paper | here |
|---|---|
| global average pooling, linear classifier | `TagClassifier.forward` |
| class activation map, eq. 2 | `TagClassifier.raw_cam`, `wsss_lab.cam.class_activation_map` |

`SegNetwork` is the other end of the scale: the same backbone trained with full pixel truth. It is
the ceiling that weak supervision is measured against, and the network that pseudo-labels train.
"""

from typing import Literal

import torch
import torch.distributed as dist
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from wsss_lab import IGNORE
from wsss_lab.losses import pixel_loss, tag_loss
from wsss_lab.methods.common.base import (
    Batch,
    Method,
    ParamGroup,
    SegOutput,
    StepOutput,
    split_decay,
)
from wsss_lab.models.base import Backbone
from wsss_lab.models.heads import TagHead


class TagClassifier(Method):
    """Backbone, global pooling, linear tag head.

    Args:
        backbone: normalises and encodes images; see `wsss_lab.models.backbones`.
        classes: number of foreground classes `k`.
        pool: `gap` (average, the CAM paper) or `gmp` (maximum, TSCD and CoSA).
        exclusive: train with softmax cross-entropy; for pre-training on one-object images.
    """

    mean_over_images = True

    def __init__(
        self,
        backbone: Backbone,
        classes: int,
        pool: Literal["gap", "gmp"] = "gap",
        exclusive: bool = False,
    ):
        super().__init__()
        self.backbone = backbone
        self.head = TagHead(backbone.width, classes, pool=pool)
        self.exclusive = exclusive

    def features(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b d gh gw"]:
        """The feature map that is pooled, and that maps are read from."""
        return self.backbone(self.backbone.normalize(images)).last

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b k"]:
        """Tag logits of images in [0, 1]."""
        return self.head(self.features(images))

    def raw_cam(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b k gh gw"]:
        """Class scores of every cell, before ReLU and normalisation, at the backbone's stride."""
        return self.head.cam(self.features(images))

    def predict(
        self, images: Float[Tensor, "b 3 h w"], tags: Float[Tensor, "b k"] | None = None
    ) -> SegOutput:
        """Raw maps and tag logits, from one pass. True tags change nothing here."""
        features = self.features(images)
        return SegOutput(cam=self.head.cam(features), tag_logits=self.head(features))

    def training_step(self, batch: Batch, step: int) -> StepOutput:
        """Tag loss of a batch."""
        logits = self(batch["images"])
        if self.exclusive:
            loss = F.cross_entropy(logits.float(), batch["tags"].argmax(1))
        else:
            loss = tag_loss(logits, batch["tags"])
        return StepOutput(loss, {"tags": loss}, {"logits": logits})

    def param_groups(self, lr: float, head_lr: float, weight_decay: float) -> list[ParamGroup]:
        """Backbone at `lr`, head at `head_lr`."""
        return split_decay(self.backbone, lr, weight_decay) + split_decay(
            self.head, head_lr, weight_decay
        )


class SegNetwork(Method):
    """The backbone with a small decoder to stride 4, trained on label maps.

    The last map (stride 8 in the toy networks) is projected, enlarged, joined with the finest map
    and smoothed by one 3x3 convolution. At 128 px a stride-8 output alone cannot reach 90 mIoU
    even from the truth; stride 4 can.

    Args:
        backbone: gives a pyramid; first and last level are used.
        classes: number of classes with background, `k1`.
        hidden: channels of the decoder.
    """

    mean_over_images = True

    def __init__(self, backbone: Backbone, classes: int, hidden: int = 64):
        super().__init__()
        self.backbone = backbone
        widths = backbone.widths
        self.lateral = nn.Conv2d(widths[0], hidden, 1)
        self.top = nn.Conv2d(widths[-1], hidden, 1)
        self.smooth = nn.Sequential(
            nn.Conv2d(hidden, hidden, 3, padding=1, bias=False), nn.BatchNorm2d(hidden), nn.ReLU()
        )
        self.classify = nn.Conv2d(hidden, classes, 1)

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b k1 gh gw"]:
        """Label logits at the stride of the finest level (4 in the toy networks)."""
        pyramid = self.backbone(self.backbone.normalize(images)).pyramid
        fine, coarse = self.lateral(pyramid[0]), self.top(pyramid[-1])
        coarse = F.interpolate(coarse, fine.shape[-2:], mode="bilinear", align_corners=False)
        return self.classify(self.smooth(F.relu(fine + coarse)))

    def predict(
        self, images: Float[Tensor, "b 3 h w"], tags: Float[Tensor, "b k"] | None = None
    ) -> SegOutput:
        """Label logits at the stride of the finest level. True tags change nothing here."""
        return SegOutput(logits=self(images))

    def training_step(self, batch: Batch, step: int) -> StepOutput:
        """Pixel loss of a batch with masks (truth or pseudo-labels).

        Several processes give every labelled pixel the weight it has in one batch.
        """
        loss = pixel_loss(self(batch["images"]), batch["masks"])
        loss = loss * weight_of_share((batch["masks"] != IGNORE).sum())
        return StepOutput(loss, {"pixels": loss})

    def param_groups(self, lr: float, head_lr: float, weight_decay: float) -> list[ParamGroup]:
        """Backbone at `lr`, decoder at `head_lr`."""
        decoder = nn.ModuleList([self.lateral, self.top, self.smooth, self.classify])
        return split_decay(self.backbone, lr, weight_decay) + split_decay(
            decoder, head_lr, weight_decay
        )


@torch.no_grad()
def weight_of_share(count: Int[Tensor, ""]) -> Float[Tensor, ""] | int:
    """Return this process's count over the mean of all processes; 1 for a single process.

    Processes take the mean of their losses. Times this weight, a mean over some entries of the
    share becomes the mean over those of the whole batch.

    Args:
        count: entries of this process's share, for example labelled pixels.
    """
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return 1
    everywhere = count.float()
    dist.all_reduce(everywhere)
    return count * dist.get_world_size() / everywhere.clamp(min=1)


@torch.no_grad()
def predict_labels(network: SegNetwork, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b h w"]:
    """Most likely class of every pixel, int64, 0..k; logits are enlarged before the argmax."""
    logits = F.interpolate(network(images), images.shape[-2:], mode="bilinear", align_corners=False)
    return logits.max(dim=1).indices
