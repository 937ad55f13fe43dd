"""Tables of photographs on the page `side_by_side`: runs of presets, and arms of a study."""

from collections.abc import Mapping
from functools import cache
from statistics import fmean
from typing import Any

import numpy as np
from side_rows import CONFIDENCE, NONE, at, find, lost, plus_minus, pooled, runs_of
from side_toy import NOT_RUN, table, times

from wsss_lab.records import RECORDS, load_record
from wsss_lab.runs.recipe import RECIPES, find_preset
from wsss_lab.studies.photos.gallery import FOLDER, load_card
from wsss_lab.studies.photos.preset_runs import PRESET, backbone_of, load_records
from wsss_lab.studies.rules import RESAMPLES, miou_of, read_counts

NAMES = {
    "cam_baseline": "CAM baseline",
    "tscd": "TSCD",
    "asdt": "ASDT",
    "acr": "ACR",
    "cosa": "CoSA",
}
"""Method -> name in headings, in the order of the page."""
BEFORE = {
    "voc-mini": "tags of the same photographs",
    "pip:efficientnet-lite0": "ImageNet",
}
"""Weights that a run starts from -> what they had learned; others by their own name."""
STUDY = "studies/photos/cpu"


def methods() -> list[str]:
    """Methods with a preset for photographs, in the order of the page.

    Raises:
        ValueError: one has no name on the page.
    """
    found = [name for name, recipe in RECIPES.items() if PRESET in recipe.presets]
    if missing := set(found) - set(NAMES):
        raise ValueError(f"methods {sorted(missing)}: give them a name in NAMES of side_photos.py")
    return [name for name in NAMES if name in found]


def learned(backbone: str, weights: str) -> str:
    """What a network had learned before a run."""
    if backbone == "lite0_vit":
        return "ImageNet; its blocks, nothing"
    return BEFORE.get(weights, weights)


def length(config: Any) -> str:
    """Steps and images a step of every training stage, by a preset's settings."""
    parts = [(config.run.steps, config.run.batch)]
    affinity = getattr(config, "affinity", None)
    if affinity and config.propagation == "affinity":
        parts.append((affinity.steps, affinity.batch))
    if getattr(config, "mask_steps", 0):
        batch = getattr(config, "mask_batch", 0) or config.run.batch
        parts.append((config.mask_steps, batch))
    return " + ".join(times(steps, batch) for steps, batch in parts)


def galleries() -> list[str]:
    """Names of the galleries: those of methods first, in the order of the page."""
    found = sorted(path.stem for path in (RECORDS / FOLDER).glob("*.npz"))
    order = ["tags", *NAMES]
    return sorted(found, key=lambda name: (order.index(name) if name in order else 99, name))


def presets() -> str:
    """Table of the presets' runs on photographs, one row for a run or for what was not run."""
    head = ["method", "network, learned before", "steps", "tags", "maps, true tags", "maps"]
    head += ["segmentation, true tags", "segmentation"]
    rows = []
    for method in methods():
        preset = find_preset(method, PRESET)
        records = [record for record in load_records() if record["method"] == method]
        for record in records:
            scores = record["scores"]
            card = _card(method, record)
            rows.append([
                NAMES[method] + (f", seed {record['seed']}" if record["seed"] else ""),
                f"`{record['backbone']}`, {learned(record['backbone'], record['weights'])}",
                length(preset),
                number(scores["tags"]),
                number(scores["maps"]),
                _percent(card.get("cam")),
                _percent(card.get("seg+true tags")),
                number(scores["masks"]),
            ])  # fmt: skip
        if not records:
            backbone = backbone_of(preset)
            start = f"`{backbone}`, {learned(backbone, preset.weights)}"
            rows.append([NAMES[method], start, length(preset), NOT_RUN, *[NONE] * (len(head) - 4)])
    rows.append(["*all background*", *[NONE] * (len(head) - 2), f"{100 * background():.1f}"])
    return table(head, rows)


def _card(method: str, record: Mapping[str, Any]) -> Mapping[str, float]:
    """Further scores of a preset's run, from the gallery of the same run; none without one."""
    if method not in galleries():
        return {}
    card = load_card(method)
    scores = card.get("val_miou") or {}
    masks = record["scores"]["masks"]
    same = card["seed"] == record["seed"] and _percent(scores.get("seg")) == number(masks)
    return scores if same else {}


def background() -> float:
    """Mean IoU of an all-background answer on the photographs of `val`, by their true pixels."""
    true = _counts("start_lite0", 0)[:, 2].sum(0)
    return float(true[0] / true.sum() / len(true))


def _counts(arm: str, seed: int) -> np.ndarray:
    return read_counts(RECORDS / STUDY / f"{arm}-seed{seed}.counts.npz", "main")


@cache
def over_photos(arm: str, seeds: tuple[int, ...]) -> tuple[float, float]:
    """Mean IoU of an arm's main output, and half of its interval over photographs, in percent.

    A bootstrap draws photographs, the same for all seeds; the seeds' scores are averaged.
    """
    counts = [_counts(arm, seed) for seed in seeds]
    images = len(counts[0])
    random = np.random.default_rng(0)
    draws = random.multinomial(images, np.full(images, 1 / images), size=RESAMPLES)
    scores = np.mean(
        [miou_of((draws @ c.reshape(images, -1)).reshape(-1, *c.shape[1:])) for c in counts], 0
    )
    tail = 50 * (1 - CONFIDENCE)
    low, high = np.percentile(scores, [tail, 100 - tail])
    mean = fmean(float(miou_of(c.sum(0))) for c in counts)
    return 100 * mean, 50 * float(high - low)


def arms() -> str:
    """Table of the arms of the study on photographs that have a run."""
    head = ["arm", "steps", "seeds", "tags", "maps at 0.4", "result", "outline F"]
    head += ["excess", "left out", "classes lost"]
    arms, runs = load_record(STUDY)["arms"], runs_of("photos")
    rows = []
    for arm in load_record(STUDY)["order"]["arms"]:
        found = runs.get(arm, {})
        if not found:
            rows.append([arms[arm]["what"], NOT_RUN, *[NONE] * (len(head) - 2)])
            continue
        config, seeds = next(iter(found.values()))["config"], tuple(sorted(found))
        kind = "seg" if find(found[seeds[0]]["results"], "val.seg") else "cam"
        mean, half = over_photos(arm, seeds)
        errors = (pooled(kind, "over_activation"), pooled(kind, "under_activation"))
        rows.append([
            arms[arm]["what"],
            times(config["run"]["steps"], config["run"]["batch"]),
            ", ".join(map(str, seeds)),
            _mean(found, at("scored.tags.map")),
            _mean(found, at("scored.cam.miou")),
            plus_minus(f"{mean:.1f}", half),
            _mean(found, at("scored.boundary.f")),
            *(_mean(found, read) for read in errors),
            _mean(found, lost(kind), 1),
        ])  # fmt: skip
    return table(head, rows)


def _mean(runs: Mapping[int, Any], read: Any, scale: float = 100) -> str:
    found = [read(run["results"]) for run in runs.values()]
    kept = [scale * value for value in found if value is not None]
    return f"{fmean(kept):.1f}" if kept else NONE


def number(value: float | None) -> str:
    """A number in a cell."""
    return NONE if value is None else f"{value:.1f}"


def _percent(value: float | None) -> str:
    return NONE if value is None else f"{100 * value:.1f}"
