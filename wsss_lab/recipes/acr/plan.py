"""The plan of a run of ACR: each stage timed on a few of its steps or images."""

import dataclasses
from functools import partial
from pathlib import Path
from typing import Any

from wsss_lab.methods.common.base import Method
from wsss_lab.plan.plan import Plan, Stage, free_disk, plan_notes, steps_done, training_disk
from wsss_lab.plan.probe import Blank, Probe, dealt_out, probe_images, probe_labels, probe_training
from wsss_lab.recipes.acr.config import Config
from wsss_lab.recipes.acr.labels import label_rule, walk_rule
from wsss_lab.recipes.acr.recipe import Localiser, build
from wsss_lab.recipes.acr.stages import (
    build_affinity,
    build_masks,
    map_views,
    mask_views,
    stage_data,
    stage_runs,
)
from wsss_lab.runs.folder import device_name
from wsss_lab.runs.labels import label_stage
from wsss_lab.runs.lists import load_lists
from wsss_lab.runs.scoring import score
from wsss_lab.runs.stages import seeded, silent
from wsss_lab.train.devices import make_fabric

LABELS = {"fit": "labels", "affinity": "propagated"}
"""Training stage -> folder of the labels that are made with its network."""


def plan(
    config: Config,
    out: Path,
    steps: int = 5,
    images: int = 8,
    data: tuple[Any, Any] | None = None,
) -> Plan:
    """Steps, memory, hours and disk of a run, from a short probe of every stage.

    Nothing is written to `out`, and the run afterwards is the same as without a probe.

    Args:
        config: settings of the run.
        out: its folder, new or with what an earlier start has left.
        steps: training steps to time for each network; 0 times nothing.
        images: images to label and to score for the timing.
        data: lists to train on and to evaluate on, if others than those of the settings.

    Raises:
        ValueError, FileNotFoundError: settings or data do not fit.
    """
    train, val = data or load_lists(config.data, silent)
    runs, networks = stage_runs(config), _networks(config, train.num_classes)
    disk = training_disk(list(networks.values()), [runs[stage] for stage in networks])
    fabric = make_fabric(dataclasses.replace(config.run, devices=1, nodes=1))
    probes: dict[str, Probe] = {}
    if steps:
        probes = _probe_training(config, networks, train, steps)
        for network in networks.values():
            network.to(fabric.device).eval()
        localiser = Localiser(networks["fit"]).eval()  # type: ignore[arg-type]
        rules = {"labels": label_rule(config)} if "masks" in networks else {}
        if "affinity" in networks:
            rules["propagated"] = walk_rule(config, networks["affinity"])  # type: ignore[arg-type]
        for name, rule in rules.items():
            label = partial(
                label_stage,
                localiser,
                views=map_views(config),
                rule=rule,
                batch=config.test.batch,
                workers=0,
                fabric=fabric,
                log=silent,
            )
            probes[name], size = probe_labels(label, train, images, config.run)
            disk += size * len(train) / 1e9
        if val is not None:
            last = networks.get("masks")
            probes["evaluate"] = _probe_scoring(config, localiser, last, val, fabric, images)
    stages = []
    for stage, run in ((name, runs[name]) for name in networks):
        weights = "../model.safetensors" if stage == "masks" else "model.safetensors"
        done = steps_done(out / stage, weights, run.steps)
        stages.append(Stage(stage, run.steps, "steps", done, probes.get(stage), run.batch))
        if stage in LABELS and "masks" in networks:
            name = LABELS[stage]
            there = len(list((out / name).glob("*.png")))
            stages.append(Stage(name, len(train), "images", there, probes.get(name)))
    if val is not None:
        stages.append(Stage("evaluate", len(val), "images", 0, probes.get("evaluate")))
    notes = plan_notes(config.run, probes, config.report_train)
    return Plan(tuple(stages), device_name(fabric.device), disk, free_disk(out), notes)


def _networks(config: Config, classes: int) -> dict[str, Method]:
    """Network of every training stage, in their order."""
    seeded(config.run.seed)
    networks: dict[str, Method] = {"fit": build(config, classes, True)}
    if config.until == "maps":
        return networks
    if config.propagation == "affinity":
        networks["affinity"] = build_affinity(config, True)
    return networks | {"masks": build_masks(config, classes + 1, True)}


def _probe_training(
    config: Config, networks: dict[str, Method], train: Any, steps: int
) -> dict[str, Probe]:
    runs, optims = stage_runs(config), {"affinity": config.affinity.optim, "fit": config.optim}
    probes = {}
    for stage, network in networks.items():
        images = train if stage == "fit" else Blank(train, len(train))
        optim = optims.get(stage, config.mask_optim)
        data = stage_data(config, stage)
        probes[stage] = probe_training(network, images, runs[stage], optim, data, steps)
    return probes


def _probe_scoring(
    config: Config, localiser: Localiser, network: Method | None, val: Any, fabric: Any, count: int
) -> Probe:
    alone = dataclasses.replace(config, run=dataclasses.replace(config.run, workers=0))

    at = config.test.cam_threshold

    def both(some: Any) -> None:
        if network is not None:
            score(network, some, mask_views(config), alone, fabric, at)
        score(localiser, some, map_views(config), alone, fabric, at)

    return dealt_out(probe_images(both, val, count), config.run)
