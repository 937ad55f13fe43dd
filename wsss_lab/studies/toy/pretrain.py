"""Pre-training of a toy backbone on scenes with one object, and packing of its weights.

    python -m wsss_lab.studies.toy.pretrain toy_cnn

takes the place of ImageNet in the papers: the network learns to classify single-object images into
the ten classes. The weights go into the package as half-precision safetensors with their
`metrics.json` beside them; the accuracy in it is measured after rounding.
"""

import dataclasses
import time
from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch.nn.functional as F
import tyro
from torch import Tensor, nn

from wsss_lab.config import OptimConfig, RunConfig, provenance
from wsss_lab.data.augment import augment
from wsss_lab.data.catalog import TOY_CLASSES
from wsss_lab.data.loader import StepSampler
from wsss_lab.data.toy import TOY_VERSION, ToyWorld
from wsss_lab.methods.cam_baseline import TagClassifier
from wsss_lab.methods.common.base import Batch, ParamGroup, StepOutput, split_decay
from wsss_lab.models.backbones import build_backbone
from wsss_lab.models.base import Backbone
from wsss_lab.models.weights import load_backbone_weights, save_backbone_weights
from wsss_lab.ranges import Count, Factor, Positive, Settings
from wsss_lab.studies.toy.imitation import LevelImitation
from wsss_lab.train.fit import fit, image_batches, in_memory

PACKAGE = Path(__file__).parents[2] / "weights"


@dataclass(frozen=True)
class Pretrain(Settings):
    """Settings of one pre-training run."""

    backbone: tyro.conf.Positional[str]
    """toy_cnn, toy_mit, toy_vit, toy_mit2 or toy_vit2."""
    count: Count = 16_000
    """Single-object scenes to train on."""
    epochs: Positive = 5.0
    """Passes over them."""
    run: RunConfig = field(default_factory=lambda: RunConfig(batch=64))
    """Settings of the run; steps are set from `count` and `epochs`."""
    optim: OptimConfig = field(default_factory=lambda: OptimConfig(lr=2e-3, head_lr_factor=1.0))
    """Optimiser."""
    held_out: Count = 1000
    """Further scenes, for the accuracy."""
    stem_from_cnn: bool = False
    """toy_vit, toy_vit2 and toy_mit2 only: start the convolutional stem from the packaged toy_cnn,
    as hybrids start from a trained ResNet. Halves the training that attention blocks need."""
    imitate_cnn: bool = False
    """Also learn the last map of the packaged toy_cnn cell by cell: 256 targets per image, not one.
    For transformers, whose training on tags alone is too slow for a laptop."""
    imitate_levels: bool = False
    """Transformers only: learn several maps of the packaged toy_cnn, see `LevelImitation`."""
    tag_weight: Factor = 0.2
    """Weight of the class loss beside `imitate_levels`."""
    run_folder: Path | None = None
    """Checkpoints and log; a run in it goes on. None keeps neither."""
    out: Path = PACKAGE
    """Folder for `<backbone>.safetensors` and `.json`."""


class Imitation(TagClassifier):
    """Tag classifier whose last map is also trained to predict that of the packaged toy_cnn.

    Loss: cross-entropy of the class, plus 1 - cosine between the teacher's feature vector of a cell
    and a linear function of the student's, averaged over cells. The teacher is no submodule: it is
    neither trained nor saved.

    Args:
        backbone: student; its last map must have the stride of toy_cnn, 8.
        classes: number of classes.
    """

    def __init__(self, backbone: Backbone, classes: int):
        super().__init__(backbone, classes, exclusive=True)
        teacher = load_backbone_weights(build_backbone("toy_cnn"), "toy").eval()
        self._teacher = [teacher.requires_grad_(False)]
        self.translate = nn.Conv2d(backbone.width, teacher.width, 1)

    def training_step(self, batch: Batch, step: int) -> StepOutput:
        """Compute class loss and imitation loss of a batch of one-object images."""
        images = batch["images"]
        with torch.no_grad():
            teacher = self._teacher[0].to(images.device)
            target = teacher(teacher.normalize(images)).last
        features = self.features(images)
        tags = F.cross_entropy(self.head(features).float(), batch["tags"].argmax(1))
        predicted = self.translate(features).float()
        imitation = 1 - F.cosine_similarity(predicted, target.float(), dim=1).mean()
        return StepOutput(tags + imitation, {"tags": tags, "imitation": imitation})

    def param_groups(self, lr: float, head_lr: float, weight_decay: float) -> list[ParamGroup]:
        """Return the groups of the tag classifier, with the linear function added to the head's."""
        groups = super().param_groups(lr, head_lr, weight_decay)
        return groups + split_decay(self.translate, head_lr, weight_decay)


