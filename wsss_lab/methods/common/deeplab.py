"""DeepLabV2: the segmentation network that labels of two-stage methods are usually retrained on.

Chen et al., "DeepLab: semantic image segmentation with deep convolutional nets, atrous convolution,
and fully connected CRFs" (TPAMI 2018, arXiv 1606.00915).

===================================  =================================================
in the paper                         here
===================================  =================================================
ResNet-101, dilated, at stride 8     `wsss_lab.models.backbones.build_backbone`
spatial pyramid pooling, ASPP-L      `wsss_lab.models.heads.ASPPHead`
poly schedule, rates of the head     `OPTIM`, `DeepLabV2.param_groups`
maximum over scales at test          `wsss_lab.evaluate.inference.VIEWS`, `deeplabv2`
dense CRF at test                    `wsss_lab.refine.DenseCRF`
===================================  =================================================

Deviations from the released code.

1. Where the stride of stages 3 and 4 is taken away, the first 3x3 convolution of the stage keeps
   the dilation of the stage before, and the others have 2 and 4. There all have 2 and 4. Today's
   ResNets have their stride in that convolution, not in the 1x1 before it; so this, and not that,
   leaves every value of the pre-trained network as it was, with more of them in between.
2. Logits are enlarged to the size of the labels for the loss. There labels are made small.
3. One scale in training. There three (0.5, 0.75, 1), each with a loss, and one of their maximum.
4. Weights from ImageNet. There, for VOC, from COCO with masks, which weak supervision rules out.
"""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from wsss_lab.config import OptimConfig
from wsss_lab.losses import pixel_loss
from wsss_lab.methods.common.base import (
    Batch,
    Method,
    ParamGroup,
    SegOutput,
    StepOutput,
    split_decay,
)
from wsss_lab.models.base import Backbone, freeze_batch_norms
from wsss_lab.models.heads import ASPPHead

OPTIM = OptimConfig(
    "sgd",
    2.5e-4,
    head_lr_factor=10.0,
    weight_decay=5e-4,
    momentum=0.9,
    schedule="poly",
    power=0.9,
    warmup=0.0,
    clip=0.0,
)
"""SGD as in the released code: 20,000 steps of 10 crops of 321 px on VOC."""
CROP = 321
"""Side of the training crop, px."""
SCALE = (0.5, 1.5)
"""Smallest and largest factor on the size of a training image."""
BATCH = 10
"""Images per step."""


class DeepLabV2(Method):
    """Backbone and a head of four parallel fields of view.

    Args:
        backbone: only its last map is used; the paper's is `resnet101` at stride 8.
        classes: number of classes with background, `k1`.
        dilations: of the head's branches; 6, 12, 18 and 24 in the paper.
        freeze_norm: keep batch statistics, scale and shift of the backbone as they are.
    """

    def __init__(
        self,
        backbone: Backbone,
        classes: int,
        dilations: tuple[int, ...] = (6, 12, 18, 24),
        freeze_norm: bool = True,
    ):
        super().__init__()
        self.backbone, self.freeze_norm = backbone, freeze_norm
        self.head = ASPPHead(backbone.width, classes, dilations)
        self.train(self.training)

    def train(self, mode: bool = True) -> "DeepLabV2":
        """Switch to training; frozen batch norms stay in eval mode."""
        super().train(mode)
        if self.freeze_norm:
            freeze_batch_norms(self.backbone)
        return self

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b k1 gh gw"]:
        """Label logits of images in [0, 1] at the stride of the backbone."""
        return self.head(self.backbone(self.backbone.normalize(images)).last)

    def predict(
        self, images: Float[Tensor, "b 3 h w"], tags: Float[Tensor, "b k"] | None = None
    ) -> SegOutput:
        """Label logits at the size of the images. True tags change nothing here."""
        size = images.shape[-2:]
        logits = F.interpolate(self(images), size, mode="bilinear", align_corners=False)
        return SegOutput(logits=logits)

    def training_step(self, batch: Batch, step: int) -> StepOutput:
        """Pixel loss of a batch with masks (truth or pseudo-labels)."""
        loss = pixel_loss(self(batch["images"]), batch["masks"])
        return StepOutput(loss, {"pixels": loss})

    def param_groups(self, lr: float, head_lr: float, weight_decay: float) -> list[ParamGroup]:
        """Backbone at `lr`; head at `head_lr`, its biases at twice that and without decay."""
        weights = [p for p in self.head.branches.parameters() if p.ndim > 1]
        biases = [p for p in self.head.branches.parameters() if p.ndim == 1]
        return [
            *split_decay(self.backbone, lr, weight_decay),
            {"params": weights, "lr": head_lr, "weight_decay": weight_decay},
            {"params": biases, "lr": 2 * head_lr, "weight_decay": 0.0},
        ]
