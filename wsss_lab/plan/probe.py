"""A few steps or images of a run, timed on this machine, on copies of its networks."""

import copy
import dataclasses
import itertools
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from wsss_lab.config import OptimConfig, RunConfig
from wsss_lab.data.config import DataConfig
from wsss_lab.data.loader import StepLoader
from wsss_lab.data.transform import TrainingTransform
from wsss_lab.methods.common.base import Batch, Method, ParamGroup, StepOutput
from wsss_lab.runs.images import FirstImages
from wsss_lab.train.devices import make_fabric
from wsss_lab.train.fit import fit
from wsss_lab.train.log import memory


@dataclasses.dataclass(frozen=True)
class Probe:
    """Time and memory of a few steps or images."""

    seconds: float
    """Per step or image."""
    memory: float
    """Largest memory, GB: of the GPU, or of the whole process where there is none."""
    bound: str = ""
    """Part of the work that limits the speed."""


class _At(Method):
    """A method that is told other step numbers than those of the loop."""

    def __init__(self, method: Method, at: Sequence[int]):
        super().__init__()
        self.method, self.at = method, at

    def training_step(self, batch: Batch, step: int) -> StepOutput:
        return self.method.training_step(batch, self.at[step % len(self.at)])

    def param_groups(self, lr: float, head_lr: float, weight_decay: float) -> list[ParamGroup]:
        return self.method.param_groups(lr, head_lr, weight_decay)

    def after_step(self, step: int) -> None:
        self.method.after_step(self.at[step % len(self.at)])


def probe_training(
    method: Method,
    images: Any,
    run: RunConfig,
    optim: OptimConfig,
    data: DataConfig,
    steps: int,
    at: Sequence[int] = (),
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
        at: step numbers that the method is told, over and over, for methods whose steps are not all
            alike; none: from 0.
    """
    copied = copy.deepcopy(method)
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
    views, times = TrainingTransform(data, copied.input_mean), []
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
        _At(copied, at) if at else copied,
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
    work(FirstImages(images, 1))
    start = time.perf_counter()
    chosen = FirstImages(images, count)
    work(chosen)
    return Probe((time.perf_counter() - start) / len(chosen), memory())


def probe_labels(
    label: Callable[[Any, Path], object], images: Any, count: int, run: RunConfig
) -> tuple[Probe, float]:
    """Time the making of label files, dealt out to all devices of a run.

    Args:
        label: writes the label files of some images to a folder, as the stage will.
        images: data set of the stage.
        count: of images to time.
        run: settings.

    Returns:
        Time and memory of an image, and the mean bytes of its label file.
    """
    with tempfile.TemporaryDirectory(prefix="wsss_lab_probe_") as folder:

        def work(some: FirstImages) -> None:
            label(some, Path(tempfile.mkdtemp(dir=folder)))

        probe = dealt_out(probe_images(work, images, count), run)
        written = list(Path(folder).rglob("*.png"))
        return probe, sum(file.stat().st_size for file in written) / max(1, len(written))


class Blank(FirstImages):
    """Images with masks of background only: what a stage reads whose labels are not made yet."""

    def __getitem__(self, index: int) -> Any:
        sample = dict(super().__getitem__(index))
        sample["mask"] = torch.zeros(sample["image"].shape[-2:], dtype=torch.int64)  # type: ignore[attr-defined]
        return sample


def dealt_out(probe: Probe, run: RunConfig) -> Probe:
    """A probe of images that are dealt out to all devices of a run."""
    seconds = probe.seconds / (run.devices * run.nodes)
    return dataclasses.replace(probe, seconds=seconds, bound="one reader")
