"""The baseline from data to `metrics.json`: tags -> maps -> pseudo-labels -> segmentation network.

| stage | what it leaves in the run's folder |
|---|---|
| tags: train `TagClassifier` on tags alone | `tags/model.safetensors` |
| labels: its maps, cut at a threshold that no truth has chosen | `labels/NAME.png` |
| masks: train `MaskNetwork` on these labels | `model.safetensors` |
| evaluate: both on the validation list, in one pass each | `metrics.json` |

There is no single released code for this baseline. All settings here are ours; where they follow a
habit of the field, the docstring says so.
"""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from lightning_fabric import Fabric
from torch import Tensor

from wsss_lab.cam import Fusion
from wsss_lab.config import OptimConfig, RunConfig
from wsss_lab.data.config import DataConfig
from wsss_lab.data.errors import DataError
from wsss_lab.evaluate.evaluate import evaluate, resolve_crf
from wsss_lab.evaluate.inference import LOGIT_FUSIONS, Views
from wsss_lab.evaluate.scores import ORACLE, Evaluation
from wsss_lab.methods.cam_baseline import MaskNetwork, TagClassifier
from wsss_lab.methods.common.base import Method
from wsss_lab.metrics import Protocol
from wsss_lab.models.backbones import build_backbone
from wsss_lab.models.base import Backbone
from wsss_lab.models.weights import load_backbone_weights, load_strictly
from wsss_lab.runs.folder import RunFolder, device_name, restore
from wsss_lab.runs.stages import (
    First,
    Labelled,
    fit_stage,
    label_stage,
    launch,
    load_data,
    require_images,
    seeded,
)

NAME = "cam_baseline"


@dataclass(frozen=True)
class TestConfig:
    """How the trained networks are scored."""

    __test__ = False  # no test case, whatever pytest thinks of its name

    scales: tuple[float, ...] = (1.0,)
    """Scales whose logits are averaged."""
    flip: bool = False
    """Average with the mirrored image, too."""
    batch: int = 8
    """Images of one size per forward pass, at most."""
    crf: str = "none"
    """Post-processing by name; "none" for none."""
    tags_at_test: bool = False
    """Score a second time with the true tags of every image. An oracle, and reported as one."""


@dataclass(frozen=True)
class Config:
    """Settings of the CAM baseline. All defaults are ours."""

    data: DataConfig = field(default_factory=DataConfig)
    """Which images, and how they are cut for training."""
    backbone: str = "toy_cnn"
    """Network of both stages, see `python -m wsss_lab info`."""
    weights: str = "toy"
    """What it starts from: `toy`, the exact name of timm weights, or a file."""
    pool: Literal["gap", "gmp"] = "gap"
    """How the classifier pools: average (the CAM paper) or maximum (TSCD, CoSA)."""
    run: RunConfig = field(default_factory=RunConfig)
    """Training with tags; seed, devices, precision and log hold for both networks."""
    optim: OptimConfig = field(default_factory=OptimConfig)
    """Optimiser of the tag classifier."""
    cam_scales: tuple[float, ...] = (1.0, 0.5, 1.5)
    """Scales of the maps that labels are made of, as TSCD and CoSA (released codes)."""
    cam_flip: bool = True
    """Mirrored images, too."""
    threshold: float = 0.4
    """Background score of the pseudo-labels, 0..1: fixed beforehand, not chosen on any truth."""
    band: tuple[float, float] | None = None
    """(low, high) instead: background up to low, ignored up to high."""
    mask_steps: int = 0
    """Steps of the segmentation network; 0 takes `run.steps`."""
    mask_optim: OptimConfig = field(default_factory=OptimConfig)
    """Optimiser of the segmentation network."""
    hidden: int = 64
    """Channels of the segmentation decoder."""
    report_train: int = 200
    """Training images on which the pseudo-labels are compared with the truth, if there is one; 0
    for none. For the report only: nothing is chosen by it."""
    test: TestConfig = field(default_factory=TestConfig)
    """How the result is scored."""

    def __post_init__(self) -> None:
        if not 0 <= self.threshold <= 1:
            raise ValueError(f"threshold: expected 0..1, got {self.threshold}")
        for name in ("mask_steps", "report_train"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}: expected at least 0, got {getattr(self, name)}")
        if self.hidden < 1 or self.test.batch < 1:
            raise ValueError("hidden, test.batch: expected at least 1")


