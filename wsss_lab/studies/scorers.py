"""Scorers of studies: the same scores for every method, on one list, with counts per image.

Recipes score their networks each in its own way: with or without a segmentation, at a threshold of
their own. A study that puts methods side by side names a scorer, which runs after the recipe:

`photos`: one look at every image of the validation list (one scale, no mirror image, no CRF, no
true tags). Maps are cut at the background score `MAP_THRESHOLD`, in the classes that the network
predicts. Left in the run's folder:

==============  ==================================================================================
`scored.json`   ``main.miou``: segmentation, or of a network without one the maps; ``seg.miou``,
                ``cam.miou``, ``cam.best_miou_on_truth``, ``boundary.f`` (outlines of ``main``),
                ``tags.map``; None where a network has no such output; ``protocol``
`counts.npz`    ``main`` and, beside a segmentation, ``cam``: (image, 3, class), pixels that are
                right, predicted and true
==============  ==================================================================================
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from wsss_lab.config import write_atomically, write_json

SCORED = "scored.json"
"""File of a scorer's scores in a run's folder."""
COUNTS = "counts.npz"
"""File of its counts per image."""
MAP_THRESHOLD = 0.4
"""Background score of maps: the packaged classifier's, calibrated on training photos alone."""

Scorer = Callable[[Path, Any], dict[str, Any]]
"""(run's folder, settings of the run) -> scores; may leave files in the folder."""


def photos(folder: Path, config: Any) -> dict[str, Any]:
    """Score a run on its validation list, see the module."""
    import torch

    from wsss_lab.evaluate.evaluate import by_shape
    from wsss_lab.evaluate.inference import VIEWS, multi_scale_predict
    from wsss_lab.metrics import BoundaryScore, ThresholdSweep, strongest_class, tag_map
    from wsss_lab.runs.images import load_data
    from wsss_lab.runs.scoring import protocol_of
    from wsss_lab.runs.weights import load_trained

    method = load_trained(weights_of(folder)).method
    images = load_data(config.data, "val", masks=True)
    k1 = images.num_classes + 1
    boundary = BoundaryScore(k1)
    sweep = ThresholdSweep(k1)
    rows: dict[int, dict[str, np.ndarray]] = {}
    logits: list[Any] = []
    truths: list[Any] = []
    numbered = ({**images[i], "number": i} for i in range(len(images)))
    for group in by_shape(numbered, config.test.batch):  # type: ignore[arg-type]
        pixels, tags, truth = (
            torch.stack([sample[key] for sample in group])  # type: ignore[literal-required]
            for key in ("image", "tags", "mask")
        )
        found = multi_scale_predict(method.predict, pixels.float() / 255, VIEWS["single"])
        labels = {}
        if found.logits is not None:
            labels["main"] = found.logits.argmax(1)
        if found.cam is not None:
            allowed = None if found.tag_logits is None else (found.tag_logits > 0).float()
            best, winner = strongest_class(found.cam, allowed)
            labels["cam" if labels else "main"] = (winner + 1) * (best > MAP_THRESHOLD)
            sweep.update(found.cam, allowed, truth)
        if found.tag_logits is not None:
            logits.append(found.tag_logits)
            truths.append(tags)
        for i, sample in enumerate(group):
            number = sample["number"]  # type: ignore[typeddict-item]
            rows[number] = {key: margins(label[i], truth[i], k1) for key, label in labels.items()}
            boundary.update(labels["main"][i], truth[i])
    order = sorted(rows)
    counts = {key: np.stack([rows[i][key] for i in order]) for key in rows[order[0]]}
    write_atomically(folder / COUNTS, lambda file: np.savez_compressed(file, **counts))  # type: ignore[arg-type]
    scores = {key: miou_of_counts(value) for key, value in counts.items()}
    segments = "cam" in scores
    has_maps = segments or found.logits is None
    protocol = dataclasses.replace(
        protocol_of(config.data), images=len(order), scales=(1.0,), resolution="original"
    )
    return {
        "protocol": dataclasses.asdict(protocol) | {"map_threshold": MAP_THRESHOLD},
        "main": {"miou": scores["main"], "is": "maps" if found.logits is None else "segmentation"},
        "seg": {"miou": None if found.logits is None else scores["main"]},
        "cam": {
            "miou": scores["cam"] if segments else scores["main"] if has_maps else None,
            "best_miou_on_truth": float(sweep.compute().best_miou) if has_maps else None,
        },
        "boundary": {"f": boundary.compute()[1]},
        "tags": {"map": float(tag_map(torch.cat(logits), torch.cat(truths))) if logits else None},
    }


def margins(label: Any, truth: Any, k1: int) -> np.ndarray:
    """Count pixels per class that are right, predicted and true, (3, k1); 255 is left out.

    Args:
        label: predicted classes (h, w).
        truth: classes (h, w), 255 where they are not counted.
        k1: classes with background.
    """
    import torch

    from wsss_lab import IGNORE

    seen = truth != IGNORE
    one, other = label[seen], truth[seen].long()
    rows = [one[one == other], one, other]
    return torch.stack([torch.bincount(row, minlength=k1) for row in rows]).numpy().astype(np.int32)


def miou_of_counts(counts: np.ndarray) -> float:
    """Compute the mean IoU, 0..1, of counts (image, 3, class), over the classes in the truth."""
    from wsss_lab.studies.rules import miou_of

    return float(miou_of(counts.astype(np.int64).sum(0)))


def weights_of(folder: Path) -> Path:
    """Find the last network of a run's folder: its own, or that of its only stage.

    Raises:
        ValueError: there is none, or several stages have one.
    """
    if (folder / "model.safetensors").is_file():
        return folder / "model.safetensors"
    found = sorted(folder.glob("*/model.safetensors"))
    if len(found) != 1:
        names = [f"{path.parent.name}/{path.name}" for path in found]
        raise ValueError(f"scorer: expected the weights of one stage in the run, got {names}")
    return found[0]


SCORERS: dict[str, Scorer] = {"photos": photos}
"""Name in a declaration -> scorer."""


def find_scorer(name: str) -> Scorer:
    """Return a scorer by its name.

    Raises:
        ValueError: there is no such scorer.
    """
    if name not in SCORERS:
        raise ValueError(f"scorer: expected one of {', '.join(SCORERS)}, got {name!r}")
    return SCORERS[name]


def score_run(name: str, folder: Path, config: Any) -> None:
    """Write the scores of a trained run; they are there once `scored.json` is.

    Args:
        name: key of `SCORERS`.
        folder: of the run, with weights.
        config: settings of the run.

    Raises:
        ValueError: no such scorer, or weights are missing.
    """
    if not (folder / SCORED).is_file():
        write_json(folder / SCORED, find_scorer(name)(folder, config))
