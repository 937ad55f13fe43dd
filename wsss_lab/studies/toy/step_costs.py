"""Cost of a training step of every method on the toy world: passes, processor time, memory.

    python -m wsss_lab.studies.toy.step_costs --out wsss_lab/records/step_costs.json

Every kind of step of a preset is taken a few times, by the probe that `plan` uses. Counted is what
goes through a backbone: images, each weighted by its area in crops, apart for passes that gradients
go through and passes without. Each method runs in a process of its own, for its memory.
"""

import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import tyro
from torch.nn.modules.module import register_module_forward_pre_hook

from wsss_lab.config import provenance, write_json
from wsss_lab.data.toy import TOY_VERSION
from wsss_lab.models.base import Backbone
from wsss_lab.plan import probe
from wsss_lab.ranges import Count, Settings
from wsss_lab.runs.recipe import find_recipe

WARM = 2
"""Steps that the probe takes before those it times."""


@dataclass(frozen=True)
class StepCosts(Settings):
    """Settings of the record."""

    out: Path = Path("step_costs.json")
    """Record to write."""
    methods: tuple[str, ...] = ("cam_baseline", "tscd", "asdt", "acr", "cosa")
    """Methods, each by its preset `toy`."""
    steps: Count = 2
    """Steps of each kind that count; two slower ones come before."""
    only: str = ""
    """A method: print its costs as JSON and write nothing. The script calls itself so."""
    note: str = ""
    """Note on the machine: other work beside the run."""


@contextmanager
def backbone_passes(crop: int) -> Iterator[dict[str, float]]:
    """Count what goes through backbones, in crops: passes with gradients, and without."""
    passes = {"with_gradients": 0.0, "without": 0.0}

    def count(module: torch.nn.Module, inputs: Any) -> None:
        if isinstance(module, Backbone):
            images, _, height, width = inputs[0].shape
            kind = "with_gradients" if torch.is_grad_enabled() else "without"
            passes[kind] += images * height * width / crop**2

    handle = register_module_forward_pre_hook(count)
    try:
        yield passes
    finally:
        handle.remove()


@contextmanager
def watched(crop: int, found: list[dict[str, float]]) -> Iterator[None]:
    """Add the costs of a step of every training that the probe makes, one entry each."""
    fit: Callable[..., Any] = probe.fit  # type: ignore[attr-defined]

    def watched_fit(method: Any, batches: Any, run: Any, *rest: Any, **named: Any) -> Any:
        clock, seen = named.pop("on_step"), []
        with backbone_passes(crop) as passes:

            def on_step(step: int, output: Any) -> None:
                seen.append((time.process_time(), dict(passes)))
                clock(step, output)

            done = fit(method, batches, run, *rest, on_step=on_step, **named)
        (start, before), (end, after) = seen[WARM - 1], seen[-1]
        steps = len(seen) - WARM
        found.append(
            {key: (after[key] - before[key]) / steps / run.batch for key in passes}
            | {"processor_s": (end - start) / steps / run.batch, "batch": run.batch}
        )
        return done

    probe.fit = watched_fit  # type: ignore[attr-defined]
    try:
        yield
    finally:
        probe.fit = fit  # type: ignore[attr-defined]


def costs(method: str, steps: int) -> dict[str, Any]:
    """Costs of every kind of step of a method's preset, an image each; runs in this process.

    Args:
        method: its name.
        steps: of each kind.

    Returns:
        `kinds` by name: steps of that kind in the preset; passes and processor seconds for each
        image of a batch. `peak_mib`: largest memory of this process.
    """
    torch.set_num_threads(1)
    recipe = find_recipe(method)
    config = recipe.preset("toy")
    crop, found = config.data.crop, []  # type: ignore[var-annotated]
    with tempfile.TemporaryDirectory() as folder, watched(crop, found):
        plan = recipe.plan(config, Path(folder), steps, 1)
    stages = [stage for stage in plan.stages if stage.unit == "steps"]
    return {
        "kinds": {
            stage.name: {"steps": stage.amount, **one}
            for stage, one in zip(stages, found, strict=True)
        },
        "crop": crop,
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }


def run(settings: StepCosts) -> dict[str, Any]:
    """Measure every method in a process of its own; write the record."""
    record = provenance(
        {"methods": list(settings.methods), "steps": settings.steps, "preset": "toy"},
        seed=0, device="cpu", data=TOY_VERSION, note=settings.note,
    )  # fmt: skip
    record["methods"] = {}
    for method in settings.methods:
        command = [sys.executable, "-m", "wsss_lab.studies.toy.step_costs", "--only", method]
        done = subprocess.run(
            [*command, "--steps", str(settings.steps)], capture_output=True, text=True, check=True
        )
        record["methods"][method] = json.loads(done.stdout.splitlines()[-1])
        print(method, record["methods"][method], flush=True)
    write_json(settings.out, record)
    return record


if __name__ == "__main__":
    given = tyro.cli(StepCosts, description=__doc__)
    if given.only:
        print(json.dumps(costs(given.only, given.steps)))
    else:
        run(given)
