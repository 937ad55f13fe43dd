"""What `gpu.py` measures: jobs by part. Each returns numbers whose names end in their units."""

import dataclasses
import gc
import itertools
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

Numbers = dict[str, Any]

BF16, F32 = "bf16", "float32"
PRECISIONS = {"bf16-mixed": BF16, "32-true": F32, "16-mixed": "float16"}
CHECK = 96
"""Side in px at which an accelerator's result is compared with the CPU's."""


@dataclass
class Bench:
    """Where and how large; what parts before have found."""

    device: torch.device
    tiny: bool = False
    seconds: float = 5.0
    """Time that a measurement may take after it has warmed up."""
    compiled: bool = False
    """Measure `torch.compile`, too: it may take minutes to compile."""
    peaks: dict[str, float] = field(default_factory=dict)
    """Arithmetic -> operations per second of a large matrix product on this device."""

    @property
    def cuda(self) -> bool:
        """Whether there are events and a count of memory (ROCm says cuda, too)."""
        return self.device.type == "cuda"

    def wait(self) -> None:
        """Wait until the device has done everything."""
        if self.device.type != "cpu":
            torch.accelerator.synchronize()

    def time(self, job: Callable[[], object], most: int = 30, warm: int = 2) -> Numbers:
        """Milliseconds of a job, median and smallest, and the memory that it needs at most.

        An event is recorded before and after, with nothing else waiting on the device, so that the
        host's share counts where the device waits for it.
        """
        least = 1 if self.tiny else 3
        for _ in range(0 if self.tiny else warm):
            job()
        self.wait()
        if self.cuda:
            torch.cuda.reset_peak_memory_stats()
        found: list[float] = []
        until = time.monotonic() + self.seconds
        while len(found) < most and (len(found) < least or time.monotonic() < until):
            found.append(self._once(job))
        numbers: Numbers = {
            "ms_median": digits(statistics.median(found)),
            "ms_smallest": digits(min(found)),
            "runs": len(found),
        }
        if self.cuda:
            numbers["peak_memory_gb"] = digits(torch.cuda.max_memory_allocated() / 1e9)
        return numbers

    def _once(self, job: Callable[[], object]) -> float:
        if self.cuda:
            first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            first.record()
            job()
            last.record()
            last.synchronize()
            return first.elapsed_time(last)
        start = time.perf_counter()
        job()
        self.wait()
        return 1000 * (time.perf_counter() - start)

    def rates(self, numbers: Numbers, images: int, operations: float, kind: str) -> Numbers:
        """Images and operations per second of a timed job, and the share of the measured peak."""
        seconds = numbers["ms_median"] / 1000
        numbers["images_per_s"] = digits(images / seconds)
        if operations:
            numbers["gflop_per_image"] = digits(operations / images / 1e9)
            numbers["tflop_per_s"] = digits(operations / seconds / 1e12)
            numbers["arithmetic"] = kind
            if kind in self.peaks:
                numbers["mfu_of_measured_peak"] = digits(operations / seconds / self.peaks[kind])
        return numbers

    def random_image(self, *shape: int) -> Tensor:
        """Uniform noise on the device, channels last."""
        image = torch.rand(*shape, generator=torch.Generator().manual_seed(0))
        return image.to(self.device, memory_format=torch.channels_last)


def digits(value: float) -> float:
    """Four digits."""
    return float(f"{value:.4g}")


