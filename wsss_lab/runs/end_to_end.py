"""Methods that are trained in one go: fit -> evaluate -> `metrics.json`.

Such a method's own module says what is special about it: settings, presets, how its network is
built. Everything else is the same for all of them and stands here. What a run leaves in its folder:

| stage | leaves |
|---|---|
| fit | `checkpoints/`, `log.csv`, at its end `model.safetensors` |
| evaluate: segmentation and class maps on the validation list, in one pass | `metrics.json` |
"""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lightning_fabric import Fabric
from torch import Tensor

from wsss_lab.config import OptimConfig, RunConfig
from wsss_lab.data.catalog import DATASETS
from wsss_lab.data.config import DataConfig
from wsss_lab.data.errors import DataError
from wsss_lab.evaluate.evaluate import evaluate, resolve_crf
from wsss_lab.evaluate.inference import VIEWS, Views
from wsss_lab.evaluate.scores import ORACLE, Evaluation
from wsss_lab.methods.acr.plugin import ConsistencyConfig, with_consistency
from wsss_lab.methods.common.base import Method
from wsss_lab.metrics import Protocol
from wsss_lab.models.keymaps import Table, split_checkpoint
from wsss_lab.models.weights import load_strictly
from wsss_lab.runs.folder import RunFolder, device_name, restore
from wsss_lab.runs.stages import (
    First,
    Log,
    OnStep,
    fit_stage,
    launch,
    load_data,
    require_images,
    seeded,
)
from wsss_lab.runs.start import start_method


@dataclass(frozen=True)
class TestConfig:
    """How the trained network is scored."""

    __test__ = False  # no test case, whatever pytest thinks of its name

    views: str = "single"
    """Scales, flips and how they are joined: a name of `wsss_lab.evaluate.inference.VIEWS`."""
    batch: int = 8
    """Images of one size per forward pass, at most."""
    crf: str = "none"
    """Post-processing of the segmentation, a name of `wsss_lab.refine.PRESETS`; "none" for none."""
    cam_threshold: float | None = 0.5
    """Background score, 0..1, at which the class maps get a report; None reports the sweep only."""
    tags_at_test: bool = False
    """Score a second time with the true tags of every image. An oracle, and reported as one."""

    def __post_init__(self) -> None:
        if self.views not in VIEWS:
            raise ValueError(f"views: expected one of {', '.join(VIEWS)}, got {self.views!r}")
        if self.batch < 1:
            raise ValueError(f"batch: expected at least 1, got {self.batch}")
        if self.cam_threshold is not None and not 0 <= self.cam_threshold <= 1:
            raise ValueError(f"cam_threshold: expected 0..1 or None, got {self.cam_threshold}")


@dataclass(frozen=True)
class EndToEndConfig:
    """What all these methods have; each adds its own settings as `method`."""

    data: DataConfig = field(default_factory=DataConfig)
    """Which images, and how they are cut for training."""
    weights: str = "toy"
    """What the backbone starts from: `toy`, `imagenet`, `random`, the exact name of timm weights,
    or a file."""
    start: str = ""
    """Go on from the end of a warm-up, heads included, see `wsss_lab.runs.start`: `toy`
    for the package's own weights, a run's folder, or nothing."""
    run: RunConfig = field(default_factory=RunConfig)
    """Length, batch, seed, devices, precision, log."""
    optim: OptimConfig = field(default_factory=OptimConfig)
    """Optimiser and learning rate."""
    test: TestConfig = field(default_factory=TestConfig)
    """How the result is scored."""
    acr: ConsistencyConfig = field(default_factory=ConsistencyConfig)
    """All-pairs consistency as a plug-in; off, unless `acr.alpha` is above 0."""