@torch.no_grad()
def accuracy(classifier: TagClassifier, images: Tensor, tags: Tensor) -> float:
    """Compute the share of one-object images classified correctly, 0..1."""
    batches = image_batches(images, 100, next(classifier.parameters()).device)
    logits = torch.cat([classifier(batch).cpu() for batch in batches])
    return (logits.argmax(1) == tags.argmax(1)).float().mean().item()


def round_to_half(backbone: Backbone) -> None:
    """Round the weights to half precision, as the file will hold them."""
    for value in backbone.state_dict().values():
        if value.is_floating_point():
            value.copy_(value.half())


@torch.no_grad()
def start_stem_from_cnn(backbone: Backbone) -> None:
    """Copy stem and stages 1 and 2 of the packaged toy_cnn into a transformer's convolutions.

    toy_vit2 takes whole stages, the others their first blocks: what they have.

    Raises:
        ValueError: another backbone than toy_vit, toy_vit2 and toy_mit2.
    """
    if backbone.name not in ("toy_vit", "toy_vit2", "toy_mit2"):
        raise ValueError(
            "stem_from_cnn is for toy_mit2, toy_vit2 and toy_vit only, got "
            f"{backbone.name}: leave it out"
        )
    cnn = load_backbone_weights(build_backbone("toy_cnn"), "toy").net
    stages = (cnn.stage1, cnn.stage2)
    parts = (cnn.stem, *(stages if backbone.name == "toy_vit2" else [s[0] for s in stages]))
    embed = backbone.net.patch_embed
    if backbone.name == "toy_mit2":
        targets = [embed.stem, embed.block, backbone.net.stages[1].downsample.block]
    else:
        targets = list(embed.backbone)
    for own, trained in zip(targets, parts, strict=True):
        own.load_state_dict(trained.state_dict())


def _classifier(settings: Pretrain, backbone: Backbone) -> TagClassifier:
    """Build the method for the settings."""
    if settings.imitate_levels:
        return LevelImitation(backbone, len(TOY_CLASSES), settings.tag_weight)
    if settings.imitate_cnn:
        return Imitation(backbone, len(TOY_CLASSES))
    return TagClassifier(backbone, len(TOY_CLASSES), exclusive=True)


def run(settings: Pretrain) -> dict:
    """Train, measure on held-out scenes, pack."""
    steps = int(settings.count * settings.epochs / settings.run.batch)
    length = dataclasses.replace(settings.run, steps=steps)
    torch.manual_seed(length.seed)
    backbone = build_backbone(settings.backbone)
    if settings.stem_from_cnn:
        start_stem_from_cnn(backbone)
    record = provenance(
        {"run": dataclasses.asdict(length), "optim": dataclasses.asdict(settings.optim)},
        seed=length.seed,
        device=_device(),
        data=f"{TOY_VERSION}, pretrain",
    )
    world = ToyWorld("pretrain", settings.count + settings.held_out).tensors()
    classifier = _classifier(settings, backbone)
    order = StepSampler(settings.count, length.batch, length.seed)
    started = time.perf_counter()
    images, tags = world["image"], world["tags"]
    fit(
        classifier,
        in_memory(images, tags, order, transform=augment, seed=length.seed),
        length,
        settings.optim,
        out=settings.run_folder,
    )
    seconds = time.perf_counter() - started
    held_out = slice(settings.count, None)
    round_to_half(classifier.backbone)
    metrics = {
        "accuracy": accuracy(classifier, images[held_out], tags[held_out]),
        "held_out_images": settings.held_out,
        "training_seconds": round(seconds),
        "stem_from_cnn": settings.stem_from_cnn,
        "imitate_cnn": settings.imitate_cnn,
        "imitate_levels": settings.imitate_levels,
        "tag_weight": settings.tag_weight,
        **record,
    }
    classifier.backbone.half()
    settings.out.mkdir(parents=True, exist_ok=True)
    target = settings.out / f"{settings.backbone}.safetensors"
    save_backbone_weights(classifier.backbone, target, metrics)
    return metrics


def _device() -> str:
    return torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"


if __name__ == "__main__":
    print(f"accuracy {run(tyro.cli(Pretrain))['accuracy']:.4f}")
