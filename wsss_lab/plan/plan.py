"""Plan of a run within a minute: readable data, steps, hours, memory, disk.

Every time here is measured on this machine, with the code and the data of the run, on a few steps
and a few images (`wsss_lab.plan.probe`), and multiplied by their number. What other processes do
meanwhile, writing checkpoints, and the talk between several devices are not in it.
"""

import dataclasses
import math
import shutil
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

from torch import nn

from wsss_lab.config import RunConfig
from wsss_lab.data.config import DataConfig, build_dataset
from wsss_lab.data.errors import DataError, Problem
from wsss_lab.data.truth import lacks_truth
from wsss_lab.plan.probe import Probe
from wsss_lab.train.checkpoint import checkpoint_files

SHOWN = 20
"""Problems of a data set that are written out."""


def data_report(data: DataConfig, look: int = 16, workers: int = 8) -> str:
    """Read the lists and tags of a data set, open some of its images, and report the counts.

    Args:
        data: which data set.
        look: images of each list to open, spread evenly over it, with their masks if the list is
            the one to evaluate on; -1 opens all of them.
        workers: threads that open files.

    Returns:
        A line per list.

    Raises:
        ValueError: no root, or an unknown list.
        DataError: a file is missing or wrong; names the first ones and what to do.
    """
    lines = [f"data: {data.name}" + (f" in {data.root}" if data.root else ", drawn on the fly")]
    names: dict[str, Sequence[str]] = {}
    problems: list[str] = []
    roles = ("train",) if lacks_truth(data) else ("train", "val")
    for role in roles:
        images: Any = build_dataset(data, role)
        names[role] = images.class_names
        opened = _open_some(images, look, workers, problems)
        lines.append(
            f"{role + ':':6} list {data.split_of(role)!r}, {len(images)} images, "
            f"{images.num_classes} classes; {opened} opened"
        )
    if problems:
        more = [f"and {len(problems) - SHOWN} more"] if len(problems) > SHOWN else []
        raise DataError("\n".join([*problems[:SHOWN], *more]))
    if len(roles) == 1:
        lines.append("val:   no masks, so the run ends without scores")
    elif list(names["train"]) != list(names["val"]):
        raise Problem(
            str(data.root),
            f"the lists have other classes: {list(names['train'])} and {list(names['val'])}",
            "Put all names, background left out, in the order of the mask values into classes.txt",
        ).error()
    return "\n".join(lines)


