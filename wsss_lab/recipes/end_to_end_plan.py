"""The plan of a run of one stage: its kinds of steps timed apart, then its evaluation.

Steps of these methods are not all alike. TSCD and CoSA learn tags alone for the first thousands,
which costs a fraction of a step with all losses, and ASDT asks its second teacher in some steps
only. A probe of the first steps would promise too few hours, so each kind is timed, and counted.
"""

import dataclasses
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from wsss_lab.methods.acr.plugin import with_consistency
from wsss_lab.methods.common.base import Method
from wsss_lab.plan.plan import Plan, Stage, free_disk, plan_notes, steps_done, training_disk
from wsss_lab.plan.probe import Probe, dealt_out, probe_images, probe_labels, probe_training
from wsss_lab.runs.contents import LABELS
from wsss_lab.runs.folder import device_name
from wsss_lab.runs.labels import label_stage
from wsss_lab.runs.lists import load_lists
from wsss_lab.runs.recipe import find_views
from wsss_lab.runs.scoring import bounded, score
from wsss_lab.runs.stages import seeded, silent
from wsss_lab.train.devices import make_fabric

SHOWN_STEPS = 16
"""Steps of a kind that a probe repeats; ASDT's coins and CoSA's queue do not change the work."""


StepKind = Callable[[Any, int], str]
"""(settings, step) -> what to call a step. Steps of one name take the same time."""
Build = Callable[[Any, int, bool], Method]


def any_step(config: Any, step: int) -> str:
    """Kind of a step where all steps take the same time."""
    return "fit"


def warm_up_step(config: Any, step: int) -> str:
    """Kind of a step of a method that may learn tags alone at first (TSCD, CoSA)."""
    if not config.method.quirks.full_warmup and step <= config.method.warmup:
        return "fit, tags only"
    return "fit, all losses"


def plan(
    build: Build,
    kind_of: StepKind,
    config: Any,
    out: Path,
    steps: int = 5,
    images: int = 8,
    data: tuple[Any, Any] | None = None,
) -> Plan:
    """Steps, memory, hours and disk of a run, from a short probe of every kind of work.

    Nothing is written to `out`, and the run afterwards is the same as without a probe.

    Args:
        build: makes the method, see `EndToEnd.build`.
        kind_of: names the kind of a step.
        config: settings of the run.
        out: its folder, new or with what an earlier start has left.
        steps: training steps to time of each kind; 0 times nothing.
        images: images to score for the timing.
        data: lists to train on and to evaluate on, if others than those of the settings.

    Raises:
        ValueError, FileNotFoundError: settings or data do not fit.
    """
    run = config.run
    train, val = data or load_lists(config.data, silent, masks=config.trains_on_masks)
    seeded(run.seed)
    method = build(config, train.num_classes, True)
    trained = with_consistency(method, config.acr)  # its own passes are part of every step
    fabric = make_fabric(dataclasses.replace(run, devices=1, nodes=1))
    disk = training_disk([trained], [run])

    kinds = [kind_of(config, step) for step in range(run.steps)]
    done = Counter(kinds[: steps_done(out, "model.safetensors", run.steps)])
    probes: dict[str, Probe] = {}
    if steps:
        for kind in dict.fromkeys(kinds):
            at = [step for step, other in enumerate(kinds) if other == kind][:SHOWN_STEPS]
            probes[kind] = probe_training(trained, train, run, config.optim, config.data, steps, at)
        method.to(fabric.device).eval()
        probes |= _probe_end(method, config, (train, val), fabric, images)
    stages = [
        Stage(kind, count, "steps", done[kind], probes.get(kind), run.batch)
        for kind, count in Counter(kinds).items()
    ]
    if val is not None:
        stages.append(Stage("evaluate", len(val), "images", 0, probes.get("evaluate")))
    else:
        there = len(list((out / LABELS).glob("*.png")))
        stages.append(Stage("labels", len(train), "images", there, probes.get("labels")))
    notes = plan_notes(run, probes, getattr(config, "report", 0), getattr(config, "watch", 0))
    return Plan(tuple(stages), device_name(fabric.device), disk, free_disk(out), notes)


def _probe_end(
    method: Method, config: Any, data: tuple[Any, Any], fabric: Any, images: int
) -> dict[str, Probe]:
    """Time what follows the training: scores, or labels where there is no mask to compare with."""
    (train, val), run, test = data, config.run, config.test
    views = bounded(find_views(test.views), test)
    alone = dataclasses.replace(config, run=dataclasses.replace(run, workers=0))

    def score_some(some: Any) -> None:
        score(method, some, views, alone, fabric, test.cam_threshold)

    def label_some(some: Any, folder: Path) -> None:
        label_stage(method, some, folder, views=views, segment=True, batch=test.batch, workers=0,
                    fabric=fabric, log=silent)  # fmt: skip

    if val is not None:
        return {"evaluate": dealt_out(probe_images(score_some, val, images), run)}
    return {"labels": probe_labels(label_some, train, images, run)[0]}
