"""The training and labelling stages of the recipe of ACR, `wsss_lab.recipes.acr.recipe`."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from wsss_lab.config import OptimConfig, RunConfig
from wsss_lab.data.config import DataConfig
from wsss_lab.evaluate.inference import VIEWS, MultiScale
from wsss_lab.methods.acr.method import ACR
from wsss_lab.methods.cam_baseline import SegNetwork
from wsss_lab.methods.common.affinity_net import AffinityNetwork
from wsss_lab.methods.common.base import Method
from wsss_lab.methods.common.deeplab import DeepLabV2
from wsss_lab.models.backbones import build_backbone
from wsss_lab.models.base import Backbone
from wsss_lab.models.weights import load_backbone_weights
from wsss_lab.progress import Headings
from wsss_lab.recipes.acr.config import NAME, Config
from wsss_lab.runs.folder import RunFolder
from wsss_lab.runs.images import PseudoLabelled
from wsss_lab.runs.labels import LabelRule, label_stage
from wsss_lab.runs.recipe import TrainingStage, find_views
from wsss_lab.runs.scoring import bounded
from wsss_lab.runs.stages import Log, fit_stage, seeded
from wsss_lab.train.fabric import Fabric


def map_views(config: Config) -> MultiScale:
    """Return the one view of maps: `localise` takes the mirror image itself."""
    return bounded(VIEWS["single"], config.test)


def mask_views(config: Config) -> MultiScale:
    """Return the scales and flips of the segmentation network."""
    return bounded(find_views(config.test.views), config.test)


def stage_runs(config: Config) -> dict[str, RunConfig]:
    """Compute length and batch of every training stage of a run."""
    if config.until == "maps":
        return {"fit": config.run}
    steps, batch = config.mask_steps or config.run.steps, config.mask_batch or config.run.batch
    masks = dataclasses.replace(config.run, steps=steps, batch=batch)
    runs = {"fit": config.run, "masks": masks}
    if config.propagation == "affinity":
        steps, batch = config.affinity.steps, config.affinity.batch
        runs["affinity"] = dataclasses.replace(config.run, steps=steps, batch=batch)
    return runs


def count_stages(config: Config, scored: bool) -> int:
    """Count the headings of a run, the last one of scores or overlays included."""
    labelled = config.until == "masks" or not scored
    spread = config.until == "masks" and config.propagation == "affinity"
    return 2 + labelled + 2 * spread + (config.until == "masks")


def stage_data(config: Config, stage: str) -> DataConfig:
    """Compute the crops of a training stage."""
    data = config.data
    if stage == "affinity":
        return dataclasses.replace(data, crop=config.affinity.crop or data.crop)
    if stage == "masks":
        data = dataclasses.replace(data, crop=config.mask_crop or data.crop)
        if config.mask_scale is not None:
            data = dataclasses.replace(data, resize="scale", scale=config.mask_scale)
    return data


def later_stages(config: Config) -> list[TrainingStage]:
    """List what a run trains after the transformer."""
    runs = stage_runs(config)
    stages = []
    if "affinity" in runs:
        stages.append(
            TrainingStage(
                lambda classes: build_affinity(config, True),
                runs["affinity"],
                config.affinity.optim,
                "affinity.backbone",
                "affinity.weights",
                "affinity.batch",
                "affinity.steps",
                "affinity.optim",
            )
        )
    if "masks" in runs:
        stages.append(
            TrainingStage(
                lambda classes: build_masks(config, classes + 1, True),
                runs["masks"],
                config.mask_optim,
                "mask_backbone",
                "mask_weights",
                "mask_batch" if config.mask_batch else "run.batch",
                "mask_steps" if config.mask_steps else "run.steps",
                "mask_optim",
            )
        )
    return stages


@dataclass(frozen=True)
class Stages:
    """Stages of one run, each of which goes on where an earlier start has stopped."""

    folder: RunFolder
    config: Config
    runs: Mapping[str, RunConfig]
    images: Any
    """Training list, without masks."""
    fabric: Fabric
    log: Log
    headings: Headings

    def fit(self, method: ACR) -> Any:
        """Train the transformer on tags."""
        self.headings.open("fit", "a transformer learns from tags", "fit/model.safetensors")
        weights = self.folder.path / "fit" / "model.safetensors"
        return self._train("fit", method, self.images, self.config.optim, weights)

    def label(self, name: str, localiser: Method, rule: LabelRule, *also: nn.Module) -> None:
        """Write labels of all training images into the folder `name`.

        Args:
            name: of the folder.
            localiser: gives class maps.
            rule: makes labels of them.
            *also: further networks that the rule uses.
        """
        self.headings.open(name, "training images are labelled", f"{name}/NAME.png")
        label_stage(
            localiser,
            self.images,
            self.folder.path / name,
            views=map_views(self.config),
            rule=rule,
            also=also,
            batch=self.config.test.batch,
            workers=self.config.run.workers,
            fabric=self.fabric,
            log=lambda line: self.log(line.replace("labels", name, 1)),
        )

    def affinity(self, labels: Path) -> Any:
        """Train the affinity network on sure labels."""
        self.headings.open("affinity", "what belongs together", "affinity/model.safetensors")
        seeded(self.config.run.seed)
        network = build_affinity(self.config, True)
        weights = self.folder.path / "affinity" / "model.safetensors"
        optim = self.config.affinity.optim
        return self._train("affinity", network, self._labelled(labels), optim, weights)

    def masks(self, labels: Path) -> Method:
        """Train the segmentation network on labels."""
        self.headings.open("masks", "a segmentation network learns", "model.safetensors")
        seeded(self.config.run.seed)
        network = build_masks(self.config, self.images.num_classes + 1, True)
        weights = self.folder.path / "model.safetensors"
        optim = self.config.mask_optim
        return self._train("masks", network, self._labelled(labels), optim, weights)

    def _labelled(self, labels: Path) -> PseudoLabelled:
        return PseudoLabelled(self.images, labels, self.images.num_classes + 1)

    def _train(
        self, stage: str, method: Method, images: Any, optim: OptimConfig, weights: Path
    ) -> Method:
        config = self.config
        starts = {"affinity": config.affinity.weights, "masks": config.mask_weights}
        facts = {
            "method": NAME,
            "part": type(method).__name__,
            "classes": ["background", *self.images.class_names],
            "config": config,
            "weights": starts.get(stage, config.weights),
        }
        return fit_stage(
            self.folder,
            stage,
            method,
            images,
            self.runs[stage],
            optim,
            data=stage_data(config, stage),
            fabric=self.fabric,
            weights=weights,
            facts=facts,
            log=self.log,
        )


def _pretrained(name: str, weights: str) -> Backbone:
    backbone = build_backbone(name)
    return load_backbone_weights(backbone, weights)


def build_affinity(config: Config, pretrained: bool) -> AffinityNetwork:
    """Build the affinity network; its 1x1 convolutions are drawn from the current random seed.

    Args:
        config: uses `affinity`.
        pretrained: load the backbone's weights.
    """
    settings = config.affinity
    backbone = _pretrained(settings.backbone, settings.weights if pretrained else "random")
    return AffinityNetwork(backbone, settings.widths, settings.radius)


def build_masks(config: Config, classes: int, pretrained: bool) -> SegNetwork | DeepLabV2:
    """Build the segmentation network; its head is drawn from the current random seed.

    Args:
        config: uses `mask_network`, `mask_backbone`, `mask_weights` and `hidden`.
        classes: `k1`, background included.
        pretrained: load the backbone's weights.
    """
    backbone = _pretrained(config.mask_backbone, config.mask_weights if pretrained else "random")
    if config.mask_network == "deeplabv2":
        return DeepLabV2(backbone, classes)
    return SegNetwork(backbone, classes, hidden=config.hidden)