def free() -> None:
    """Give memory back, so that the next job has all of it."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def count_operations(job: Callable[[], object]) -> float:
    """Floating point operations of matrix products, convolutions and attention in a job.

    A multiplication and an addition are two.
    """
    from flops import counter

    with counter() as counting:
        job()
    return float(counting.get_total_flops())


def operations_of(job: Callable[[], object]) -> tuple[float, Numbers]:
    """The same; 0 and the reason where they cannot be counted, which costs the MFU alone."""
    try:
        return count_operations(job), {}
    except Exception as error:
        if is_memory_error(error):
            raise
        return 0.0, {"operations_not_counted": f"{type(error).__name__}: {str(error)[:200]}"}


def is_memory_error(error: Exception) -> bool:
    """Whether a device, or the host, had too little memory."""
    kind = getattr(torch, "OutOfMemoryError", torch.cuda.OutOfMemoryError)
    text = str(error).lower()
    return isinstance(error, kind | MemoryError) or "out of memory" in text or "alloc" in text


# --- the device ----------------------------------------------------------------------------------


def peak_jobs(bench: Bench) -> Iterator[tuple[str, Callable[[], Numbers]]]:
    """The largest rate of a square matrix product, and of a copy."""
    sides = (256, 384) if bench.device.type == "cpu" else (4096, 8192, 16384)

    def product(dtype: torch.dtype, kind: str, tf32: bool = False) -> Numbers:
        best: Numbers = {}
        before = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision("high" if tf32 else "highest")
        try:
            for side in sides:
                found = rate(dtype, side)
                if found["tflop_per_s"] > best.get("tflop_per_s", 0.0):
                    best = {"arithmetic": kind, **found}
                    bench.peaks[kind] = best["tflop_per_s"] * 1e12
        except Exception as error:
            if not (best and is_memory_error(error)):  # a small GPU has the smaller ones
                raise
        finally:
            torch.set_float32_matmul_precision(before)
        return best

    def rate(dtype: torch.dtype, side: int) -> Numbers:
        a, b = (torch.randn(side, side, device=bench.device, dtype=dtype) for _ in "ab")
        out = torch.empty_like(a)
        times = bench.time(lambda: torch.mm(a, b, out=out), most=10)
        fastest = 2 * side**3 / times["ms_smallest"] / 1e9
        return {"tflop_per_s": digits(fastest), "side": side, **times}

    yield "matrix product, bf16", lambda: product(torch.bfloat16, BF16)
    yield "matrix product, float32", lambda: product(torch.float32, F32)
    if bench.cuda:
        yield "matrix product, TF32", lambda: product(torch.float32, "tf32", True)

    def copy() -> Numbers:
        count = 2**20 if bench.tiny else 2**28
        source = torch.empty(count, device=bench.device)
        target = torch.empty_like(source)
        times = bench.time(lambda: target.copy_(source))
        return times | {"gb_per_s": digits(8 * count / times["ms_smallest"] / 1e6)}

    yield "copy, read and written", copy


# --- networks ------------------------------------------------------------------------------------


def backbone_jobs(bench: Bench) -> Iterator[tuple[str, Callable[[], Numbers]]]:
    """Forward, and forward with backward, of the papers' networks in bf16."""
    names = ("toy_cnn", "toy_vit") if bench.tiny else ("vit_b16", "mit_b1", "resnet50", "wrn38")
    side, batch = (64, 2) if bench.tiny else (448, 16)

    def run(name: str, backward: bool, compiled: bool = False) -> Numbers:
        from wsss_lab.models.backbones import build_backbone

        torch.manual_seed(0)
        network: Any = build_backbone(name)
        network = network.to(bench.device, memory_format=torch.channels_last)
        network.train(backward)
        called = torch.compile(network) if compiled else network

        def job(images: Tensor, called: Any = network) -> None:
            with (
                torch.set_grad_enabled(backward),
                torch.autocast(bench.device.type, torch.bfloat16),
            ):
                out = called(network.normalize(images)).last.float().mean()
            if backward:
                network.zero_grad(set_to_none=True)
                out.backward()

        def measured(count: int) -> Numbers:
            images = bench.random_image(count, 3, side, side)
            operations, reason = operations_of(lambda: job(images))
            times = bench.time(lambda: job(images, called), warm=3)
            return {**reason, **bench.rates(times, count, operations, BF16)}

        return {"side_px": side, **with_less_memory(measured, batch)}

    for name in names:
        yield f"{name}, forward", partial(run, name, False)
        yield f"{name}, forward and backward", partial(run, name, True)
    if bench.compiled:
        label = f"{names[0]}, forward and backward, torch.compile"
        yield label, partial(run, names[0], True, compiled=True)


def with_less_memory(measured: Callable[[int], Numbers], batch: int) -> Numbers:
    """Measure with a batch, or with half of it and so on, where memory does not suffice."""
    wanted, text = batch, ""
    while True:
        try:
            found = measured(batch)
        except Exception as error:
            if batch == 1 or not is_memory_error(error):
                raise
            text = str(error).partition("\n")[0][:200]
        else:
            less = {"batch_wanted": wanted, "out_of_memory": text} if text else {}
            return {"batch": batch, **less, **found}
        free()  # outside `except`: the traceback would hold the tensors
        batch //= 2


