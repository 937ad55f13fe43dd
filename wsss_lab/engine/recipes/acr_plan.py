"""The plan of a run of ACR: each stage timed on a few of its steps or images."""

import dataclasses
import tempfile
from pathlib import Path
from typing import Any

from wsss_lab.engine.devices import make_fabric
from wsss_lab.engine.inference import VIEWS
from wsss_lab.engine.plan import Plan, Stage, free_disk, plan_notes, steps_done, training_disk
from wsss_lab.engine.probe import Blank, Probe, dealt_out, probe_images, probe_training
from wsss_lab.engine.recipes import acr as recipe
from wsss_lab.engine.recipes.end_to_end import score
from wsss_lab.engine.recipes.folder import device_name
from wsss_lab.engine.recipes.stages import label_stage, load_data, seeded, silent


def plan(
    config: recipe.Config,
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
    train, val = data or (load_data(config.data, "train"), load_data(config.data, "val"))
    run = config.run
    mask_run = dataclasses.replace(
        run, steps=config.mask_steps or run.steps, batch=config.mask_batch or run.batch
    )
    seeded(run.seed)
    method = recipe.build(config, train.num_classes, True)
    network = recipe._network(config, train.num_classes + 1, True)
    fabric = make_fabric(dataclasses.replace(run, devices=1, nodes=1))
    disk = training_disk([method, network], [run, mask_run])
    probes: dict[str, Probe] = {}
    if steps:
        blank = Blank(train, len(train))
        timed = probe_training(method, train, run, config.optim, config.data, steps)
        probes["fit"] = timed
        probes["masks"] = probe_training(
            network, blank, mask_run, config.mask_optim, config.data, steps
        )
        localiser = recipe.Localiser(method).to(fabric.device).eval()
        network.to(fabric.device).eval()
        probes["labels"], label_bytes = _probe_labels(config, localiser, train, fabric, images)
        probes["evaluate"] = _probe_scoring(config, localiser, network, val, fabric, images)
        disk += label_bytes * len(train) / 1e9
    there = len(list((out / "labels").glob("*.png")))
    done = steps_done(out / "fit", "model.safetensors", run.steps)
    masks_done = steps_done(out / "masks", "../model.safetensors", mask_run.steps)
    stages = (
        Stage("fit", run.steps, "steps", done, probes.get("fit"), run.batch),
        Stage("labels", len(train), "images", there, probes.get("labels")),
        Stage("masks", mask_run.steps, "steps", masks_done, probes.get("masks"), mask_run.batch),
        Stage("evaluate", len(val), "images", 0, probes.get("evaluate")),
    )
    notes = plan_notes(run, probes, config.report_train)
    return Plan(stages, device_name(fabric.device), disk, free_disk(out), notes)


def _probe_labels(
    config: recipe.Config, localiser: Any, train: Any, fabric: Any, count: int
) -> tuple[Probe, float]:
    """Time of an image, and the bytes of its label file."""
    with tempfile.TemporaryDirectory(prefix="wsss_lab_probe_") as folder:

        def label(some: Any) -> None:
            label_stage(
                localiser,
                some,
                Path(folder) / str(len(some)),
                views=VIEWS["single"],
                rule=recipe.label_rule(config),
                batch=config.test.batch,
                workers=0,
                fabric=fabric,
                log=silent,
            )

        probe = dealt_out(probe_images(label, train, count), config.run)
        written = list(Path(folder).rglob("*.png"))
        return probe, sum(f.stat().st_size for f in written) / max(1, len(written))


def _probe_scoring(
    config: recipe.Config, localiser: Any, network: Any, val: Any, fabric: Any, count: int
) -> Probe:
    alone = dataclasses.replace(config, run=dataclasses.replace(config.run, workers=0))

    def both(some: Any) -> None:
        score(network, some, VIEWS[config.test.views], alone, fabric)
        score(localiser, some, VIEWS["single"], alone, fabric)

    return dealt_out(probe_images(both, val, count), config.run)
