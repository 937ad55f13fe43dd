"""Time CRF and energy: `python benchmarks/refine_global.py [--json FILE] [--threads N]`.

Ours against the C++ code of `pydensecrf2` (a development tool, not a dependency: without it its
rows are left out, with the reason). The competitors take turns, so that other work on the machine
hits them alike; the smallest of several runs counts. CPU seconds compare better than wall seconds
on a shared machine, and best with one thread: a second thread of ours waits in a busy loop, which
counts as work.
"""

import argparse
import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from report import report

from wsss_lab.config import cpu_model
from wsss_lab.refine import DenseCRF, DenseEnergyLoss, Lattice, bilateral_features
from wsss_lab.runs.recipe import find_crf

CLASSES, SIZE = 21, (375, 500)
CRF_PRESETS = ("tscd-cam", "asdt-seg", "tscd-eval", "cosa-eval")


def clock(job: Callable[[], object]) -> tuple[float, float]:
    """Wall and CPU seconds of one call."""
    before, start = os.times(), time.perf_counter()
    job()
    wall, after = time.perf_counter() - start, os.times()
    return wall, after.user - before.user + after.system - before.system


def take_turns(jobs: dict[str, Callable[[], object]], repeats: int) -> dict[str, dict[str, float]]:
    """Smallest wall and CPU time of each job in seconds; the first turn warms up."""
    best = {name: (float("inf"), float("inf")) for name in jobs}
    for turn in range(repeats + 1):
        for name, job in jobs.items():
            wall, cpu = clock(job)
            if turn:
                best[name] = (min(best[name][0], wall), min(best[name][1], cpu))
    return {n: {"wall_s": round(w, 4), "cpu_s": round(c, 4)} for n, (w, c) in best.items()}


def scene(batch: int, size: tuple[int, int], grain: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Smooth colour fields with pixel noise of standard deviation `grain`; smooth probabilities.

    The grain decides how many lattice corners are in use, hence the cost of blurring.
    """
    torch.manual_seed(0)
    image = 120 + grain * torch.randn(batch, 3, *size)
    for i, cells in enumerate((4, 12, 40)):
        field = torch.randn(batch, 3, cells, cells * 4 // 3)
        image += F.interpolate(field, size, mode="bicubic") * 60 / (1 + i)
    coarse = 3 * torch.randn(batch, CLASSES, 24, 32)
    probs = F.interpolate(coarse, size, mode="bilinear").softmax(1)
    return image.clamp(0, 255).to(torch.uint8), probs


def load_oracle() -> tuple[object, object] | None:
    """pydensecrf, or None with a printed reason."""
    try:
        from pydensecrf import densecrf, utils
    except ImportError as error:
        print(f"C++ rows left out: {error} (pip install pydensecrf2)")
        return None
    return densecrf, utils


def cpp_crf(oracle: tuple, crf: DenseCRF, image: torch.Tensor, probs: torch.Tensor) -> np.ndarray:
    """The same CRF by pydensecrf, for one image."""
    densecrf, utils = oracle
    h, w = image.shape[-2:]
    field = densecrf.DenseCRF2D(w, h, probs.shape[1])
    field.setUnaryEnergy(utils.unary_from_softmax(probs[0].numpy()))
    field.addPairwiseGaussian(sxy=crf.spatial_sigma, compat=crf.spatial_weight)
    field.addPairwiseBilateral(
        sxy=crf.bilateral_sigma_xy,
        srgb=crf.bilateral_sigma_rgb,
        rgbim=np.ascontiguousarray(image[0].permute(1, 2, 0).numpy()),
        compat=crf.bilateral_weight,
    )
    return np.array(field.inference(crf.iterations)).reshape(-1, h, w)


def crf_row(oracle: tuple | None, preset: str, grain: float, repeats: int) -> dict:
    """One image of VOC's size, 21 classes, as a user calls it (the lattice is built anew)."""
    crf = find_crf(preset)
    image, probs = scene(1, SIZE, grain)

    def build() -> Lattice:
        return Lattice(bilateral_features(image, crf.bilateral_sigma_xy, crf.bilateral_sigma_rgb))

    jobs: dict[str, Callable[[], object]] = {
        "ours": lambda: crf(image, probs),
        "ours, building the colour lattice only": build,
    }
    row = {"iterations": crf.iterations, "corners": build().corners}
    if oracle:
        jobs["C++"] = lambda: cpp_crf(oracle, crf, image, probs)
        difference = crf(image, probs)[0].numpy() - cpp_crf(oracle, crf, image, probs)
        row["largest_difference"] = float(np.abs(difference).max())
    return row | take_turns(jobs, repeats)


def cpp_filter(oracle: tuple, images: torch.Tensor, probs: torch.Tensor) -> None:
    """Stand-in for the authors' compiled filter: one unnormalised bilateral pass per image."""
    densecrf, utils = oracle
    h, w = images.shape[-2:]
    for image, prob in zip(images, probs, strict=True):
        field = densecrf.DenseCRF2D(w, h, len(prob))
        field.setUnaryEnergy(utils.unary_from_softmax(prob.numpy()))
        field.addPairwiseBilateral(
            sxy=50,
            srgb=15,
            rgbim=np.ascontiguousarray(image.permute(1, 2, 0).numpy()),
            compat=1,
            normalization=densecrf.NO_NORMALIZATION,
        )
        field.inference(1)


def energy_row(oracle: tuple | None, grain: float, repeats: int) -> dict:
    """Two crops of 448 px, so the lattice works at 224 px; forward and backward."""
    images, probs = scene(2, (448, 448), grain)
    labels = torch.zeros(2, 448, 448, dtype=torch.long)
    labels[:, ::3] = 255
    valid = torch.ones_like(labels, dtype=torch.bool)
    logits = probs.log().requires_grad_()

    def ours(gradient: str) -> None:
        logits.grad = None
        loss = DenseEnergyLoss(gradient=gradient)  # type: ignore[arg-type]
        loss(logits.softmax(1), images, valid, labels).backward()

    jobs: dict[str, Callable[[], object]] = {
        "ours": lambda: ours("released"),
        "ours, true gradient": lambda: ours("true"),
    }
    if oracle:
        small = F.interpolate(probs, scale_factor=0.5, mode="bilinear").contiguous()
        jobs["C++ filter alone, no loss around it"] = lambda: cpp_filter(
            oracle, images[:, :, ::2, ::2], small
        )
    return take_turns(jobs, repeats)


def main() -> None:
    """Print the times as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, help="write the result here too")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--grains", type=float, nargs="*", default=[4.0])
    parser.add_argument("--presets", nargs="*", default=CRF_PRESETS, choices=CRF_PRESETS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    oracle = load_oracle()
    result: dict = {
        "size": SIZE,
        "classes": CLASSES,
        "threads": options.threads,
        "torch": torch.__version__,
        "cpu": cpu_model(),
        "load_before": os.getloadavg(),
    }
    for grain in options.grains:
        for preset in options.presets:
            row = crf_row(oracle, preset, grain, options.repeats)
            result[f"crf {preset}, grain {grain:g}"] = row
        result[f"energy 2x21x448x448, grain {grain:g}"] = energy_row(oracle, grain, options.repeats)
    result["load_after"] = os.getloadavg()
    report(result, options.json)


if __name__ == "__main__":
    main()
