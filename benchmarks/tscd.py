"""Time one training step of TSCD: `python benchmarks/tscd.py [--json FILE] [--size 512] ...`.

Ours against the step as its specification reads (`tscd_literal.py`): attention as two matrix
products with a softmax between, raw maps of all blocks kept, decoder and affinity head in every
pass (28 passes of an image for a batch of 2), the decoder at stride 4 from the start, refinement
image by image and score by score on stacked neighbours, correspondences as 5-dimensional tensors,
cross-entropy twice. Weights, images and points are the same; stochastic depth and dropout are off,
so losses must be, too. Both use this package's lattice for the dense energy (the released one is
C++ and costs about as much); the radius mask, which the released code fills in four nested loops
once per training, is not timed. Of the preset, the transcription takes what changes losses: colours
and symmetry of the affinity.

Ours and the transcription take turns. Each is also run in a process of its own for the growth of
its peak memory.
"""

import argparse
import contextlib
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from refine_local import peak_mb
from report import report
from torch import Tensor
from tscd_literal import Batch, literal_step

from wsss_lab.methods.tscd import views
from wsss_lab.methods.tscd.config import PRESETS
from wsss_lab.methods.tscd.method import TSCD
from wsss_lab.models.backbones import build_backbone
from wsss_lab.models.onednn import multiply_by_onednn
from wsss_lab.refine import radius_mask


def scene(size: int, classes: int) -> Batch:
    """Two images of whole grey levels, smooth with noise; two classes and one."""
    torch.manual_seed(0)
    coarse = torch.rand(2, 3, max(2, size // 32), max(2, size // 32))
    images = F.interpolate(coarse, (size, size), mode="bilinear") * 0.9
    images += 0.1 * torch.rand(2, 3, size, size)
    tags = torch.zeros(2, classes)
    tags[0, [1, classes - 1]] = tags[1, 2] = 1
    boxes = torch.tensor([[0, size, 0, size]] * 2)
    points = [torch.rand(2, 40, 40, 2) * 2 - 1 for _ in range(2)]
    grey = (255 * images).round() / 255
    return {"images": grey, "tags": tags, "boxes": boxes, "points": points}


def build(preset: str, backbone: str, classes: int) -> TSCD:
    """The method with random weights and without noise."""
    torch.manual_seed(1)
    config = replace(PRESETS[preset], backbone=backbone, drop_path=0.0)
    method = TSCD(build_backbone(backbone, drop_path=0.0), classes, config).train()
    method.network.seg_head.dropout.p = 0.0
    return method


def our_step(method: TSCD, batch: Batch) -> dict[str, Tensor]:
    """The same from the package, with the same points."""
    points = iter(batch["points"])
    draw, views.draw_points = views.draw_points, lambda *_: next(points)  # type: ignore[assignment]
    try:
        out = method.training_step(batch, method.config.warmup + 1)  # type: ignore[arg-type]
    finally:
        views.draw_points = draw
    return {**out.parts, "loss": out.loss}


def job(who: str, preset: str, options: argparse.Namespace) -> Callable[[], dict[str, float]]:
    """One step with its backward pass, ready to run; returns losses and a gradient's size."""
    method = build(preset, options.backbone, options.classes)
    if who == "literal":  # as anybody's network lies in memory
        method.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
        multiply_by_onednn(method, on=False)
    batch = scene(options.size, options.classes)
    grid = -(-options.size // method.network.backbone.stride)
    near = radius_mask(grid, grid, method.config.radius)

    def run() -> dict[str, float]:
        method.zero_grad(set_to_none=True)
        ours = who == "ours"
        parts = our_step(method, batch) if ours else literal_step(method, batch, near)
        parts["loss"].backward()
        grads = [p.grad.norm() for p in method.parameters() if p.grad is not None]
        numbers = {name: float(part.detach()) for name, part in parts.items()}
        return numbers | {"gradient": float(torch.stack(grads).norm())}

    return run


def take_turns(preset: str, options: argparse.Namespace) -> dict[str, Any]:
    """Smallest times of each in s, and how far their losses are apart."""
    jobs = {who: job(who, preset, options) for who in ("ours", "literal")}
    times: dict[str, list[tuple[float, float]]] = {who: [] for who in jobs}
    losses: dict[str, dict[str, float]] = {}
    for _ in range(options.repeats):
        for who, run in jobs.items():
            wall, cpu = time.perf_counter(), time.process_time()
            losses[who] = run()
            times[who].append((time.perf_counter() - wall, time.process_time() - cpu))
    result: dict[str, Any] = {
        who: {"wall_s": round(min(w for w, _ in t), 2), "cpu_s": round(min(c for _, c in t), 2)}
        for who, t in times.items()
    }
    result["relative_difference"] = {
        name: abs(value - losses["literal"][name]) / max(abs(losses["literal"][name]), 1e-12)
        for name, value in losses["ours"].items()
    }
    return result


def growth(who: str, preset: str, options: argparse.Namespace) -> float:
    """MB by which the largest resident size grows in one step, in a fresh process."""
    command = [sys.executable, __file__, "--memory-of", f"{who}:{preset}"]
    for flag in ("size", "classes", "backbone", "threads"):
        command += [f"--{flag}", str(getattr(options, flag))]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def own_growth(options: argparse.Namespace) -> float:
    """The same, for this process; a small step first loads what any step needs."""
    who, preset = options.memory_of.split(":")
    small = argparse.Namespace(**{**vars(options), "size": 224, "backbone": "mit_b0"})
    job(who, preset, small)()
    run = job(who, preset, options)
    with contextlib.suppress(OSError):  # Linux: forget the peak so far
        Path("/proc/self/clear_refs").write_text("5")
    before = peak_mb()
    run()
    return peak_mb() - before


def main() -> None:
    """Print times, memory and differences as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, help="write the result here too")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--classes", type=int, default=20)
    parser.add_argument("--backbone", default="mit_b1")
    parser.add_argument("--presets", nargs="+", default=["voc", "voc-released"])
    parser.add_argument("--memory-of", help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.memory_of:
        print(own_growth(options))
        return
    result: dict[str, Any] = {
        name: getattr(options, name) for name in ("backbone", "size", "classes", "threads")
    }
    result["torch"] = torch.__version__
    for preset in options.presets:
        found = result[preset] = take_turns(preset, options)
        for who in ("ours", "literal"):
            found[who]["peak_mb"] = round(growth(who, preset, options))
        found["literal_over_ours"] = {
            key: round(found["literal"][key] / found["ours"][key], 2) for key in found["ours"]
        }
    report(result, options.json)


if __name__ == "__main__":
    main()
