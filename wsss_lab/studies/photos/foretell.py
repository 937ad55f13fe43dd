"""A transformer on Lite0's early stages foretells what Lite0's late stages compute."""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from wsss_lab.models.backbones import build_backbone
from wsss_lab.models.base import Backbone
from wsss_lab.models.lite0 import lite0_classifier, load_lite0
from wsss_lab.models.lite0_vit import STEM_STAGES, Lite0ViTBackbone, load_stem

AXES = 256
"""Directions kept by `class_axes`."""
FLOOR = -1.0
"""Targets below this count as this."""


@dataclass(frozen=True)
class Targets:
    """Targets of the student.

    Attributes:
        stem: map of the shared, frozen stem, (b, 112, gh, gw).
        last: Lite0's last map before its activation, dilated to the same grid, (b, n, 1280).
        log_probs: Lite0's 1,000-class log-probabilities, at its own stride of 32, (b, 1000).
    """

    stem: Tensor
    last: Tensor
    log_probs: Tensor


class Teacher(nn.Module):
    """Lite0 as it is, and dilated to stride 16, on one run of the stages they share."""

    def __init__(self, stem: nn.Module) -> None:
        super().__init__()
        self.stem = stem
        self.coarse, self.fine = (self._late(stride) for stride in (32, 16))
        self.classifier = lite0_classifier()
        self.requires_grad_(False).eval()

    @staticmethod
    def _late(stride: int) -> nn.Sequential:
        backbone: Any = build_backbone("lite0", output_stride=stride)
        load_lite0(backbone)
        net = backbone.net
        # clipping to 0..6 is left out: nine in ten values would be 0 and say little
        norm = net.bn2
        linear = nn.BatchNorm2d(norm.num_features, eps=norm.eps)
        linear.load_state_dict(norm.state_dict())
        return nn.Sequential(*net.blocks[STEM_STAGES:], net.conv_head, linear)

    @torch.inference_mode()
    def forward(self, images: Float[Tensor, "b 3 h w"]) -> Targets:
        """Compute the targets of normalised images."""
        stem = self.stem(images)
        logits = self.classifier(F.relu6(self.coarse(stem)).mean(dim=(2, 3)))
        return Targets(stem, self.fine(stem).flatten(2).mT, logits.log_softmax(1))


def class_axes(classifier: nn.Linear, count: int = AXES) -> Float[Tensor, "1280 a"]:
    """Directions of the last map that matter most to the classifier, scaled by how much.

    The squared distance of two vectors along them is, but for the least directions, that of their
    logits after subtraction of the logits' mean.

    Args:
        classifier: 1,280 to 1,000.
        count: directions kept, a.
    """
    weight = classifier.weight.detach() - classifier.weight.detach().mean(0)
    _, scale, axes = torch.linalg.svd(weight, full_matrices=False)
    return (axes[:count] * scale[:count, None]).T.contiguous()


