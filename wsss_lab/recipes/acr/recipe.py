"""ACR from data to `metrics.json`: transformer -> maps -> pseudo-labels -> segmentation network.

====================================================================  =============================
stage                                                                 it leaves in its folder
====================================================================  =============================
fit: train `wsss_lab.methods.acr.method.ACR` on tags                  `fit/model.safetensors`
labels: localise with the true tags, CRF, sure pixels                 `labels/NAME.png`
affinity: train `AffinityNetwork` on these labels                     `affinity/model.safetensors`
propagate: maps walk along affinities, then the CRF                   `propagated/NAME.png`
masks: train `DeepLabV2` or `SegNetwork` on the last labels           `model.safetensors`
evaluate: on the validation list; maps and labels of training images  `metrics.json`
instead, where there is no mask to compare with                       `overlays/`, `metrics.json`
====================================================================  =============================

`propagation="crf"` leaves out the third and the fourth stage, `until="maps"` all between the first
and the last.

Settings of the method are those of `wsss_lab.methods.acr.config.PRESETS`. The released code ends
with the maps: it saves them, and scores them by the best of 100 thresholds on VOC train (1464
images), with the true tags. Nothing of it turns maps into a segmentation network. The numbers
listed for ACR are of a DeepLabV2 on ResNet-101, and the repository's history holds trials of
AffinityNet and of IRN in between; which of them fed the paper is not known. This recipe takes the
AffinityNet-style route (`wsss_lab.methods.common.affinity_net`) for photos. Nobody has run it at
full size here.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxtyping import Float
from torch import Tensor

from wsss_lab.evaluate.inference import MultiScale
from wsss_lab.evaluate.tables import tables
from wsss_lab.methods.acr import config as acr
from wsss_lab.methods.acr.keymap import KEYMAP
from wsss_lab.methods.acr.method import ACR
from wsss_lab.methods.acr.network import flatten_attention
from wsss_lab.methods.acr.released import network_of
from wsss_lab.methods.common.base import Method, SegOutput
from wsss_lab.models.backbones import build_backbone
from wsss_lab.models.weights import load_backbone_weights, load_strictly
from wsss_lab.progress import Headings
from wsss_lab.recipes.acr.config import NAME, NO_PRESET, PRESETS, Config
from wsss_lab.recipes.acr.labels import label_rule, score_labels, walk_rule
from wsss_lab.recipes.acr.stages import (
    Stages,
    build_affinity,
    build_masks,
    count_stages,
    later_stages,
    map_views,
    mask_views,
    stage_runs,
)
from wsss_lab.runs.contents import OVERLAYS
from wsss_lab.runs.folder import RunFolder, device_name
from wsss_lab.runs.lists import finish_unscored, load_lists
from wsss_lab.runs.owner import own_run
from wsss_lab.runs.recipe import TrainingStage
from wsss_lab.runs.scoring import count_classes, released_preset, score, score_training_maps
from wsss_lab.runs.settings import restore
from wsss_lab.runs.stages import Log, launch, seeded
from wsss_lab.runs.start import read_start, start_method
from wsss_lab.train.fabric import Fabric

__all__ = [
    "NAME",
    "NO_PRESET",
    "PRESETS",
    "TAGS_NOTE",
    "Config",
    "Localiser",
    "build",
    "label_rule",
    "load_method",
    "load_released",
    "load_views",
    "train",
    "views",
]

TAGS_NOTE = (
    "ACR's released code localises with the true tags and reports the best threshold of the scored "
    "list; its list is VOC train (--data.val-split train)"
)
"""Which column of an evaluation corresponds to published numbers."""


_TAGS = {
    "method.alpha": 0.0,
    "method.activation": False,
    "method.affinity": False,
    "run.steps": 750,
    "until": "maps",
}
WARM_UPS: dict[str, dict[str, Any]] = {
    "toy_vit2": _TAGS | {"backbone": "toy_vit2"},
    "toy_vit": _TAGS | {"backbone": "toy_vit"},
}
"""Backbone -> changes to the preset `toy` that leave the tag loss alone."""


class Localiser(Method):
    """Maps of a trained ACR as predictions, of the true tags or else of the predicted ones.

    Args:
        method: trained.
    """

    uses_tags = True

    def __init__(self, method: ACR):
        super().__init__()
        self.acr = method

    def predict(
        self, images: Float[Tensor, "b 3 h w"], tags: Float[Tensor, "b k"] | None = None
    ) -> SegOutput:
        """Compute maps in 0..1 at the size of the images, mirror image included, and tag logits.

        Args:
            images: RGB in [0, 1].
            tags: true tags, if they may be used.
        """
        return SegOutput(cam=self.acr.localise(images, tags), tag_logits=self.acr(images))


def build(config: Config, classes: int, pretrained: bool, **options: Any) -> ACR:
    """Build the method; its head is drawn from the current random seed.

    Args:
        config: uses `method`, `backbone` and `weights`.
        classes: foreground classes `k`.
        pretrained: load the backbone's weights.
        **options: of the backbone, beyond those of the method's presets.
    """
    known = {preset.backbone: preset.options for preset in acr.PRESETS.values()}
    backbone = build_backbone(config.backbone, **{**known.get(config.backbone, {}), **options})
    if pretrained:
        load_backbone_weights(backbone, config.weights)
    return ACR(backbone, classes, config.method)


def train(
    config: Config, out: Path, resume: bool = False, log: Log = print, overwrite: bool = False
) -> dict[str, Any]:
    """Run all stages, or go on with those that are not done.

    Args:
        config: the settings.
        out: folder of the run.
        resume: go on with the run in `out`.
        log: takes lines of text.
        overwrite: replace a run that `out` holds.

    Returns:
        The content of `metrics.json`.

    Raises:
        ValueError, FileExistsError, FileNotFoundError: settings, data or folder do not fit.
        OutputError: a result cannot be written.
    """
    with own_run(out, NAME, config, resume, log, training_stages, overwrite) as folder:
        return _train(folder, config, log)


def training_stages(config: Config) -> list[TrainingStage]:
    """List what a run with these settings trains."""

    def transformer(classes: int) -> ACR:
        if config.start:  # that it fits is seen when the classes are known
            read_start(config.start, NAME, config.backbone)
        return build(config, classes, True)

    return [TrainingStage(transformer, config.run, config.optim), *later_stages(config)]


def _train(folder: RunFolder, config: Config, log: Log) -> dict[str, Any]:
    fabric, log = launch(config.run, log)
    runs = stage_runs(config)
    batch = max(run.batch for run in runs.values())
    images, val = load_lists(config.data, log, batch=batch)
    seeded(config.run.seed)
    method, classes = build(config, images.num_classes, True), images.class_names
    start_method(method, config.start, NAME, config.backbone, classes)
    flatten_attention(method.backbone, config.method.flat)
    folder.begin(classes)
    fabric.barrier()  # a replaced run is gone before any process looks for its stages
    origin = {"seed": config.run.seed, "device": device_name(fabric.device)}
    headings = Headings(log, count_stages(config, val is not None))
    stages = Stages(folder, config, runs, images, fabric, log, headings)
    localiser = Localiser(stages.fit(method)).eval()
    return folder.write_metrics(_results(stages, localiser, val), weights=config.weights, **origin)


def _results(stages: Stages, localiser: Localiser, val: Any) -> dict[str, Any]:
    """Run the stages after the maps; scores, or without truth overlays of the last labels."""
    config, fabric, log, out = stages.config, stages.fabric, stages.log, stages.folder.path
    if config.until == "maps" and val is not None:
        stages.headings.open("evaluate", "maps against the truth", "metrics.json")
        return _score(config, localiser, None, val, fabric, log)
    stages.label("labels", localiser, label_rule(config))
    folders, network = {"sure": out / "labels"}, None
    if config.until == "masks":
        if config.propagation == "affinity":
            affinity = stages.affinity(folders["sure"])
            stages.label("propagated", localiser, walk_rule(config, affinity), affinity)
            folders["propagated"] = out / "propagated"
        network = stages.masks(list(folders.values())[-1])
    if val is None:
        stages.headings.open("overlays", "labels over their images, no scores", f"{OVERLAYS}/")
        last = list(folders.values())[-1].name
        return finish_unscored(stages.images, out, last, fabric=fabric, log=log)
    stages.headings.open("evaluate", "networks and labels against the truth", "metrics.json")
    results = _score(config, localiser, network, val, fabric, log)
    if labels := score_labels(localiser, folders, config, fabric, log):
        results["train_labels"] = labels
    return results


def _score(
    config: Config,
    localiser: Localiser,
    network: Method | None,
    val: Any,
    fabric: Fabric,
    log: Log,
) -> dict[str, Any]:
    """Segmentation, if there is one, and maps on the validation list; maps of training images."""
    at, single = config.test.cam_threshold, map_views(config)
    seg = score(network, val, mask_views(config), config, fabric, at, log) if network else None
    cam = score(localiser, val, single, config, fabric, at, log)
    train = score_training_maps(localiser, single, config, fabric, log, at)
    parts = [
        *([("segmentation network, validation list", seg)] if seg else []),
        ("maps, validation list", cam),
        *(("maps of training images, whose tags are given", found) for found in train.values()),
    ]
    log(f"\n{tables(parts)}")
    shown = {"val": (seg.as_dict() if seg else {}) | cam.as_dict()}
    return shown | {name: found.as_dict() for name, found in train.items()}


def load_method(facts: Mapping[str, Any], state: Mapping[str, Tensor]) -> Method:
    """Build the network of a weights file that `train` wrote, of any stage, in eval mode.

    Args:
        facts: see `wsss_lab.runs.weights_file.read_facts`.
        state: its tensors.

    Raises:
        ValueError: the tensors do not fit.
    """
    config, classes = restore(Config, facts["config"]), len(facts["classes"])
    method: Any
    if facts["part"] == "ACR":
        method = build(config, classes - 1, False)
    elif facts["part"] == "AffinityNetwork":
        method = build_affinity(config, False)
    else:
        method = build_masks(config, classes, False)
    load_strictly(method, state, what=f"weights of {NAME}")
    return (Localiser(method) if facts["part"] == "ACR" else method).eval()


def load_views(facts: Mapping[str, Any]) -> MultiScale:
    """Return scales and flips with which the network of a weights file is evaluated."""
    config = restore(Config, facts["config"])
    return map_views(config) if facts["part"] == "ACR" else mask_views(config)


def views(config: Config) -> MultiScale:
    """Return those of a released network: one view, as `localise` takes the mirror image itself."""
    return map_views(config)


def load_released(state: Mapping[str, Tensor]) -> tuple[Method, Config]:
    """Build the authors' network, in eval mode, and the settings it had.

    Args:
        state: the released tensors by name: the hybrid, ViT-B or DeiT-B.

    Raises:
        ValueError: the tensors do not fit, or no released preset has this number of classes.
    """
    classes = count_classes(state, KEYMAP, NAME)
    config = PRESETS[released_preset(PRESETS, classes, NAME)]
    name, options = network_of(state)
    if config.backbone == "r50_vit_b16":  # that of the presets, as the scripts train it
        config = dataclasses.replace(config, backbone=name)
    else:
        options = {}
    method = build(config, classes, False, **options)
    method.load_released(state)
    return Localiser(method).eval(), config