def _photos(name: Literal["voc", "coco", "stuff10k"], steps: int, mask_steps: int) -> Config:
    """Our settings for photos. Five epochs with tags at 16 images a step follow IRN's habit."""
    optim = OptimConfig(lr=5e-5, head_lr_factor=10.0, schedule="poly")
    return Config(
        data=DataConfig(name=name, crop=448, scale=(0.5, 2.0), pad="mean"),
        backbone="resnet50",
        weights="resnet50.tv_in1k",
        run=RunConfig(steps=steps, batch=16, workers=4),
        optim=optim,
        mask_optim=optim,
        mask_steps=mask_steps,
        hidden=256,
        test=TestConfig(scales=(1.0, 0.5, 1.5), flip=True),
    )


PRESETS: dict[str, Config] = {
    # as the calibration of the toy world: batch 32, AdamW 1e-3, 4 and 8 epochs
    "toy": Config(run=RunConfig(steps=375, batch=32, save_every=100), mask_steps=750),
    "voc": _photos("voc", steps=3300, mask_steps=20000),
    "coco": _photos("coco", steps=25600, mask_steps=60000),
    "stuff10k": _photos("stuff10k", steps=2800, mask_steps=20000),
}
"""All ours."""
_WHY = "there is no single released code for a CAM baseline; all its presets are ours"
NO_PRESET = {f"{name}-released": _WHY for name in PRESETS}
"""Presets that do not exist, and why."""


def cam_views(config: Config) -> Views:
    """How the classifier looks at images."""
    return Views(cam=Fusion(scales=config.cam_scales, flip=config.cam_flip))


def seg_views(config: Config) -> Views:
    """How the segmentation network looks at images."""
    rule = dataclasses.replace(
        LOGIT_FUSIONS["mean"], scales=config.test.scales, flip=config.test.flip
    )
    return Views(logits=rule)


def train(
    config: Config, out: Path, resume: bool = False, log: Callable[[str], None] = print
) -> dict[str, Any]:
    """Run all stages, or go on with those that are not done.

    Args:
        config: the settings.
        out: folder of the run.
        resume: go on with the run in `out`.
        log: gets lines of text.

    Returns:
        The content of `metrics.json`.

    Raises:
        ValueError, FileExistsError, FileNotFoundError: settings, data or folder do not fit.
        OutputError: a result cannot be written.
    """
    folder = RunFolder(out, NAME, config, resume)
    resolve_crf(config.test.crf)
    fabric, log = launch(config.run, log)
    images, val = load_data(config.data, "train"), load_data(config.data, "val")
    require_images(images, config.run.batch)
    classifier = _classifier(config, images.num_classes)  # missing weights are reported here
    folder.begin()

    facts = {
        "method": NAME,
        "classes": ["background", *images.class_names],
        "config": config,
        "weights": classifier.backbone.weight_tag,
    }
    run, optim, data = config.run, config.optim, config.data
    common: dict[str, Any] = {"data": data, "fabric": fabric, "log": log}
    fit_stage(
        folder,
        "tags",
        classifier,
        images,
        run,
        optim,
        weights=out / "tags" / "model.safetensors",
        facts=facts | {"part": "TagClassifier"},
        **common,
    )
    labels = out / "labels"
    label_stage(
        classifier,
        images,
        labels,
        views=cam_views(config),
        threshold=config.threshold,
        band=config.band,
        batch=config.test.batch,
        workers=run.workers,
        fabric=fabric,
        log=log,
    )
    network = _network(config, images.num_classes + 1)
    fit_stage(
        folder,
        "masks",
        network,
        Labelled(images, labels, images.num_classes + 1),
        dataclasses.replace(run, steps=config.mask_steps or run.steps),
        config.mask_optim,
        weights=out / "model.safetensors",
        facts=facts | {"part": "MaskNetwork"},
        **common,
    )
    results = _score(config, classifier, network, val, fabric, log)
    return folder.write_metrics(
        results, seed=run.seed, device=device_name(fabric.device), weights=facts["weights"]
    )