# --- training steps of the presets ----------------------------------------------------------------

STAGES = {"cam_baseline": ("tags", "masks"), "acr": ("fit", "affinity", "masks")}
"""Method -> names of its training stages; the others have one."""


def step_jobs(bench: Bench) -> Iterator[tuple[str, Callable[[], Numbers]]]:
    """One training step of each stage of each preset: what counts most comes first."""
    methods = ("cosa", "tscd", "acr", "asdt", "cam_baseline")
    presets = ("toy",) if bench.tiny else ("voc", "voc-released", "coco")
    from wsss_lab.runs.recipe import find_recipe

    found = []
    for preset, name in itertools.product(presets, methods):
        if preset not in find_recipe(name).presets:
            continue
        for stage in range(len(STAGES.get(name, ("fit",)))):
            for kind, at in step_kinds(name, preset, stage).items():
                rank = preset == "coco", bool(stage) or kind == "fit, tags only"
                job = partial(step, bench, name, preset, stage, at)
                found.append((rank, f"{name}, {preset}, {kind}", job))
    for _, label, job in sorted(found, key=lambda entry: entry[0]):
        yield label, job


def step_kinds(name: str, preset: str, stage: int) -> dict[str, int]:
    """Kind of a step -> a step of it."""
    if name in STAGES:
        return {STAGES[name][stage]: 0}
    from importlib import import_module

    method = import_module(f"wsss_lab.recipes.{name}").METHOD
    config, found = method.presets[preset], {}
    for at in range(config.run.steps):
        found.setdefault(method.step_kind(config, at), at)
    return found


def settings(name: str, preset: str) -> Any:
    """A preset with random weights."""
    from wsss_lab.runs.recipe import find_preset
    from wsss_lab.runs.settings import setting_names, with_changes

    config = find_preset(name, preset)
    names = [n for n in setting_names(config) if n.rpartition(".")[2].endswith("weights")]
    names = [n for n in names if not n.startswith("method.")]  # those are weights of losses
    return with_changes(config, dict.fromkeys(names, "random"))


def stage_data(name: str, config: Any, stage: int) -> Any:
    """The crops of a stage."""
    if name != "acr":
        return config.data
    from wsss_lab.recipes.acr.stages import stage_data as of_acr

    return of_acr(config, STAGES[name][stage])


def step(bench: Bench, name: str, preset: str, stage: int, at: int) -> Numbers:
    """Forward, backward, optimiser and what follows it, as `wsss_lab.train.fit` does them.

    Weights and images are random, of the data set's size; reading files is left out.
    """
    from wsss_lab.data.loader import StepLoader
    from wsss_lab.data.random_images import RandomImages, random_data
    from wsss_lab.data.transform import TrainingTransform
    from wsss_lab.runs.recipe import find_recipe
    from wsss_lab.train.guard import batch_parts
    from wsss_lab.train.optim import build_optimizer

    config = settings(name, preset)
    data, like = stage_data(name, config, stage), random_data(config.data)[0]
    stages = find_recipe(name).stages
    assert stages is not None
    plan = stages(config)[stage]
    torch.manual_seed(config.run.seed)
    method: Any = plan.build(like.num_classes)
    method.to(bench.device, memory_format=torch.channels_last).train()
    size = tuple(like.images.shape[-2:])
    images = RandomImages(size, 32, like.class_names, float(like.tags.sum(1).mean()), masks=True)
    run, optim = plan.run, plan.optim
    groups = method.param_groups(optim.lr, optim.lr * optim.head_lr_factor, optim.weight_decay)
    optimizer = build_optimizer(groups, optim, fused=bench.cuda)
    kind = PRECISIONS[run.precision]
    arithmetic = torch.bfloat16 if kind == BF16 else torch.float16

    def measured(count: int) -> Numbers:
        optimizer.zero_grad()  # of a batch that was too large
        parts = min(run.accumulate, count)
        views = TrainingTransform(data, method.input_mean)
        batch: Any = StepLoader(images, count, 0, views, device=bench.device)(0)

        def gradient() -> None:
            for part in batch_parts(batch, parts):
                with torch.autocast(bench.device.type, arithmetic, enabled=kind != F32):
                    output = method.training_step(part, at)
                (output.loss / parts).backward()

        def whole() -> None:
            gradient()
            torch.nn.utils.clip_grad_norm_(method.parameters(), optim.clip or torch.inf)
            optimizer.step()
            method.after_step(at)
            optimizer.zero_grad()

        whole()  # first calls build tables, which are no operations of a step
        operations, reason = operations_of(gradient)
        optimizer.zero_grad()
        rates = bench.rates(bench.time(whole), count, operations, kind)
        return {"accumulated_parts": parts, **reason, **rates}

    facts = {"side_px": data.crop, "precision": run.precision, "step": at}
    facts["parameters_million"] = digits(sum(p.numel() for p in method.parameters()) / 1e6)
    return facts | with_less_memory(measured, 2 if bench.tiny else run.batch)


