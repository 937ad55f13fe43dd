"""Calibrate ASDT's teacher A on photographs, before anything is trained with it.

    python -m wsss_lab.studies.photos.teacher_a --root data --out wsss_lab/records/teacher_a.json

Teacher A cuts its maps at two background scores (1 - max)^a. A score of this form is a threshold:
the map value m with m = (1 - m)^a. The released exponents 4 and 32 stand for 0.28 and 0.08, chosen
for other maps. The rule here, the same as that of the toy world's bands (`toy.bands`), sees no arm
of any study: the best single threshold of the plain maps, 0.1 to either side. It reads masks of the
list `train`, as the threshold of the preset `voc-mini` of the baseline did, and nothing else.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import tyro
from torch import Tensor

from wsss_lab import IGNORE
from wsss_lab.config import provenance, write_json
from wsss_lab.methods.asdt.labels import present_cams, strongest_classes, teacher_a_label
from wsss_lab.methods.asdt.method import ASDT
from wsss_lab.metrics import ThresholdSweep
from wsss_lab.progress import Countdown
from wsss_lab.ranges import Count, Settings
from wsss_lab.runs.images import load_data
from wsss_lab.runs.recipe import find_preset, find_recipe

WIDTH = 0.1
"""Distance of both thresholds from the best single one."""


def exponent_of(threshold: float) -> float:
    """Return a with (1 - m)^a = m at the threshold m, in (0, 1)."""
    return math.log(threshold) / math.log(1 - threshold)


def threshold_of(exponent: float) -> float:
    """Return m with (1 - m)^a = m for an exponent a above 0, by bisection."""
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if (1 - middle) ** exponent > middle else (low, middle)
    return (low + high) / 2


def rule(best: float, width: float = WIDTH) -> tuple[float, float]:
    """Return the pair of exponents for a best single threshold, rising, to two digits."""
    high, low = best + width, best - width
    return round(exponent_of(high), 2), round(exponent_of(low), 2)


@torch.no_grad()
def maps_of(method: ASDT, image: Tensor, tags: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Maps of the tagged classes (1, m, h, w) of a photo (1, 3, h, w), classes, which are real."""
    cam = method.network.fused_cam(image, method.network(image).cam)
    index, present = strongest_classes(cam, tags)
    size = (image.shape[2], image.shape[3])
    return present_cams(cam, index, present, size), index, present


@torch.no_grad()
def scores(
    method: ASDT,
    photos: Any,
    pairs: Sequence[tuple[float, float]],
    every: int,
    log: Callable[[str], None] | None = None,
) -> Mapping[str, Mapping[str, float]]:
    """Score teacher A's label for several pairs of exponents.

    Args:
        method: with the tag head of a classifier; in eval mode.
        photos: samples with masks.
        pairs: exponents.
        every: take the photos 0, `every`, 2 `every`, ...
        log: gets lines with the time left.

    Returns:
        Pair -> shares in 0..1, over all pixels whose truth is known: `labelled`; `right` of these;
        of those labelled as a class and as background, `right_class` and `right_background`; and of
        the true pixels of classes, `found` with their class.
    """
    counts = {pair: torch.zeros(7) for pair in pairs}
    progress = Countdown("labels", len(range(0, len(photos), every)), log)
    for i in range(0, len(photos), every):
        sample = photos[i]
        image, tags = sample["image"][None].float() / 255, sample["tags"][None]
        truth = sample["mask"][None].long()
        cams, index, present = maps_of(method, image, tags)
        for pair in pairs:
            config = dataclasses.replace(method.config, exponents=pair)
            label = teacher_a_label(method.pictures(image), cams, index, present, config).label
            known = truth != IGNORE
            labelled = known & (label != IGNORE)
            right = labelled & (label == truth)
            front, back = labelled & (label > 0), labelled & (label == 0)
            real = known & (truth > 0)
            parts = (known, labelled, front, right & front, back, right & back, real)
            counts[pair] += torch.stack([part.sum() for part in parts]).float()
        progress.add(1)
    found = {}
    for pair, (known, labelled, front, hit, back, rest, real) in counts.items():
        found[f"{pair[0]:g}, {pair[1]:g}"] = {
            "labelled": float(labelled / known),
            "right": float((hit + rest) / labelled),
            "right_class": float(hit / front),
            "right_background": float(rest / back),
            "found": float(hit / real),
        }
    return found


@torch.no_grad()
def best_threshold(method: ASDT, photos: Any, every: int) -> tuple[float, float]:
    """Return the best single threshold of the plain maps with true tags, and the mean IoU there."""
    sweep = ThresholdSweep(photos.num_classes + 1)
    for i in range(0, len(photos), every):
        sample = photos[i]
        tags = sample["tags"][None]
        cams, index, _ = maps_of(method, sample["image"][None].float() / 255, tags)
        full = torch.zeros(1, photos.num_classes, *cams.shape[2:])
        full.scatter_(1, index[:, :, None, None].expand_as(cams), cams)
        sweep.update(full, tags, sample["mask"][None].long())
    result = sweep.compute()
    return float(result.best_threshold), float(result.best_miou)


@dataclass(frozen=True)
class TeacherA(Settings):
    """Calibrate the exponents of teacher A."""

    root: Path
    """Folder that has `voc-mini`."""
    every: Count = 3
    """Take every so manieth photo of `train`."""
    out: Path = Path("teacher_a.json")
    """The record."""
    note: str = ""
    """One sentence for the record."""


def main(options: TeacherA, say: Callable[[str], None] = print) -> None:
    """Find the threshold, apply the rule, score both pairs of exponents, write the record."""
    config = find_preset("asdt", "voc-mini")
    data = dataclasses.replace(config.data, root=options.root, val_split="train")
    photos = load_data(data, "val", masks=True)
    method: Any = find_recipe("asdt").build(config, photos.num_classes, True)
    method.eval()
    best, miou = best_threshold(method, photos, options.every)
    say(f"best single threshold {best:.2f}, mIoU {miou:.3f}")
    pairs = [(4.0, 32.0), rule(best)]
    content = {
        "photos": len(range(0, len(photos), options.every)),
        "best_threshold": best,
        "miou_there": miou,
        "width": WIDTH,
        "thresholds": {f"{a:g}": threshold_of(a) for pair in pairs for a in pair},
        "labels": scores(method, photos, pairs, options.every, say),
        "note": options.note,
    }
    settings = {"preset": "asdt voc-mini", "every": options.every, "weights": config.weights}
    write_json(options.out, content | provenance(settings, seed=0, device="cpu"))
    say(str(content["labels"]))


if __name__ == "__main__":
    main(tyro.cli(TeacherA, description=__doc__))