def _backbone(config: Config) -> Backbone:
    return load_backbone_weights(build_backbone(config.backbone), config.weights)


def _classifier(config: Config, classes: int) -> TagClassifier:
    seeded(config.run.seed)
    return TagClassifier(_backbone(config), classes, pool=config.pool)


def _network(config: Config, classes: int) -> MaskNetwork:
    seeded(config.run.seed)
    return MaskNetwork(_backbone(config), classes, hidden=config.hidden)


def _score(
    config: Config,
    classifier: TagClassifier,
    network: MaskNetwork,
    val: Any,
    fabric: Fabric,
    log: Callable[[str], None],
) -> dict[str, Any]:
    """Segmentation and maps on the validation list; pseudo-labels on some training images."""
    data, test = config.data, config.test
    names = ("background", *val.class_names)
    protocol = Protocol(
        split=f"{data.name} {data.split_of('val')}",
        label_source="procedural truth" if data.name == "toy" else "the data set's masks",
    )
    options: dict[str, Any] = {
        "num_classes": val.num_classes + 1,
        "class_names": names,
        "batch": test.batch,
        "tags_at_test": test.tags_at_test,
        "rank": fabric.global_rank,
        "world": fabric.world_size,
        "workers": config.run.workers,
    }
    seg = evaluate(
        network.eval(), val, seg_views(config), crf=test.crf, protocol=protocol, **options
    )
    cam = evaluate(
        classifier,
        val,
        cam_views(config),
        cam_threshold=config.threshold,
        protocol=protocol,
        **options,
    )
    pseudo = _pseudo_label_report(config, classifier, protocol, options, log)
    for heading, found in (
        ("segmentation network, validation list", seg),
        ("tag classifier's maps, validation list", cam),
        *(("pseudo-labels: training images, whose tags are given", p) for p in pseudo.values()),
    ):
        log(f"\n{heading}\n{found.table()}")
    shown = {"val": seg.as_dict() | cam.as_dict()}
    return shown | {name: found.as_dict() for name, found in pseudo.items()}


def _pseudo_label_report(
    config: Config,
    classifier: TagClassifier,
    protocol: Protocol,
    options: Mapping[str, Any],
    log: Callable[[str], None],
) -> dict[str, Evaluation]:
    """Maps against the truth of training images, if there is one. Nothing is chosen by it."""
    if not config.report_train:
        return {}
    data = dataclasses.replace(config.data, count=min(config.data.count, config.report_train))
    try:
        images = First(load_data(data, "train", masks=True), config.report_train)
    except DataError as error:
        log(f"no report on the pseudo-labels of the training images: {error}")
        return {}
    stated = dataclasses.replace(
        protocol, split=f"{data.name} {data.split_of('train')}, first {len(images)}"
    )
    found = evaluate(
        classifier,
        images,
        cam_views(config),
        cam_threshold=config.threshold,
        protocol=stated,
        **{**options, "tags_at_test": True},
    )
    told = f"cam{ORACLE}"
    only = Evaluation({told: found.reports[told]}, {told: found.sweeps[told]})
    return {"pseudo_labels": only}


def load_method(facts: Mapping[str, Any], state: Mapping[str, Tensor]) -> Method:
    """The network of a weights file that `train` wrote, in eval mode.

    Args:
        facts: see `wsss_lab.runs.folder.read_facts`.
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
        method = MaskNetwork(backbone, len(facts["classes"]), hidden=config.hidden)
    load_strictly(method, state, what=f"weights of {NAME}")
    backbone.weight_tag = str(facts.get("weights", "unknown"))
    return method.eval()


def load_views(facts: Mapping[str, Any]) -> Views:
    """How the network of a weights file looks at images."""
    config = restore(Config, facts["config"])
    return cam_views(config) if facts["part"] == "TagClassifier" else seg_views(config)