# --- refinement -----------------------------------------------------------------------------------


def crf_jobs(bench: Bench) -> Iterator[tuple[str, Callable[[], Numbers]]]:
    """Dense CRFs of one photo with 21 classes; the lattice is built anew, as in use."""
    from refine_global import scene

    from wsss_lab.runs.recipe import find_crf

    size = (48, 64) if bench.tiny else (375, 500)

    def run(preset: str) -> Numbers:
        crf: Any = find_crf(preset)
        image, probs = (x.to(bench.device) for x in scene(1, size, 4.0))
        times = bench.time(lambda: crf(image, probs))
        small = scene(1, (CHECK, CHECK), 4.0)
        gap = difference(bench, lambda *x: crf(*x), *small)
        return {"size": [1, 21, *size], "iterations": crf.iterations, **times, **gap}

    for preset in ("tscd-eval", "asdt-seg", "cosa-eval"):
        yield f"dense CRF, {preset}", partial(run, preset)


def energy_jobs(bench: Bench) -> Iterator[tuple[str, Callable[[], Numbers]]]:
    """Dense energy, forward and backward."""
    from refine_global import scene

    from wsss_lab.refine import DenseEnergyLoss

    side = 64 if bench.tiny else 448

    def gradient(images: Tensor, probs: Tensor) -> Tensor:
        labels = torch.zeros(probs.shape[0], *probs.shape[2:], dtype=torch.long)
        labels[:, ::3] = 255
        labels = labels.to(probs.device)
        logits = probs.log().requires_grad_()
        loss = DenseEnergyLoss()(logits.softmax(1), images, torch.ones_like(labels).bool(), labels)
        loss.backward()
        assert logits.grad is not None
        return logits.grad

    def run() -> Numbers:
        images, probs = (x.to(bench.device) for x in scene(2, (side, side), 4.0))
        times = bench.time(lambda: gradient(images, probs))
        small = scene(2, (CHECK, CHECK), 4.0)
        gap = difference(bench, gradient, *small, relative=True)
        return {"size": [2, 21, side, side], **times, **gap}

    yield "dense energy, forward and backward", run


def local_jobs(bench: Bench) -> Iterator[tuple[str, Callable[[], Numbers]]]:
    """PAR, VARM and PAMR, ten iterations."""
    from refine_local import METHODS, scene

    side = 64 if bench.tiny else 448

    def run(name: str) -> Numbers:
        refine: Any = METHODS[name]()
        images, masks = (x.to(bench.device) for x in scene(2, 21, side))
        times = bench.time(lambda: refine(images, masks))
        gap = difference(bench, refine, *scene(1, 21, CHECK))
        return {"size": [2, 21, side, side], "iterations": 10, **times, **gap}

    for name in METHODS:
        yield f"{name}, 10 iterations", partial(run, name)


def difference(
    bench: Bench, job: Callable[..., Tensor], *inputs: Tensor, relative: bool = False
) -> Numbers:
    """Largest difference of a result from that of the CPU; nothing to compare on a CPU."""
    if bench.device.type == "cpu":
        return {}
    there, here = job(*(x.to(bench.device) for x in inputs)).cpu(), job(*inputs)
    gap = float((there - here).abs().max()) / (float(here.abs().max()) if relative else 1.0)
    name = "relative_difference_from_cpu" if relative else "largest_difference_from_cpu"
    return {name: float(f"{gap:.2g}"), "compared_at_px": CHECK}


