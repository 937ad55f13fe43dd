"""What a run will take, found out in a minute: data that can be read, steps, hours, memory, disk.

Every time here is measured on this machine, with the code and the data of the run, on a few steps
and a few images, and multiplied by their number. What other processes do meanwhile, writing
checkpoints, and the talk between several devices are not in it.
"""

import copy
import dataclasses
import itertools
import math
import os
import shutil
import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from torch import nn

from wsss_lab.config import OptimConfig, RunConfig
from wsss_lab.data.config import DataConfig, build_dataset
from wsss_lab.data.errors import DataError, Problem
from wsss_lab.data.loader import StepLoader
from wsss_lab.data.views import Views as TrainingViews
from wsss_lab.engine.checkpoint import checkpoint_files
from wsss_lab.engine.devices import make_fabric
from wsss_lab.engine.fit import fit
from wsss_lab.engine.log import memory
from wsss_lab.engine.recipes.stages import First
from wsss_lab.methods.base import Method

SHOWN = 20
"""Problems of a data set that are written out."""


def data_report(data: DataConfig, look: int = 16, workers: int = 8) -> str:
    """Read the lists and tags of a data set, open some of its images, and say what is there.

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
    for role in ("train", "val"):
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
    if list(names["train"]) != list(names["val"]):
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
class Probe:
    """What a few steps or images took."""

    seconds: float
    """Per step or image."""
    memory: float
    """Largest memory, GB: of the GPU, or of the whole process where there is none."""
    bound: str = ""
    """What the time goes to."""


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

    @property
    def seconds(self) -> float:
        """What is left of it, in seconds; NaN if it was not timed and is not done."""
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
        """What is left, in hours; NaN if something was not timed."""
        return sum(stage.seconds for stage in self.stages) / 3600

    def __str__(self) -> str:
        """The plan as a table."""
        head = ("stage", "amount", "done", "each", "left", "memory", "bound by")
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


def _row(stage: Stage) -> tuple[str, ...]:
    probe = stage.probe
    left = "?" if math.isnan(stage.seconds) else _clock(stage.seconds)
    each = f"{1000 * probe.seconds:.0f} ms" if probe else "?"
    space = f"{probe.memory:.1f} GB" if probe else "?"
    bound = probe.bound if probe else ""
    return (stage.name, f"{stage.amount} {stage.unit}", str(stage.done), each, left, space, bound)


def _clock(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))


def probe_training(
    method: Method, images: Any, run: RunConfig, optim: OptimConfig, data: DataConfig, steps: int
) -> Probe:
    """Time some steps of a run on a copy of its network; the network itself stays as it is.

    Reading and computing are timed apart, since worker processes do them at the same time: a step
    takes as long as the slower of the two. With several devices, one of them computes its share.

    Args:
        method: as it will be trained.
        images: data set of the stage.
        run: settings; nothing is written, and nothing logged.
        optim: optimiser.
        data: crops and colours.
        steps: to time; the first two, slower ones come on top.
    """
    world = run.devices * run.nodes
    share = dataclasses.replace(
        run,
        batch=max(1, run.batch // world),
        devices=1,
        nodes=1,
        steps=steps + 2,
        log_every=0,
        save_every=0,
        progress=False,
        tensorboard=False,
    )
    views, times = TrainingViews(data), []
    loader = StepLoader(images, share.batch, run.seed, views)
    loader(0)  # opens files and draws textures for the first time
    start = time.perf_counter()
    batches = [loader(1), loader(2)]
    reading = (time.perf_counter() - start) / 2
    fabric = make_fabric(share)
    fabric.launch()
    _reset_memory()

    def clock(step: int, output: Any) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        times.append(time.perf_counter())

    state = torch.get_rng_state()
    fit(
        copy.deepcopy(method),
        lambda step: batches[step % 2],  # type: ignore[arg-type, return-value]
        share,
        optim,
        fabric=fabric,
        log=None,
        on_step=clock,
    )
    torch.set_rng_state(state)
    computing = statistics.median(b - a for a, b in itertools.pairwise(times[1:]))
    seconds, bound = _together(reading, computing, run)
    return Probe(seconds, memory(), bound)


def _together(reading: float, computing: float, run: RunConfig) -> tuple[float, str]:
    """Seconds of a step, and what they go to, from those of one process that reads its images."""
    if not run.workers:
        return reading + computing, f"reading {reading:.2f} s + computing {computing:.2f} s"
    readers = min(run.workers, max(1, (os.cpu_count() or 1) // run.devices))
    reading /= readers
    if reading > computing:
        return reading, f"reading, {computing / reading:.0%} of it computing"
    return computing, f"computing, {reading / computing:.0%} of it reading"


def _reset_memory() -> None:
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def probe_images(work: Callable[[Any], object], images: Any, count: int) -> Probe:
    """Time what a stage does to some images, after a first one that warms up.

    Args:
        work: does it to a data set, as the stage will.
        images: data set of the stage.
        count: of images to time.
    """
    _reset_memory()
    work(First(images, 1))
    start = time.perf_counter()
    chosen = First(images, count)
    work(chosen)
    return Probe((time.perf_counter() - start) / len(chosen), memory())


class Blank(First):
    """Images with masks of background only: what a stage reads whose labels are not made yet."""

    def __getitem__(self, index: int) -> Any:
        sample = dict(super().__getitem__(index))
        sample["mask"] = torch.zeros(sample["image"].shape[-2:], dtype=torch.int64)  # type: ignore[attr-defined]
        return sample


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
