"""Time the metrics: `python benchmarks/metrics.py [--json FILE] [--threads N]`.

One VOC-sized image. The competitors take turns, so that other work on the machine hits them alike.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from report import report

from wsss_lab.cam import cam_to_label
from wsss_lab.metrics import BoundaryScore, ConfusionMatrix, ThresholdSweep

CLASSES, SIZE = 21, (375, 500)


def take_turns(jobs: dict[str, Callable[[], object]], repeats: int) -> dict[str, dict[str, float]]:
    """Median and smallest wall time of each job in ms."""
    times: dict[str, list[float]] = {name: [] for name in jobs}
    for turn in range(repeats + 1):  # the first turn warms up
        for name, job in jobs.items():
            start = time.perf_counter()
            job()
            if turn:
                times[name].append(1000 * (time.perf_counter() - start))
    return {
        name: {"median_ms": round(statistics.median(t), 3), "min_ms": round(min(t), 3)}
        for name, t in times.items()
    }


def scene() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Smooth maps, tags of three classes, blocky truth with an ignored band, a prediction."""
    torch.manual_seed(0)
    cam = F.interpolate(torch.rand(1, CLASSES - 1, 24, 32), SIZE, mode="bilinear")
    tags = torch.zeros(1, CLASSES - 1)
    tags[0, [2, 7, 14]] = 1
    blocks = torch.tensor([0, 3, 8, 15])[torch.randint(0, 4, (1, 1, 5, 6))].float()
    truth = F.interpolate(blocks, SIZE, mode="nearest")[:, 0].to(torch.uint8)
    truth[:, :, 240:250] = 255
    return cam, tags, truth, cam_to_label(cam, tags, 0.4)


def sweep_jobs(cam: torch.Tensor, tags: torch.Tensor, truth: torch.Tensor) -> dict:
    """Hundred thresholds, in one pass and one label map at a time."""
    sweep = ThresholdSweep(CLASSES)

    def loop() -> None:
        for t in range(100):
            ConfusionMatrix(CLASSES).update(cam_to_label(cam, tags, t / 100), truth)

    return {
        "one pass, 3 tags": lambda: sweep.update(cam, tags, truth),
        "one pass, all 20 classes": lambda: sweep.update(cam, None, truth),
        "loop over 100 label maps, 3 tags": loop,
    }


def confusion_jobs(pred: torch.Tensor, truth: torch.Tensor) -> dict:
    """Ours, torchmetrics, and the NumPy histogram that most repositories carry."""
    from torchmetrics.classification import MulticlassConfusionMatrix

    ours = ConfusionMatrix(CLASSES)
    theirs = MulticlassConfusionMatrix(CLASSES, ignore_index=255)
    unchecked = MulticlassConfusionMatrix(CLASSES, ignore_index=255, validate_args=False)
    wide = truth.long()
    p, t = pred.numpy().ravel(), wide.numpy().ravel()

    def fast_hist() -> None:
        kept = (t >= 0) & (t < CLASSES)
        np.bincount(CLASSES * t[kept] + p[kept], minlength=CLASSES**2)

    return {
        "ours": lambda: ours.update(pred, truth),
        "ours, 64-bit truth": lambda: ours.update(pred, wide),
        "torchmetrics": lambda: theirs.update(pred, wide),
        "torchmetrics, validate_args=False": lambda: unchecked.update(pred, wide),
        "NumPy fast_hist": fast_hist,
    }


def main() -> None:
    """Print the times as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, help="write the result here too")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=20)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    cam, tags, truth, pred = scene()
    boundary = BoundaryScore(CLASSES)
    result = {
        "size": SIZE,
        "classes": CLASSES,
        "threads": options.threads,
        "torch": torch.__version__,
        "threshold_sweep": take_turns(sweep_jobs(cam, tags, truth), options.repeats),
        "confusion": take_turns(confusion_jobs(pred, truth), options.repeats),
        "boundary": take_turns({"one image": lambda: boundary.update(pred[0], truth[0])}, 10),
    }
    report(result, options.json)


if __name__ == "__main__":
    main()