# --- photos ---------------------------------------------------------------------------------------


def photo_jobs(bench: Bench) -> Iterator[tuple[str, Callable[[], Numbers]]]:
    """Photos decoded, cut to 448 px and moved to the device, by this process and by workers."""
    from data import BATCH, Files, write_photos

    from wsss_lab.data.config import DataConfig
    from wsss_lab.data.loader import StepLoader
    from wsss_lab.data.transform import TrainingTransform

    count, crop = (8, 64) if bench.tiny else (64, 448)

    def run(workers: int, **more: Any) -> Numbers:
        """Batches come in bunches from workers, so the mean over some seconds counts."""
        views = TrainingTransform(DataConfig(scale=(0.5, 2.0), crop=crop, **more))
        with tempfile.TemporaryDirectory() as folder:
            files: Any = Files(write_photos(Path(folder), count))
            with StepLoader(files, BATCH, 0, views, workers=workers, device=bench.device) as load:
                ready = 1 + 4 * workers  # more than they keep ready
                for at in range(ready):
                    load(at)
                bench.wait()
                start, done = time.perf_counter(), 0
                while done < 1 + 2 * workers or time.perf_counter() - start < bench.seconds / 2:
                    load(ready + done)
                    done += 1
                bench.wait()
                took = time.perf_counter() - start
        facts = {"workers": workers, "batch": BATCH, "side_px": crop, "batches": done}
        return facts | {"images_per_s": digits(BATCH * done / took)}

    yield "decode, cut, to the device; no workers", lambda: run(0)
    yield "the same with blur and strong view", lambda: run(0, blur=0.5, strong=True)
    for workers in (2,) if bench.tiny else dict.fromkeys((4, min(16, os.cpu_count() or 1))):
        yield f"decode, cut, to the device; {workers} workers", partial(run, workers)
    if bench.cuda:
        yield "decode on the GPU (nvJPEG)", lambda: by_gpu(bench, count)


def by_gpu(bench: Bench, count: int) -> Numbers:
    """Decode by torchvision's binding to nvJPEG, which not every build has."""
    from data import write_photos
    from torchvision.io import decode_jpeg, read_file

    with tempfile.TemporaryDirectory() as folder:
        raw = [read_file(str(path)) for path in write_photos(Path(folder), count)]
    times = bench.time(lambda: decode_jpeg(raw, device=bench.device))
    return {**times, "images_per_s": digits(1000 * count / times["ms_median"])}


def localise_jobs(bench: Bench) -> Iterator[tuple[str, Callable[[], Numbers]]]:
    """Class maps of ACR by attention and its gradients, three classes an image."""
    preset = "toy" if bench.tiny else "voc"

    def run() -> Numbers:
        from wsss_lab.data.random_images import random_data
        from wsss_lab.runs.recipe import find_recipe

        config = settings("acr", preset)
        classes = random_data(config.data)[0].num_classes
        method: Any = find_recipe("acr").build(config, classes, False)
        method.to(bench.device, memory_format=torch.channels_last).eval()
        image = bench.random_image(1, 3, config.data.crop, config.data.crop)
        tags = F.one_hot(torch.tensor([1, 3, 5]), classes).sum(0)[None].float().to(bench.device)
        times = bench.time(lambda: method.localise(image, tags))
        return {"side_px": config.data.crop, **bench.rates(times, 1, 0.0, F32)}

    yield f"acr, {preset}, localisation, 3 classes", run


Jobs = Callable[[Bench], Iterator[tuple[str, Callable[[], Numbers]]]]
PARTS: dict[str, tuple[float, Jobs]] = {
    "peak": (0.06, peak_jobs),
    "steps": (0.50, step_jobs),
    "backbones": (0.18, backbone_jobs),
    "crf": (0.06, crf_jobs),
    "energy": (0.03, energy_jobs),
    "local": (0.06, local_jobs),
    "localise": (0.03, localise_jobs),
    "photos": (0.08, photo_jobs),
}
"""Part -> its share of the time, its jobs. What a part leaves, the next ones may use."""


def dataclass_facts(bench: Bench) -> Numbers:
    """Settings of the measurement, for its JSON file."""
    facts = dataclasses.asdict(bench)
    return {k: facts[k] for k in ("tiny", "seconds", "compiled")}
