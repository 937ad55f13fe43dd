"""The plan of a run of the CAM baseline: each stage timed on a few of its steps or images."""

import dataclasses
import tempfile
from pathlib import Path
from typing import Any

from wsss_lab.evaluate.evaluate import evaluate
from wsss_lab.metrics import Protocol
from wsss_lab.plan.plan import (
    Plan,
    Stage,
    free_disk,
    plan_notes,
    steps_done,
    training_disk,
)
from wsss_lab.plan.probe import Blank, Probe, dealt_out, probe_images, probe_training
from wsss_lab.recipes import cam_baseline as recipe
from wsss_lab.runs.folder import device_name
from wsss_lab.runs.stages import First, label_stage, load_data, silent
from wsss_lab.train.devices import make_fabric


def plan(config: recipe.Config, out: Path, steps: int = 5, images: int = 8) -> Plan:
    """Steps, memory, hours and disk of a run, from a short probe of every stage.

    Nothing is written to `out`, and the run afterwards is the same as without a probe.

    Args:
        config: settings of the run.
        out: its folder, new or with what an earlier start has left.
        steps: training steps to time for each network; 0 times nothing.
        images: images to label and to score for the timing.

    Raises:
        ValueError, FileNotFoundError: settings or data do not fit.
    """
    train_images, val = load_data(config.data, "train"), load_data(config.data, "val")
    classes = train_images.num_classes
    classifier = recipe._classifier(config, classes)
    network = recipe._network(config, classes + 1)
    mask_run = dataclasses.replace(config.run, steps=config.mask_steps or config.run.steps)
    fabric = make_fabric(dataclasses.replace(config.run, devices=1, nodes=1))
    probes: dict[str, Probe] = {}
    label_bytes = 0.0
    if steps:
        data, blank = config.data, Blank(train_images, len(train_images))
        probes["tags"] = probe_training(
            classifier, train_images, config.run, config.optim, data, steps
        )
        probes["masks"] = probe_training(network, blank, mask_run, config.mask_optim, data, steps)
        classifier.to(fabric.device).eval()
        network.to(fabric.device).eval()
        with tempfile.TemporaryDirectory(prefix="wsss_lab_probe_") as folder:
            probes["labels"] = _probe_labels(
                config, classifier, train_images, Path(folder), fabric, images
            )
            written = list(Path(folder).rglob("*.png"))
            label_bytes = sum(f.stat().st_size for f in written) / max(1, len(written))
        probes["evaluate"] = _probe_scoring(config, classifier, network, val, images)
    there = len(list((out / "labels").glob("*.png")))
    stages = (
        Stage(
            "tags",
            config.run.steps,
            "steps",
            steps_done(out / "tags", "model.safetensors", config.run.steps),
            probes.get("tags"),
            config.run.batch,
        ),
        Stage("labels", len(train_images), "images", there, probes.get("labels")),
        Stage(
            "masks",
            mask_run.steps,
            "steps",
            steps_done(out / "masks", "../model.safetensors", mask_run.steps),
            probes.get("masks"),
            config.run.batch,
        ),
        Stage("evaluate", len(val), "images", 0, probes.get("evaluate")),
    )
    disk = training_disk([classifier, network], [config.run, mask_run])
    disk += label_bytes * len(train_images) / 1e9
    notes = plan_notes(config.run, probes, config.report_train)
    return Plan(stages, device_name(fabric.device), disk, free_disk(out), notes)


def _probe_labels(
    config: recipe.Config, classifier: Any, images: Any, folder: Path, fabric: Any, count: int
) -> Probe:
    def label(some: First) -> None:
        label_stage(
            classifier,
            some,
            Path(tempfile.mkdtemp(dir=folder)),
            views=recipe.cam_views(config),
            threshold=config.threshold,
            band=config.band,
            batch=config.test.batch,
            workers=0,
            fabric=fabric,
            log=silent,
        )

    return dealt_out(probe_images(label, images, count), config.run)


def _probe_scoring(
    config: recipe.Config, classifier: Any, network: Any, val: Any, count: int
) -> Probe:
    options: dict[str, Any] = {
        "num_classes": val.num_classes + 1,
        "batch": config.test.batch,
        "protocol": Protocol(split="probe"),
    }

    def score(some: First) -> None:
        evaluate(network, some, recipe.seg_views(config), crf=config.test.crf, **options)
        evaluate(classifier, some, recipe.cam_views(config), **options)

    return dealt_out(probe_images(score, val, count), config.run)
