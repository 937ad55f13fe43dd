"""Pre-training of a toy transformer on the maps of the packaged toy_cnn, level by level.

Tags of one-object images teach a small transformer what is there, not where: attention carries the
class to every cell, and a fresh tag head finds it everywhere. Here most of the loss is dense. Every
cell of several maps has to foretell what toy_cnn sees there, also in images with a rectangle of
another image in them, where the class of a cell is not the class of the image.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from wsss_lab.methods.cam_baseline import TagClassifier
from wsss_lab.methods.common.base import Batch, ParamGroup, StepOutput, split_decay
from wsss_lab.models.backbones import build_backbone
from wsss_lab.models.base import Backbone
from wsss_lab.models.weights import load_backbone_weights

LEVELS = {
    "toy_mit": ((0, 0), (1, 1), (3, 2)),
    "toy_mit2": ((0, 0), (1, 1), (3, 2)),
    "toy_vit": ((0, 2), (1, 2)),
    "toy_vit2": ((0, 2), (1, 2)),
}
"""Student -> pairs of a level of its pyramid and the level of toy_cnn that it imitates; equal
strides."""


def paste_rectangles(
    images: Float[Tensor, "b 3 h w"], others: Float[Tensor, "b 3 h w"]
) -> Float[Tensor, "b 3 h w"]:
    """Replace a rectangle of every image by the same rectangle of another one.

    Sides are a third to two thirds of the image's, places uniform (Yun et al., "CutMix", ICCV 2019,
    without the mixed tags). Random numbers come from the CPU's global generator.

    Args:
        images: receive the rectangles.
        others: give them.
    """
    count, _, *size = images.shape
    inside = []
    for side in size:
        length = side * (1 + torch.rand(count, 1)) / 3
        start = torch.rand(count, 1) * (side - length)
        place = torch.arange(side)
        inside.append((place >= start) & (place < start + length))
    rectangle = (inside[0][:, None, :, None] & inside[1][:, None, None, :]).to(images.device)
    return torch.where(rectangle, others, images)


def unexplained(
    foretold: Float[Tensor, "b d h w"], target: Float[Tensor, "b d h w"]
) -> Float[Tensor, ""]:
    """Share of the target's variance that a prediction misses, mean over channels.

    1 for the best constant, 0 for a perfect prediction. Channels count alike: the target is
    standardised over the batch first, and `foretold` is in these units.

    Args:
        foretold: prediction of the standardised target.
        target: maps of the teacher.
    """
    standard = F.batch_norm(target.float(), None, None, training=True)
    return F.mse_loss(foretold.float(), standard)


class LevelImitation(TagClassifier):
    """A tag classifier whose maps also have to foretell those of the packaged toy_cnn.

    Loss: `tag_weight` times the cross-entropy of the class, plus the mean over `LEVELS` of
    `unexplained`. The second half of every batch has rectangles of the first half in it and takes
    no part in the class loss. The teacher is no submodule: it is neither trained nor saved.

    Args:
        backbone: student, a key of `LEVELS`.
        classes: number of classes.
        tag_weight: weight of the class loss.

    Raises:
        ValueError: a student without levels to imitate.
    """

    def __init__(self, backbone: Backbone, classes: int, tag_weight: float = 0.2):
        super().__init__(backbone, classes, exclusive=True)
        if backbone.name not in LEVELS:
            raise ValueError(
                f"backbone: expected one of {', '.join(LEVELS)} to imitate toy_cnn, got "
                f"{backbone.name}: train it with tags alone"
            )
        teacher = load_backbone_weights(build_backbone("toy_cnn"), "toy").eval()
        self._teacher = [teacher.requires_grad_(False)]
        self.tag_weight = tag_weight
        self.pairs = LEVELS[backbone.name]
        self.translate = nn.ModuleList(
            nn.Conv2d(backbone.widths[own], teacher.widths[other], 1) for own, other in self.pairs
        )

    def training_step(self, batch: Batch, step: int) -> StepOutput:
        """Class loss and imitation loss of a batch of at least two one-object images."""
        whole = (len(batch["images"]) + 1) // 2
        first, second = batch["images"][:whole], batch["images"][whole:]
        images = torch.cat([first, paste_rectangles(second, first[: len(second)])])
        with torch.no_grad():
            teacher = self._teacher[0].to(images.device)
            targets = teacher(teacher.normalize(images)).pyramid
        features = self.backbone(self.backbone.normalize(images))
        logits = self.head(features.last[:whole]).float()
        tags = F.cross_entropy(logits, batch["tags"][:whole].argmax(1))
        missed = torch.stack(
            [
                unexplained(translate(features.pyramid[own]), targets[other])
                for translate, (own, other) in zip(self.translate, self.pairs, strict=True)
            ]
        )
        loss = self.tag_weight * tags + missed.mean()
        parts = {"tags": tags, "imitation": missed.mean(), "last": missed[-1]}
        return StepOutput(loss, parts)

    def param_groups(self, lr: float, head_lr: float, weight_decay: float) -> list[ParamGroup]:
        """As the tag classifier, with the translations beside the head."""
        groups = super().param_groups(lr, head_lr, weight_decay)
        return groups + split_decay(self.translate, head_lr, weight_decay)
