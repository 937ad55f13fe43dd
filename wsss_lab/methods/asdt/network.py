"""ASDT's unified network: one backbone, a class branch and two segmentation heads."""

from dataclasses import replace
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from wsss_lab.cam import FUSIONS, fuse_cams
from wsss_lab.methods.asdt.config import ASDTConfig
from wsss_lab.methods.common.base import ParamGroup
from wsss_lab.models.base import Backbone
from wsss_lab.models.heads import DilatedHead, TagHead
from wsss_lab.models.modes import DROPOUT, evaluation_mode


class Outputs(NamedTuple):
    """Outputs of all heads for a batch, on the backbone's grid."""

    tag_logits: Float[Tensor, "b k"]
    cam: Float[Tensor, "b k gh gw"]
    """Raw class maps: any sign, no ReLU."""
    teacher_logits: Float[Tensor, "b k1 gh gw"]
    """Z1, of teacher B's head."""
    student_logits: Float[Tensor, "b k1 gh gw"] | None
    """Z2; None without a student."""


class ASDTNetwork(nn.Module):
    """Shared backbone, tag head (teacher A), segmentation head (teacher B), student head.

    All heads send gradients into the backbone. Batch normalisation of any backbone keeps its
    statistics, scale and shift, as in the released code; start from a trained tag classifier.

    Args:
        backbone: only its last map is read. Stride 8 in the paper.
        classes: tags `k`.
        config: sizes, scales, whether there is a student.
    """

    def __init__(self, backbone: Backbone, classes: int, config: ASDTConfig) -> None:
        super().__init__()
        self.config = config
        self.backbone = backbone
        self.tag_head = TagHead(backbone.width, classes, pool="gap")
        nn.init.xavier_uniform_(self.tag_head.linear.weight)
        self.dropout = nn.Dropout2d(config.head_dropout)
        shape = (backbone.width, classes + config.background, config.hidden, config.dilation)
        self.seg_head = DilatedHead(*shape)
        self.student_head = None if config.selection == "none" else DilatedHead(*shape)
        self.fusion = replace(FUSIONS["asdt"], scales=config.scales)
        for layer in self._norms():
            layer.requires_grad_(False)
        self.train(self.training)

    def _norms(self) -> list[nn.Module]:
        kind = nn.modules.batchnorm._BatchNorm
        return [layer for layer in self.backbone.modules() if isinstance(layer, kind)]

    def train(self, mode: bool = True) -> "ASDTNetwork":
        """Switch dropout; batch normalisation stays in evaluation mode."""
        super().train(mode)
        for layer in self._norms():  # batches of 4 crops are too small for statistics
            layer.eval()
        return self

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> Outputs:
        """Compute all heads on images in [0, 1]."""
        features = self.backbone(self.backbone.normalize(images)).last
        return Outputs(
            self.tag_head(self.dropout(features)),
            self.tag_head.cam(features),
            self.seg_head(features),
            None if self.student_head is None else self.student_head(features),
        )

    @torch.no_grad()
    def fused_cam(
        self, images: Float[Tensor, "b 3 h w"], cam: Float[Tensor, "b k gh gw"]
    ) -> Float[Tensor, "b k gh gw"]:
        """Average the maps of several scales, ReLU first, on the grid of scale 1; not normalised.

        Args:
            images: RGB in [0, 1].
            cam: raw maps of scale 1, from the training pass.
        """
        h, w = images.shape[-2:]
        inputs = self.backbone.normalize(images)
        views = [cam]
        with evaluation_mode(self.backbone, DROPOUT, on=not self.config.cam_dropout):
            if not self.config.cam_dropout:  # `cam` was made with dropout
                views = [self.tag_head.cam(self.backbone(inputs).last)]
            for scale in self.config.scales[1:]:
                sides = (int(h * scale), int(w * scale))
                view = F.interpolate(inputs, sides, mode="bilinear", align_corners=False)
                views.append(self.tag_head.cam(self.backbone(view).last))
        return fuse_cams(views, (cam.shape[2], cam.shape[3]), self.fusion)

    def param_groups(self, lr: float, head_lr: float, weight_decay: float) -> list[ParamGroup]:
        """Sort parameters into backbone weights, its vectors, head weights and head biases.

        Vectors have twice the rate and no weight decay. Released: 7e-4 times 1, 2, 10, 20, decay
        1e-5. The second group is empty for Wide ResNet-38, whose convolutions have no biases.

        Args:
            lr: of backbone weights.
            head_lr: of head weights.
            weight_decay: of both.
        """
        heads = [self.tag_head, self.seg_head, self.student_head]
        groups: list[ParamGroup] = []
        for modules, rate in (([self.backbone], lr), (heads, head_lr)):
            trained = [p for m in modules if m is not None for p in m.parameters()]
            trained = [p for p in trained if p.requires_grad]
            matrices = [p for p in trained if p.ndim > 1]
            vectors = [p for p in trained if p.ndim <= 1]
            groups.append({"params": matrices, "lr": rate, "weight_decay": weight_decay})
            groups.append({"params": vectors, "lr": 2 * rate, "weight_decay": 0.0})
        return groups
