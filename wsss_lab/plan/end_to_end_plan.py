"""The plan of a run of one stage: its kinds of steps timed apart, then its evaluation.

Steps of these methods are not all alike. TSCD and CoSA learn tags alone for the first thousands,
which costs a fraction of a step with all losses, and ASDT asks its second teacher in some steps
only. A probe of the first steps would promise too few hours, so each kind is timed, and counted.
"""

import dataclasses
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from wsss_lab.methods import find_method
from wsss_lab.methods.asdt.signal import student_share
from wsss_lab.plan.plan import Plan, Stage, free_disk, plan_notes, steps_done, training_disk
from wsss_lab.plan.probe import Probe, dealt_out, probe_images, probe_training
from wsss_lab.runs.end_to_end import score
from wsss_lab.runs.folder import device_name
from wsss_lab.runs.stages import load_data, seeded
from wsss_lab.train.devices import make_fabric

SHOWN_STEPS = 16
"""Steps of a kind that a probe repeats; ASDT's coins and CoSA's queue do not change the work."""


def _warm_up(config: Any, step: int) -> str:
    """TSCD and CoSA."""
    if config.method.skip_warmup and step <= config.method.warmup:
        return "fit, tags only"
    return "fit, all losses"


def _teachers(config: Any, step: int) -> str:
    """ASDT."""
    method = config.method
    both = step > method.warmup
    if method.selection != "images":
        share = student_share(
            step, method.selection, **method.pulse, mix=method.mix, seed=method.choice_seed
        )
        both = share > 0
    quirks = method.quirks
    both = both and not (quirks.squashed_crf_image and quirks.ignore_pulse)
    return "fit, both teachers" if both else "fit, teacher A"


KINDS: Mapping[str, Callable[[Any, int], str]] = {
    "tscd": _warm_up,
    "cosa": _warm_up,
    "asdt": _teachers,
}
"""Method -> what to call a step, given settings and step. Steps of one name take the same time."""


def plan(
    name: str,
    config: Any,
    out: Path,
    steps: int = 5,
    images: int = 8,
    data: tuple[Any, Any] | None = None,
) -> Plan:
    """Steps, memory, hours and disk of a run, from a short probe of every kind of work.

    Nothing is written to `out`, and the run afterwards is the same as without a probe.

    Args:
        name: a method with a recipe of one stage, see `wsss_lab.runs.end_to_end`.
        config: settings of the run.
        out: its folder, new or with what an earlier start has left.
        steps: training steps to time of each kind; 0 times nothing.
        images: images to score for the timing.
        data: lists to train on and to evaluate on, if others than those of the settings.

    Raises:
        ValueError, FileNotFoundError: settings or data do not fit.
    """
    recipe = find_method(name).load()
    run = config.run
    train, val = data or (load_data(config.data, "train"), load_data(config.data, "val"))
    seeded(run.seed)
    method = recipe.build(config, train.num_classes, True)
    fabric = make_fabric(dataclasses.replace(run, devices=1, nodes=1))
    disk = training_disk([method], [run])

    kinds = [KINDS[name](config, step) for step in range(run.steps)]
    done = Counter(kinds[: steps_done(out, "model.safetensors", run.steps)])
    probes: dict[str, Probe] = {}
    if steps:
        for kind in dict.fromkeys(kinds):
            at = [step for step, other in enumerate(kinds) if other == kind][:SHOWN_STEPS]
            probes[kind] = probe_training(method, train, run, config.optim, config.data, steps, at)
        method.to(fabric.device).eval()
        alone = dataclasses.replace(config, run=dataclasses.replace(run, workers=0))
        timed = probe_images(
            lambda some: score(method, some, recipe.views(config), alone, fabric), val, images
        )
        probes["evaluate"] = dealt_out(timed, run)
    stages = [
        Stage(kind, count, "steps", done[kind], probes.get(kind), run.batch)
        for kind, count in Counter(kinds).items()
    ]
    stages.append(Stage("evaluate", len(val), "images", 0, probes.get("evaluate")))
    notes = plan_notes(run, probes, getattr(config, "report", 0))
    return Plan(tuple(stages), device_name(fabric.device), disk, free_disk(out), notes)
