"""Scores of class maps on photos, before and after PAR, from one pass over the photos."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from wsss_lab.evaluate.evaluate import by_shape
from wsss_lab.evaluate.inference import MultiScale, multi_scale_predict
from wsss_lab.evaluate.map_refinement import MapRefinement
from wsss_lab.methods.common.base import Method
from wsss_lab.metrics import ThresholdSweep
from wsss_lab.progress import Countdown


@torch.no_grad()
def refined_scores(
    method: Method,
    photos: Any,
    views: MultiScale,
    steps: Sequence[int],
    *,
    every: int = 1,
    log: Callable[[str], None] | None = None,
) -> Mapping[str, Any]:
    """Sweep over thresholds of maps with true tags, for several numbers of PAR's steps.

    Args:
        method: gives class maps; in eval mode.
        photos: samples with masks.
        views: scales and flips.
        steps: rising numbers of steps; 0 leaves the maps as they are.
        every: take the photos 0, `every`, 2 `every`, ...
        log: gets lines with the time left.

    Returns:
        The number of photos, and for each number of steps the best threshold, the mean IoU there,
        and the mean IoU at every fifth threshold.

    Raises:
        ValueError: the numbers do not rise.
    """
    if list(steps) != sorted(set(steps)) or min(steps) < 0:
        raise ValueError(f"refine: expected rising numbers of steps, got {tuple(steps)}")
    sweeps = {n: ThresholdSweep(photos.num_classes + 1) for n in steps}
    indices = range(0, len(photos), every)
    progress = Countdown("scores", len(indices), log)
    for group in by_shape((photos[i] for i in indices), 4):
        images = torch.stack([s["image"] for s in group])
        tags = torch.stack([s["tags"] for s in group])
        truth = torch.stack([s["mask"] for s in group]).long()
        maps, done = multi_scale_predict(method.predict, images.float() / 255, views).cam, 0
        if maps is None:
            raise ValueError(f"{type(method).__name__} gives no class maps to refine")
        for n, sweep in sweeps.items():
            if n > done:  # the steps so far are the beginning of these
                maps, done = MapRefinement(n - done)(images, maps, tags), n
            sweep.update(maps, tags, truth)
        progress.add(len(group))
    found = {str(n): sweep.compute() for n, sweep in sweeps.items()}
    return {"photos": len(indices)} | {
        n: {
            "threshold": round(result.best_threshold, 2),
            "miou": result.best_miou,
            "sweep": [round(float(v), 4) for v in result.miou[::5]],
        }
        for n, result in found.items()
    }
