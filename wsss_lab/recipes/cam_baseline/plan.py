"""The plan of a run of the CAM baseline: each stage timed on a few of its steps or images."""

import dataclasses
from pathlib import Path
from typing import Any

from wsss_lab.config import RunConfig
from wsss_lab.evaluate.map_refinement import map_refinement
from wsss_lab.plan.plan import (
    Plan,
    Stage,
    free_disk,
    plan_notes,
    steps_done,
    training_disk,
)
from wsss_lab.plan.probe import Blank, Probe, dealt_out, probe_images, probe_labels, probe_training
from wsss_lab.recipes.cam_baseline.config import Config
from wsss_lab.recipes.cam_baseline.recipe import (
    build,
    build_network,
    cam_views,
    mask_run,
    seg_views,
)
from wsss_lab.runs.contents import LABELS
from wsss_lab.runs.folder import device_name
from wsss_lab.runs.labels import label_stage
from wsss_lab.runs.lists import load_lists
from wsss_lab.runs.scoring import score
from wsss_lab.runs.stages import seeded, silent
from wsss_lab.train.devices import make_fabric


def plan(
    config: Config,
    out: Path,
    steps: int = 5,
    images: int = 8,
    data: tuple[Any, Any] | None = None,
) -> Plan:
    """Return steps, memory, hours and disk of a run, from a short probe of every stage.

    Nothing is written to `out`, and the run afterwards is the same as without a probe.

    Args:
        config: settings of the run.
        out: its folder, new or with the content of an earlier start.
        steps: training steps to time for each network; 0 times nothing.
        images: images to label and to score for the timing.
        data: lists to train on and to evaluate on, if others than those of the settings.

    Raises:
        ValueError, FileNotFoundError: settings or data do not fit.
    """
    train, val = data or load_lists(config.data, silent)
    seeded(config.run.seed)
    networks: dict[str, Any] = {"tags": build(config, train.num_classes)}
    if config.until == "masks":
        networks["masks"] = build_network(config, train.num_classes + 1)
    labelled = config.until == "masks" or val is None
    runs = {"tags": config.run, "masks": mask_run(config)}
    fabric = make_fabric(dataclasses.replace(config.run, devices=1, nodes=1))
    probes: dict[str, Probe] = {}
    disk = training_disk(list(networks.values()), list(runs.values()))
    if steps:
        probes = _probe_training(config, networks, runs, train, steps)
        for network in networks.values():
            network.to(fabric.device).eval()
        if labelled:
            probes["labels"], size = _probe_labels(config, networks["tags"], train, fabric, images)
            disk += size * len(train) / 1e9
        if val is not None:
            probes["evaluate"] = _probe_scoring(config, networks, val, fabric, images)
    stages = []
    for name, weights in (("tags", "model.safetensors"), ("masks", "../model.safetensors")):
        if name not in networks:
            continue
        done = steps_done(out / name, weights, runs[name].steps)
        batch = config.run.batch
        stages.append(Stage(name, runs[name].steps, "steps", done, probes.get(name), batch))
    if labelled:
        there = len(list((out / LABELS).glob("*.png")))
        stages.insert(1, Stage("labels", len(train), "images", there, probes.get("labels")))
    if val is not None:
        stages.append(Stage("evaluate", len(val), "images", 0, probes.get("evaluate")))
    notes = plan_notes(config.run, probes, config.report_train)
    return Plan(tuple(stages), device_name(fabric.device), disk, free_disk(out), notes)


def _probe_training(
    config: Config, networks: dict[str, Any], runs: dict[str, RunConfig], train: Any, steps: int
) -> dict[str, Probe]:
    optims, blank = {"tags": config.optim, "masks": config.mask_optim}, Blank(train, len(train))
    images = {"tags": train, "masks": blank}  # labels to learn are not made yet
    return {
        name: probe_training(network, images[name], runs[name], optims[name], config.data, steps)
        for name, network in networks.items()
    }


def _probe_labels(
    config: Config, classifier: Any, train: Any, fabric: Any, images: int
) -> tuple[Probe, float]:
    """Time of an image, and the bytes of its label file."""

    def label(some: Any, folder: Path) -> None:
        label_stage(classifier, some, folder, views=cam_views(config), threshold=config.threshold,
                    band=config.band, refine=map_refinement(config.refine_steps),
                    batch=config.test.batch, workers=0, fabric=fabric, log=silent)  # fmt: skip

    return probe_labels(label, train, images, config.run)


def _probe_scoring(
    config: Config, networks: dict[str, Any], val: Any, fabric: Any, images: int
) -> Probe:
    refine = map_refinement(config.refine_steps)
    alone = dataclasses.replace(config, run=dataclasses.replace(config.run, workers=0))

    def both(some: Any) -> None:
        if "masks" in networks:
            score(networks["masks"], some, seg_views(config), alone, fabric)
        views, at = cam_views(config), config.threshold
        score(networks["tags"], some, views, alone, fabric, at, refine=refine)

    return dealt_out(probe_images(both, val, images), config.run)