@dataclass(frozen=True)
class EndToEnd:
    """What a recipe of one stage does, given how its method is built."""

    name: str
    """Key of `wsss_lab.methods.METHODS`."""
    config: type[Any]
    """A child of `EndToEndConfig`."""
    presets: Mapping[str, Any]
    """Name -> settings."""
    build: Callable[[Any, int, bool], Method]
    """(settings, foreground classes, whether to load the backbone's weights) -> the method."""
    keys: Table
    """Names in released checkpoints, see `wsss_lab.models.keymaps`."""
    report: Callable[..., dict[str, Any]] | None = None
    """Adds to the results: (trained method, settings, fabric, the run's folder, log) -> results."""
    watcher: Callable[..., OnStep | None] | None = None
    """Looks on: (method, images, settings, fabric, the run's folder) -> `fit`'s `on_step`."""

    def train(
        self, config: Any, out: Path, resume: bool = False, log: Log = print
    ) -> dict[str, Any]:
        """Train and score, or go on with what is not done.

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
        folder = RunFolder(out, self.name, config, resume)
        resolve_crf(config.test.crf)
        fabric, log = launch(config.run, log)
        wanted = config.run.steps * config.run.batch
        images = load_data(config.data, "train", wanted=wanted)
        require_images(images, config.run.batch)
        val = load_data(config.data, "val")
        seeded(config.run.seed)
        method = self.build(config, images.num_classes, True)  # missing weights are reported here
        start_method(method, config.start, self.name, config.method.backbone)
        plugged = with_consistency(method, config.acr)  # and backbones without attention here
        folder.begin()
        facts = {
            "method": self.name,
            "part": type(method).__name__,
            "classes": ["background", *images.class_names],
            "config": config,
            "weights": config.weights,
        }
        fit_stage(
            folder,
            "",
            plugged,
            images,
            config.run,
            config.optim,
            data=config.data,
            fabric=fabric,
            weights=out / "model.safetensors",
            facts=facts,
            log=log,
            on_step=self.watcher(method, images, config, fabric, out) if self.watcher else None,
        )
        method.eval()
        found = score(method, val, VIEWS[config.test.views], config, fabric)
        log(f"\nvalidation list\n{found.table()}")
        more = self.report(method, config, fabric, out, log) if self.report else {}
        return folder.write_metrics(
            {"val": found.as_dict(), **more},
            seed=config.run.seed,
            device=device_name(fabric.device),
            weights=config.weights,
        )

    def load_method(self, facts: Mapping[str, Any], state: Mapping[str, Tensor]) -> Method:
        """The network of a weights file that `train` wrote, in eval mode.

        Args:
            facts: see `wsss_lab.runs.folder.read_facts`.
            state: its tensors.

        Raises:
            ValueError: the tensors do not fit.
        """
        config = restore(self.config, facts["config"])
        method = self.build(config, len(facts["classes"]) - 1, False)
        load_strictly(method, state, what=f"weights of {self.name}")
        return method.eval()

    def load_views(self, facts: Mapping[str, Any]) -> Views:
        """How the network of a weights file looks at images."""
        return self.views(restore(self.config, facts["config"]))

    def views(self, config: Any) -> Views:
        """How a network with these settings looks at images."""
        return VIEWS[config.test.views]

    def load_released(self, state: Mapping[str, Tensor]) -> tuple[Method, Any]:
        """The network of a checkpoint of the authors, in eval mode, and the settings it had.

        Args:
            state: the released tensors by name.

        Raises:
            ValueError: the tensors do not fit, or no released preset has this number of classes.
        """
        classes = count_classes(state, self.keys, self.name)
        config = self.presets[released_preset(self.presets, classes, self.name)]
        method = self.build(config, classes, False)
        method.load_released(state)  # type: ignore[operator]
        return method.eval(), config


def count_classes(state: Mapping[str, Tensor], keys: Table, name: str) -> int:
    """Foreground classes of a released checkpoint: rows of its tag classifier.

    Raises:
        ValueError: it has none.
    """
    weight = split_checkpoint(state, keys).get("tag_head", {}).get("linear.weight")
    if weight is None:
        raise ValueError(f"the file lacks the tag classifier of {name}")
    return weight.shape[0]


def released_preset(presets: Mapping[str, Any], classes: int, name: str) -> str:
    """Name of the released preset whose data set has this number of classes.

    Raises:
        ValueError: there is none.
    """
    counts = {
        preset: len(DATASETS[config.data.name].classes)
        for preset, config in presets.items()
        if preset.endswith("-released")
    }
    for preset, count in counts.items():
        if count == classes:
            return preset
    known = ", ".join(f"{preset} {count}" for preset, count in counts.items())
    raise ValueError(f"{name}: the file has {classes} classes; released presets have: {known}")


def score(method: Method, val: Any, views: Views, config: Any, fabric: Fabric) -> Evaluation:
    """Segmentation and class maps of a trained method on the validation list.

    Args:
        method: gives `predict`.
        val: samples with masks.
        views: how images are looked at.
        config: uses `data`, `test` and `run.workers`.
        fabric: launched; every process takes its share of the images.
    """
    test = config.test
    return evaluate(
        method,
        val,
        views,
        num_classes=val.num_classes + 1,
        class_names=("background", *val.class_names),
        cam_threshold=test.cam_threshold,
        batch=test.batch,
        tags_at_test=test.tags_at_test,
        crf=test.crf,
        rank=fabric.global_rank,
        world=fabric.world_size,
        workers=config.run.workers,
        protocol=protocol_of(config.data),
    )


def score_training_maps(
    method: Method, views: Views, config: Any, fabric: Fabric, log: Log
) -> dict[str, Evaluation]:
    """Maps, with the true tags, against the truth of training images, if there is one.

    Nothing is chosen by it: training has not seen these masks.

    Args:
        method: gives maps.
        views: how images are looked at.
        config: uses `data`, `report_train` (so many images; 0 for none), `test`, `run.workers`.
        fabric: launched; every process takes its share of the images.
        log: is told where there is no truth.

    Returns:
        The evaluation as `train_maps`, or nothing.
    """
    if not config.report_train:
        return {}
    data = dataclasses.replace(config.data, count=min(config.data.count, config.report_train))
    try:
        images = load_data(data, "train", masks=True)
    except DataError as error:
        log(f"no report on the maps of the training images: {error}")
        return {}
    some, stated = First(images, config.report_train), protocol_of(data, "train")
    found = evaluate(
        method,
        some,
        views,
        num_classes=images.num_classes + 1,
        class_names=("background", *images.class_names),
        cam_threshold=config.test.cam_threshold,
        batch=config.test.batch,
        tags_at_test=True,
        rank=fabric.global_rank,
        world=fabric.world_size,
        workers=config.run.workers,
        protocol=dataclasses.replace(stated, split=f"{stated.split}, first {len(some)}"),
    )
    told = f"cam{ORACLE}"
    reports = {told: found.reports[told]} if told in found.reports else {}
    return {"train_maps": Evaluation(reports, {told: found.sweeps[told]})}


def protocol_of(data: DataConfig, role: str = "val") -> Protocol:
    """What a report says about the images and their truth."""
    return Protocol(
        split=f"{data.name} {data.split_of(role)}",
        label_source="procedural truth" if data.name == "toy" else "the data set's masks",
    )
