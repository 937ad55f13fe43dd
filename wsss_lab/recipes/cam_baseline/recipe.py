"""The baseline from data to `metrics.json`: tags -> maps -> pseudo-labels -> segmentation network.

| stage | what it leaves in the run's folder |
|---|---|
| tags: train `TagClassifier` on tags alone | `tags/model.safetensors` |
| labels: its maps, refined or not, cut at a threshold fixed beforehand | `labels/NAME.png` |
| masks: train `SegNetwork` on these labels | `model.safetensors` |
| evaluate: both on the validation list, in one pass each | `metrics.json` |
| instead, where there is no mask to compare with | `overlays/`, `metrics.json` |

`until="tags"` leaves out the second and the third stage where there is a mask to compare with.

There is no single released code for this baseline. All settings here are ours; where they follow a
habit of the field, the docstring says so.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from wsss_lab.cam import Fusion
from wsss_lab.config import RunConfig
from wsss_lab.evaluate.inference import LOGIT_FUSIONS, MultiScale
from wsss_lab.evaluate.map_refinement import map_refinement
from wsss_lab.evaluate.tables import tables
from wsss_lab.methods.cam_baseline import SegNetwork, TagClassifier
from wsss_lab.methods.common.base import Method
from wsss_lab.models.backbones import build_backbone
from wsss_lab.models.base import Backbone
from wsss_lab.models.weights import load_backbone_weights, load_strictly
from wsss_lab.progress import Headings
from wsss_lab.recipes.cam_baseline.config import NAME, Config
from wsss_lab.runs.contents import LABELS, OVERLAYS
from wsss_lab.runs.folder import RunFolder, device_name
from wsss_lab.runs.images import PseudoLabelled
from wsss_lab.runs.labels import label_stage
from wsss_lab.runs.lists import finish_unscored, load_lists
from wsss_lab.runs.owner import own_run
from wsss_lab.runs.recipe import TrainingStage
from wsss_lab.runs.scoring import bounded, score, score_training_maps
from wsss_lab.runs.settings import restore
from wsss_lab.runs.stages import Log, fit_stage, launch, seeded
from wsss_lab.runs.start import read_start, start_method
from wsss_lab.train.fabric import Fabric


def cam_views(config: Config) -> MultiScale:
    """Return the scales and flips of the classifier."""
    views = MultiScale(cam=Fusion(scales=config.cam_scales, flip=config.cam_flip))
    return bounded(views, config.test)


def seg_views(config: Config) -> MultiScale:
    """Return the scales and flips of the segmentation network."""
    rule = dataclasses.replace(
        LOGIT_FUSIONS["mean"], scales=config.test.scales, flip=config.test.flip
    )
    return bounded(MultiScale(logits=rule), config.test)


def train(
    config: Config, out: Path, resume: bool = False, log: Log = print, overwrite: bool = False
) -> dict[str, Any]:
    """Run all stages, or go on with those that are not done.

    Args:
        config: the settings.
        out: folder of the run.
        resume: go on with the run in `out`.
        log: gets lines of text.
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

    def classifier(classes: int) -> TagClassifier:
        if config.start:  # that it fits is seen when the classes are known
            read_start(*find_start(config), config.backbone)
        return build(config, classes)

    tags = TrainingStage(classifier, config.run, config.optim)
    if config.until == "tags":
        return [tags]
    masks = "mask_steps" if config.mask_steps else "run.steps"
    return [
        tags,
        TrainingStage(
            lambda classes: build_network(config, classes + 1),
            mask_run(config),
            config.mask_optim,
            steps_setting=masks,
            optim_setting="mask_optim",
        ),
    ]