class Foreteller(nn.Module):
    """The student: a `Lite0ViTBackbone` whose stem is frozen, and two linear heads.

    Args:
        backbone: student.
        teacher: its last normalisation gives each channel's mean and deviation, from which the
            foretold map starts; its classifier turns foretold means into logits.
    """

    mean: Tensor
    deviation: Tensor
    axes: Tensor

    def __init__(self, backbone: Lite0ViTBackbone, teacher: Teacher) -> None:
        super().__init__()
        self.backbone = backbone
        self.translate = nn.Linear(backbone.width, 1280)
        self.describe = nn.Linear(backbone.width, 1280)
        norm: Any = teacher.fine[-1]
        self.register_buffer("mean", norm.bias.clone(), persistent=False)
        self.register_buffer("deviation", norm.weight.abs(), persistent=False)
        self.register_buffer("axes", class_axes(teacher.classifier), persistent=False)
        self._classifier = [teacher.classifier]  # in a list: no part of this module

    def classify(self, pooled: Float[Tensor, "b 1280"]) -> Float[Tensor, "b 1000"]:
        """Compute Lite0's logits of a mean of its activated last map."""
        return self._classifier[0](pooled)

    def foretell_map(self, tokens: Float[Tensor, "b n d"]) -> Float[Tensor, "b n 1280"]:
        """Foretell the last map before its activation, cells row by row."""
        return self.translate(tokens).float() * self.deviation + self.mean

    def foretell_classes(self, token: Float[Tensor, "b d"]) -> Float[Tensor, "b 1000"]:
        """Foretell Lite0's logits from the class token, by way of the mean of the last map."""
        return self.classify(self.describe(token).float())

    def forward(
        self, stem: Float[Tensor, "b 112 gh gw"]
    ) -> tuple[Float[Tensor, "b n 1280"], Float[Tensor, "b 1000"]]:
        """Foretell the last map and the class logits from the stem's map."""
        _, x = self.backbone.tokens_of(stem)
        return self.foretell_map(x[:, 1:]), self.foretell_classes(x[:, 0])


def map_losses(
    told: Float[Tensor, "b n d"], target: Float[Tensor, "b n d"], axes: Float[Tensor, "d a"]
) -> dict[str, Float[Tensor, ""]]:
    """Compare a foretold map with the true one, both before the activation.

    Args:
        told: foretold values.
        target: true values.
        axes: see `class_axes`.

    Returns:
        ``cosine``: 1 - cosine of the activated vectors (clipped to 0..6, as Lite0 does), averaged
        over cells. ``classes``: squared error of the activated vectors along `axes`, relative to
        the targets' variance there. ``error``: squared error of the values themselves, relative to
        their variance; values below `FLOOR` count as `FLOOR`, since the activation hides how far
        below 0 they are.
    """
    own, true = F.relu6(told), F.relu6(target)
    cosine = F.cosine_similarity(own, true, dim=2).mean()
    logits = true @ axes
    variance = (logits - logits.mean(dim=(0, 1))).square().mean()
    classes = (own @ axes - logits).square().mean() / variance
    kept = target.clamp(FLOOR, 6.0)
    both_low = (target <= FLOOR) & (told <= FLOOR)
    error = (told - kept).masked_fill(both_low, 0).square().mean() / kept.var()
    return {"cosine": 1 - cosine, "classes": classes, "error": error}


def losses(student: Foreteller, targets: Targets, half: bool = False) -> dict[str, Tensor]:
    """Compute all losses.

    Args:
        student: network in training.
        targets: from `Teacher`, computed on the same images.
        half: multiply in bfloat16.

    Returns:
        Those of `map_losses`; ``token``: divergence (nats) of the class token's
        1,000 probabilities from Lite0's; ``mean``: of those that Lite0's classifier gives for the
        mean of the foretold map.
    """
    with torch.autocast("cpu", torch.bfloat16, enabled=half):
        told, logits = student(targets.stem.clone())
    found = map_losses(told, targets.last.clone(), student.axes)
    truth = targets.log_probs.clone()

    def divergence(found: Tensor) -> Tensor:
        return F.kl_div(found.log_softmax(1), truth, reduction="batchmean", log_target=True)

    mean = divergence(student.classify(F.relu6(told).mean(1)))
    return found | {"token": divergence(logits), "mean": mean}


def build_pair() -> tuple[Foreteller, Teacher]:
    """Build a student with a random transformer, and its teacher, on one loaded, frozen stem."""
    backbone: Backbone = build_backbone("lite0_vit")
    if not isinstance(backbone, Lite0ViTBackbone):
        raise TypeError(f"lite0_vit must be a Lite0ViTBackbone, got {type(backbone).__name__}")
    load_stem(backbone)
    backbone.net.patch_embed.backbone.requires_grad_(False)
    teacher = Teacher(backbone.net.patch_embed.backbone)
    return Foreteller(backbone, teacher), teacher
