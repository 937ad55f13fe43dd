"""Scores of a run: how its networks are scored, what reports state, whose checkpoint a file is."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from wsss_lab.data.catalog import DATASETS
from wsss_lab.data.config import DATA_SETS, DataConfig
from wsss_lab.data.errors import DataError
from wsss_lab.evaluate.evaluate import RefineMaps, evaluate
from wsss_lab.evaluate.inference import MultiScale
from wsss_lab.evaluate.scores import ORACLE, Evaluation
from wsss_lab.methods.common.base import Method
from wsss_lab.metrics import Protocol
from wsss_lab.models.keymaps import Table, split_checkpoint
from wsss_lab.ranges import MOST_PIXELS, Batch, MostPixels, Settings, Share
from wsss_lab.runs.images import FirstImages, load_data
from wsss_lab.runs.recipe import find_crf
from wsss_lab.runs.stages import Log
from wsss_lab.train.fabric import Fabric


@dataclass(frozen=True)
class TestConfig(Settings):
    """How the trained network is scored."""

    __test__ = False  # no test case, whatever pytest thinks of its name

    views: str = "single"
    """Scales, flips and how they are joined: single, deeplabv2, or a method's own, METHOD-NAME."""
    batch: Batch = 8
    """Images of one size per forward pass, at most. Photos go one by one on a CPU."""
    most_pixels: MostPixels = MOST_PIXELS
    """Most pixels of a photo inside networks and refinement, in labels, scores and `predict`. A
    larger photo is shrunk for them, and the scores are enlarged to its own size; see
    `wsss_lab.evaluate.large`. Photos of VOC and COCO have fewer."""
    crf: str = "none"
    """Post-processing of the segmentation, METHOD-NAME, such as `tscd-eval`; "none" for none."""
    cam_threshold: Share | None = 0.5
    """Background score, 0..1, at which the class maps get a report; None reports the sweep only."""
    tags_at_test: bool = False
    """Score a second time with the true tags of every image. An oracle, and reported as one."""


def bounded(views: MultiScale, test: Any) -> MultiScale:
    """Return scales and flips with the largest size of the settings of a test.

    Args:
        views: the scales and flips.
        test: uses `most_pixels`.
    """
    return dataclasses.replace(views, most_pixels=test.most_pixels)


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


def score(
    method: Method,
    val: Any,
    views: MultiScale,
    config: Any,
    fabric: Fabric,
    cam_threshold: float | None = None,
    log: Log | None = None,
    refine: RefineMaps | None = None,
) -> Evaluation:
    """Score segmentation and class maps of a trained method on the validation list.

    Args:
        method: gives `predict`.
        val: samples with masks.
        views: how images are looked at.
        config: uses `data`, `test` and `run.workers`.
        fabric: launched; every process takes its share of the images.
        cam_threshold: background score, 0..1, at which the class maps get a report; None reports
            the sweep over thresholds only.
        log: gets lines with the time left; None for silence.
        refine: what class maps pass before thresholds, or None.
    """
    test = config.test
    return evaluate(
        method,
        val,
        bounded(views, test),
        num_classes=val.num_classes + 1,
        class_names=("background", *val.class_names),
        cam_threshold=cam_threshold,
        batch=test.batch,
        tags_at_test=test.tags_at_test,
        crf=find_crf(test.crf),
        refine=refine,
        rank=fabric.global_rank,
        world=fabric.world_size,
        workers=config.run.workers,
        protocol=dataclasses.replace(protocol_of(config.data), crf=test.crf),
        log=log,
    )


def score_training_maps(
    method: Method,
    views: MultiScale,
    config: Any,
    fabric: Fabric,
    log: Log,
    cam_threshold: float | None,
    refine: RefineMaps | None = None,
) -> dict[str, Evaluation]:
    """Maps, with the true tags, against the truth of training images, if there is one.

    Nothing is chosen by it: training has not seen these masks.

    Args:
        method: gives maps.
        views: how images are looked at.
        config: uses `data`, `report_train` (so many images; 0 for none), `test`, `run.workers`.
        fabric: launched; every process takes its share of the images.
        log: gets lines with the time left, or one where there is no truth.
        cam_threshold: see `score`.
        refine: see `score`.

    Returns:
        The evaluation as `train_maps`, or nothing.
    """
    if not config.report_train:
        return {}
    data = config.data.with_masks()
    data = dataclasses.replace(data, count=min(data.count, config.report_train))
    try:
        images = load_data(data, "train", masks=True)
    except DataError as error:
        log(f"no report on the maps of the training images: {error}")
        return {}
    some, stated = FirstImages(images, config.report_train), protocol_of(data, "train")
    found = evaluate(
        method,
        some,
        bounded(views, config.test),
        num_classes=images.num_classes + 1,
        class_names=("background", *images.class_names),
        cam_threshold=cam_threshold,
        batch=config.test.batch,
        tags_at_test=True,
        refine=refine,
        rank=fabric.global_rank,
        world=fabric.world_size,
        workers=config.run.workers,
        protocol=dataclasses.replace(stated, split=f"{stated.split}, first {len(some)}"),
        log=log,
    )
    told = f"cam{ORACLE}"
    reports = {told: found.reports[told]} if told in found.reports else {}
    return {"train_maps": Evaluation(reports, {told: found.sweeps[told]})}


def protocol_of(data: DataConfig, role: str = "val") -> Protocol:
    """Return the entries of a report on images and their truth."""
    return Protocol(
        split=f"{data.name} {data.split_of(role)}",
        label_source=DATA_SETS[data.name].truth,
    )