def _open_some(images: Any, look: int, workers: int, problems: list[str]) -> int:
    """Read images spread over a data set; what goes wrong is added to the problems."""
    count = len(images) if look < 0 else min(look, len(images))
    chosen = [i * len(images) // count for i in range(count)]

    def open_one(index: int) -> str:
        try:
            images[index]
        except DataError as error:
            return str(error)
        return ""

    with ThreadPoolExecutor(workers) as pool:
        problems += [text for text in pool.map(open_one, chosen) if text]
    return count


@dataclasses.dataclass(frozen=True)
class Stage:
    """One part of a run."""

    name: str
    amount: int
    unit: str
    """"steps" or "images"."""
    done: int = 0
    """How much of it an earlier start has done."""
    probe: Probe | None = None
    """None: not timed."""
    batch: int = 1
    """Images per unit, over all devices."""

    @property
    def images_per_second(self) -> float:
        """How fast it goes over all devices; NaN if it was not timed."""
        return self.batch / self.probe.seconds if self.probe else math.nan

    @property
    def seconds(self) -> float:
        """Time left, in seconds; NaN if it was not timed and is not done."""
        left = self.amount - self.done
        return 0.0 if not left else left * self.probe.seconds if self.probe else math.nan


@dataclasses.dataclass(frozen=True)
class Plan:
    """All stages of a run, and what they need."""

    stages: tuple[Stage, ...]
    device: str
    disk: float
    """GB that the run's folder will hold at most."""
    free: float
    """GB free where it lies."""
    notes: tuple[str, ...] = ()

    @property
    def hours(self) -> float:
        """Time left, in hours; NaN if something was not timed."""
        return sum(stage.seconds for stage in self.stages) / 3600

    def as_dict(self) -> dict[str, Any]:
        """Plain numbers for a JSON file; None for what was not timed."""
        rows = []
        for stage in self.stages:
            each = stage.probe.seconds if stage.probe else math.nan
            numbers = {
                "seconds_each": each,
                "images_per_s": stage.images_per_second,
                "memory_gb": stage.probe.memory if stage.probe else math.nan,
                "hours_left": stage.seconds / 3600,
            }
            facts = {"stage": stage.name, "amount": stage.amount, "unit": stage.unit}
            bound = stage.probe.bound if stage.probe else ""
            rows.append(facts | {"done": stage.done} | _rounded(numbers) | {"bound": bound})
        total = _rounded({"hours_left": self.hours, "disk_gb": self.disk})
        return {"device": self.device, "stages": rows, **total, "notes": list(self.notes)}

    def __str__(self) -> str:
        """The plan as a table."""
        head = ("stage", "amount", "done", "each", "images/s", "left", "memory", "bound by")
        rows = [head, *(_row(stage) for stage in self.stages)]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = [
            "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()
            for row in rows
        ]
        total = "not timed" if math.isnan(self.hours) else _clock(3600 * self.hours)
        lines.append(f"left in all (h:min:s): {total} on {self.device}, estimated from a probe")
        lines.append(f"disk: at most {self.disk:.2f} GB, {self.free:.0f} GB free")
        if self.disk > self.free:
            lines.append("WARNING: the disk is too small; free some space or choose another `out`")
        return "\n".join([*lines, *self.notes])


def _rounded(numbers: dict[str, float]) -> dict[str, float | None]:
    """Five digits of each; a probe knows no more."""
    return {k: None if math.isnan(v) else float(f"{v:.5g}") for k, v in numbers.items()}


def _row(stage: Stage) -> tuple[str, ...]:
    probe = stage.probe
    left = "?" if math.isnan(stage.seconds) else _clock(stage.seconds)
    each = f"{1000 * probe.seconds:.0f} ms" if probe else "?"
    space = f"{probe.memory:.1f} GB" if probe else "?"
    bound = probe.bound if probe else ""
    speed = f"{stage.images_per_second:.3g}" if probe else "?"
    amount = f"{stage.amount} {stage.unit}"
    return (stage.name, amount, str(stage.done), each, speed, left, space, bound)


def _clock(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))


def training_disk(modules: Sequence[nn.Module], runs: Sequence[RunConfig]) -> float:
    """GB of the checkpoints and weights of training stages.

    A checkpoint has the weights and, with AdamW, two numbers for each. One more than `keep` is
    there while it is written.
    """
    total = 0.0
    for module, run in zip(modules, runs, strict=True):
        weights = sum(v.numel() * v.element_size() for v in module.state_dict().values())
        total += weights * (3 * (run.keep + 1) + 1)
    return total / 1e9


def steps_done(out: Path | None, weights: str, steps: int) -> int:
    """Steps of a training stage that need not be done again.

    Args:
        out: folder of the stage; None for a new run.
        weights: the file that marks the stage as done, relative to `out`.
        steps: of the stage.
    """
    if out is None:
        return 0
    if (out / weights).is_file():
        return steps
    files = checkpoint_files(out)
    return min(steps, int(files[-1].stem.rpartition("_")[2])) if files else 0


def free_disk(out: Path) -> float:
    """GB free where a folder is or will be."""
    there = out.resolve()
    while not there.exists():
        there = there.parent
    return shutil.disk_usage(there).free / 1e9


def plan_notes(
    run: RunConfig, probes: Mapping[str, Probe], report_train: int = 0, watch: int = 0
) -> tuple[str, ...]:
    """List the work that a plan leaves out, one line each.

    Args:
        run: settings; several devices talk to each other.
        probes: what was timed.
        report_train: training images that are scored at the end.
        watch: training images that are predicted now and then during training.
    """
    if not probes:
        return ("not timed: the probe is switched off",)
    notes = []
    if report_train:
        notes.append(
            f"not in the plan: the report on {report_train} training images, if they have masks"
        )
    if watch:
        notes.append(f"not in the plan: predictions of {watch} training images between steps")
    if run.devices * run.nodes > 1:
        notes.append("not in the plan: the talk between devices; one was timed with its share")
    return tuple(notes)