def _train(folder: RunFolder, config: Config, log: Log) -> dict[str, Any]:
    out = folder.path
    fabric, log = launch(config.run, log)
    images, val = load_lists(config.data, log, batch=config.run.batch)
    seeded(config.run.seed)
    classifier = build(config, images.num_classes)
    start_method(classifier, *find_start(config), config.backbone, images.class_names)
    folder.begin(images.class_names)
    fabric.barrier()  # a replaced run is gone before any process looks for its stages
    facts = {
        "method": NAME,
        "classes": ["background", *images.class_names],
        "config": config,
        "weights": classifier.backbone.weight_tag,
    }
    alone = config.until == "tags"
    stages = Headings(log, (2 if val else 3) if alone else 4)
    common: dict[str, Any] = {"data": config.data, "fabric": fabric, "log": log}

    # 1. tags -> a network that names what is in an image
    stages.open("tags", "a network learns which classes are in an image", "tags/model.safetensors")
    target, part = out / "tags" / "model.safetensors", {"part": "TagClassifier"}
    fit_stage(folder, "tags", classifier, images, config.run, config.optim,
              weights=target, facts=facts | part, **common)  # fmt: skip
    origin = {"seed": config.run.seed, "device": device_name(fabric.device)}
    origin["weights"] = facts["weights"]
    if alone and val is not None:
        stages.open("evaluate", "its maps against the truth", "metrics.json")
        found = _score(config, classifier, None, val, fabric, log)
        return folder.write_metrics(found, **origin)
    # 2. its class maps, cut at a threshold fixed beforehand -> pseudo-labels
    stages.open("labels", "its class maps are cut into pseudo-labels", f"{LABELS}/NAME.png")
    label_stage(classifier, images, out / LABELS, views=cam_views(config),
                threshold=config.threshold, band=config.band,
                refine=map_refinement(config.refine_steps), batch=config.test.batch,
                workers=config.run.workers, fabric=fabric, log=log)  # fmt: skip
    # 3. pseudo-labels -> a segmentation network, which needs no tags afterwards
    network = None
    if not alone:
        stages.open("masks", "a segmentation network learns from them", "model.safetensors")
        classes = images.num_classes + 1
        network = build_network(config, classes)
        labelled = PseudoLabelled(images, out / LABELS, classes)
        target, part = out / "model.safetensors", {"part": "SegNetwork"}
        fit_stage(folder, "masks", network, labelled, mask_run(config), config.mask_optim,
                  weights=target, facts=facts | part, **common)  # fmt: skip
    # 4. both against the truth, if there is one
    if val is None:
        stages.open("overlays", "pseudo-labels over their images, no scores", f"{OVERLAYS}/")
        results = finish_unscored(images, out, LABELS, fabric=fabric, log=log)
    else:
        stages.open("evaluate", "networks and pseudo-labels against the truth", "metrics.json")
        results = _score(config, classifier, network, val, fabric, log)
    return folder.write_metrics(results, **origin)


def build(config: Config, classes: int, pretrained: bool = True) -> TagClassifier:
    """Build the tag classifier for `classes` foreground classes."""
    return TagClassifier(_backbone(config, pretrained), classes, pool=config.pool)


def find_start(config: Config) -> tuple[str, str]:
    """Return source and name of the weights to go on from, as `start_method` takes them.

    A run that went on to masks has its classifier in the folder `tags`; the package's is named so.
    """
    if config.start == "toy":
        return "toy", "tags"
    inner = Path(config.start) / "tags"
    return str(inner) if config.start and inner.is_dir() else config.start, NAME


def build_network(config: Config, classes: int) -> SegNetwork:
    """Build the segmentation network for `classes` classes, background included."""
    seeded(config.run.seed)  # so that it does not depend on the stage before
    return SegNetwork(_backbone(config, True), classes, hidden=config.hidden)


def _backbone(config: Config, pretrained: bool) -> Backbone:
    backbone = build_backbone(config.backbone)
    return load_backbone_weights(backbone, config.weights) if pretrained else backbone


def mask_run(config: Config) -> RunConfig:
    """Length and batch of the segmentation network's training."""
    return dataclasses.replace(config.run, steps=config.mask_steps or config.run.steps)


def _score(
    config: Config,
    classifier: TagClassifier,
    network: SegNetwork | None,
    val: Any,
    fabric: Fabric,
    log: Log,
) -> dict[str, Any]:
    """Segmentation and maps on the validation list; pseudo-labels on some training images."""
    views, at, refine = cam_views(config), config.threshold, map_refinement(config.refine_steps)
    seg = None
    if network is not None:
        seg = score(network.eval(), val, seg_views(config), config, fabric, log=log)
    cam = score(classifier, val, views, config, fabric, at, log, refine)
    pseudo = score_training_maps(classifier, views, config, fabric, log, at, refine)
    parts = [
        *([("segmentation network, validation list", seg)] if seg else []),
        ("tag classifier's maps, validation list", cam),
        *(("pseudo-labels: training images, whose tags are given", p) for p in pseudo.values()),
    ]
    log(f"\n{tables(parts)}")
    results: dict[str, Any] = {"val": (seg.as_dict() if seg else {}) | cam.as_dict()}
    for found in pseudo.values():
        results["pseudo_labels"] = found.as_dict()
    return results


def load_method(facts: Mapping[str, Any], state: Mapping[str, Tensor]) -> Method:
    """Return the network of a weights file that `train` wrote, in eval mode.

    Args:
        facts: see `wsss_lab.runs.weights_file.read_facts`.
        state: its tensors.

    Raises:
        ValueError: the tensors do not fit.
    """
    config = restore(Config, facts["config"])
    backbone = build_backbone(config.backbone)
    method: Method
    if facts["part"] == "TagClassifier":
        method = TagClassifier(backbone, len(facts["classes"]) - 1, pool=config.pool)
    else:
        method = SegNetwork(backbone, len(facts["classes"]), hidden=config.hidden)
    load_strictly(method, state, what=f"weights of {NAME}")
    backbone.weight_tag = str(facts.get("weights", "unknown"))
    return method.eval()


def load_views(facts: Mapping[str, Any]) -> MultiScale:
    """Return the scales and flips with which the network of a weights file is run."""
    config = restore(Config, facts["config"])
    return cam_views(config) if facts["part"] == "TagClassifier" else seg_views(config)
