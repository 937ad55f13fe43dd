"""Gains and costs of refinements on the toy world.

    python -m wsss_lab.studies.toy.refine_costs --out wsss_lab/records/refine.json

Every method is given the same array, `[threshold; class maps]` with absent classes at 0, and its
label is the largest channel of its result; unrefined, that is the plain label. The threshold is the
best one of the *plain* maps on other scenes. Next to it is the score with a threshold of the
method's own, chosen on other scenes by one rule for all (`own_threshold`). Two sets of widths are
tried for each, both fixed beforehand: those of the released codes, which are meant for photographs
of 500 px, and the same shrunk to the toy world (`SHRINK`). Nothing else was tuned.

Times are processor seconds (not wall-clock, so other programs matter less), the least of a few
runs, with one thread.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import torch
import torch.nn.functional as F
import tyro
from jaxtyping import Float, Int
from torch import Tensor

from wsss_lab.cam import normalize_cam
from wsss_lab.config import provenance, write_json
from wsss_lab.data.catalog import TOY_CLASSES
from wsss_lab.data.toy import TOY_VERSION, ToyTensors, ToyWorld
from wsss_lab.evaluate.predict import WEIGHTS, toy_classifier
from wsss_lab.methods.cosa import values as cosa
from wsss_lab.methods.tscd import values as tscd
from wsss_lab.metrics import (
    Protocol,
    ThresholdSweep,
    all_background,
    mean_iou,
    random_cam,
    tag_oracle,
)
from wsss_lab.ranges import Count, Range, Settings
from wsss_lab.refine import (
    DILATIONS,
    PAMR,
    PAR,
    VARM,
    DenseCRF,
    local_affinity,
    propagate,
    refine_present,
)
from wsss_lab.refine.local import VARM_KERNEL
from wsss_lab.studies.toy.label_scores import confusion_per_scene, gains, score
from wsss_lab.train.fit import image_batches

Refine = Callable[[Tensor, Tensor], Tensor]
"""(images in 0..1, channels) -> channels."""

SHRINK = 128 / 500
"""Side of a toy scene over the longer side of a VOC photograph."""
SMALL = tuple(sorted({max(1, round(d * SHRINK)) for d in DILATIONS}))
"""Distances of the neighbours, shrunk."""
CRFS: dict[str, DenseCRF] = {
    "tscd-cam": tscd.CRFS["cam"],
    "tscd-eval": tscd.CRFS["eval"],
    "cosa-eval": cosa.CRFS["eval"],
}
VARIATIONS = (0.01, 0.1, 0.3)
SHARPNESS = (1, 10)
OWN = (0.2, 0.3, 0.4, 0.5)
"""Candidate thresholds of a method's own."""


@dataclass
class Refinements(Settings):
    """Settings of the study."""

    out: Path = Path("refine.json")
    """Record to write."""
    develop: Count = 400
    """Training scenes on which the threshold is chosen, from number 0 on."""
    choose: Count = 80
    """Number of these scenes on which a method's own threshold is chosen."""
    scenes: Count = 300
    """Training scenes to score, the next ones."""
    resamples: Count = 1000
    """Number of bootstrap samples over scenes."""
    sides: Annotated[tuple[int, ...], Range("[1, 65535]")] = (128, 512)
    """Image sides to time, px."""
    repeats: Count = 3
    """Runs of each timing."""


def crf_on(crf: DenseCRF, images: Tensor, channels: Tensor) -> Tensor:
    """Make a dense CRF on channels that need not sum to 1."""
    return crf(255 * images, channels / channels.sum(1, keepdim=True))


def shrunk(crf: DenseCRF) -> DenseCRF:
    """Scale a CRF's widths in px to the toy world; colours stay."""
    return replace(
        crf,
        spatial_sigma=crf.spatial_sigma * SHRINK,
        bilateral_sigma_xy=crf.bilateral_sigma_xy * SHRINK,
    )


def sharper_varm(variation: float, sharpness: float, images: Tensor, channels: Tensor) -> Tensor:
    """Make VARM with another weight of its variation term, on an image scaled by `sharpness`.

    The colour term does not depend on that scale; the variation in the softmax grows with its
    square.
    """
    kernel = replace(VARM_KERNEL, variation=variation)
    return propagate(channels, local_affinity(sharpness * images, kernel))


def less_mean(weight: float, images: Tensor, channels: Tensor) -> Tensor:
    """Make the control: VARM with the mean of all neighbours in place of its variation term."""
    weights = local_affinity(images, replace(VARM_KERNEL, variation=0.0))
    return propagate(channels, weights - weight / weights.shape[1])


def refinements() -> dict[str, Refine]:
    """Return every row of the comparison."""
    rows: dict[str, Refine] = {"none": lambda images, channels: channels}
    for kind in (PAMR, PAR, VARM):
        rows[kind.__name__] = kind()
        rows[f"{kind.__name__}, shrunk"] = kind(SMALL)
    for name, crf in CRFS.items():
        rows[f"CRF {name}"] = partial(crf_on, crf)
        rows[f"CRF {name}, shrunk"] = partial(crf_on, shrunk(crf))
    return rows


def varm_grid() -> dict[str, Refine]:
    """Return VARM with other strengths of the variation term, and the control without it."""
    rows: dict[str, Refine] = {"0": partial(sharper_varm, 0.0, 1)}
    for weight in VARIATIONS:
        for sharpness in SHARPNESS:
            rows[f"{weight:g} x {sharpness}"] = partial(sharper_varm, weight, sharpness)
        rows[f"{weight:g} x mean"] = partial(less_mean, weight)
    return rows


@torch.no_grad()
def class_maps(images: Tensor) -> Float[Tensor, "b k h w"]:
    """Compute CAMs of the packaged tag classifier, one pass, maximum 1 per class."""
    classifier = toy_classifier()
    raw = [classifier.raw_cam(part) for part in image_batches(images, 50)]
    return normalize_cam(F.interpolate(torch.cat(raw), images.shape[-2:], mode="bilinear"))


def stack(
    cams: Float[Tensor, "b k h w"], tags: Float[Tensor, "b k"], threshold: float
) -> Float[Tensor, "b k1 h w"]:
    """Build the input of every refinement: threshold channel and class maps."""
    cams = cams * tags[:, :, None, None]
    return torch.cat([torch.full_like(cams[:, :1], threshold), cams], 1)


def labels_of(
    refine: Refine, world: ToyTensors, channels: Float[Tensor, "b k1 h w"], batch: int = 25
) -> Int[Tensor, "b h w"]:
    """Return the largest channel after refinement, as label map."""
    tags = world["tags"]
    parts = []
    for at in range(0, len(tags), batch):
        part = slice(at, at + batch)
        images = world["image"][part].float() / 255
        parts.append(refine_present(refine, images, channels[part], tags[part]).max(dim=1).indices)
    return torch.cat(parts)


def own_threshold(refine: Refine, cams: Tensor, world: ToyTensors) -> float:
    """Choose the best of `OWN` for one method, on scenes that are not scored."""
    truth = world["mask"].long()
    found = []
    for threshold in OWN:
        pred = labels_of(refine, world, stack(cams, world["tags"], threshold))
        found.append(float(mean_iou(confusion_per_scene(pred, truth).sum(0))[1]))
    return OWN[found.index(max(found))]


def sanity(
    world: ToyTensors, develop: ToyTensors, rows: dict[str, Refine]
) -> Iterator[tuple[str, Tensor]]:
    """Yield label maps of two controls: made without the image, and random maps refined with it."""
    h, w = world["mask"].shape[1:]
    yield "all background", all_background(len(world["mask"]), (h, w))
    yield "true tags in the middle", tag_oracle(world["tags"], (h, w))
    source = torch.Generator().manual_seed(0)
    noise = [random_cam(p["tags"], (16, 16), (h, w), generator=source) for p in (develop, world)]
    sweep = ThresholdSweep(len(TOY_CLASSES) + 1)
    best = sweep.update(noise[0], develop["tags"], develop["mask"].long()).compute()
    channels = stack(noise[1], world["tags"], best.best_threshold)
    for name in ("none", "PAR", "CRF tscd-eval, shrunk"):
        yield f"random map, {name}", labels_of(rows[name], world, channels)


def seconds(action: Callable[[], Any], repeats: int) -> float:
    """Measure the least processor time of a few runs, after one to warm up."""
    action()
    best = float("inf")
    for _ in range(repeats):
        start = time.process_time()
        action()
        best = min(best, time.process_time() - start)
    return best


def costs(settings: Refinements, rows: dict[str, Refine]) -> dict[str, dict[str, float]]:
    """Measure processor seconds for one image with three channels, by method and image side."""
    image = ToyWorld("train", 1).tensors()["image"].float() / 255
    coarse = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    found: dict[str, dict[str, float]] = {}
    for side in settings.sides:
        size = (side, side)
        photo = F.interpolate(image, size, mode="bicubic").clamp(0, 1)
        channels = F.interpolate(coarse, size, mode="bilinear")
        for name, refine in rows.items():
            if name != "none" and "shrunk" not in name:
                spent = seconds(partial(refine, photo, channels), settings.repeats)
                found.setdefault(name, {})[str(side)] = spent
    return found


def part_of(world: ToyTensors, part: slice) -> ToyTensors:
    """Return a part of the scenes."""
    return {name: values[part] for name, values in world.items()}  # type: ignore


def scores_of(
    settings: Refinements, maps: Tensor, both: ToyTensors, threshold: float
) -> dict[str, dict[str, Any]]:
    """Score every row of the comparison, of the variation term and of the sanity checks."""
    develop = part_of(both, slice(0, settings.develop))
    choose = part_of(both, slice(0, settings.choose))
    world = part_of(both, slice(settings.develop, None))
    cams = maps[settings.develop :]
    channels = stack(cams, world["tags"], threshold)
    rows = refinements()
    plain = labels_of(rows["none"], world, channels)
    found: dict[str, dict[str, Any]] = {"sanity": {}, "methods": {}, "variation": {}}
    for group, methods in (("methods", rows), ("variation", varm_grid())):
        for name, refine in methods.items():
            pred = labels_of(refine, world, channels)
            gain = gains(pred, plain, world, settings.resamples)
            best = own_threshold(refine, maps[: settings.choose], choose)
            own = labels_of(refine, world, stack(cams, world["tags"], best))
            miou = float(mean_iou(confusion_per_scene(own, world["mask"].long()).sum(0))[1])
            found[group][name] = {
                **score(pred, world),
                "gain": gain,
                "own_threshold": best,
                "own_miou": miou,
            }
            print(f"{name}: {100 * found[group][name]['miou']:.1f}, {100 * miou:.1f}", flush=True)
    for name, pred in sanity(world, develop, rows):
        found["sanity"][name] = score(pred, world)
    return found


def run(settings: Refinements) -> dict[str, Any]:
    """Score and time every method; write the record."""
    torch.set_num_threads(1)
    record = provenance(
        settings, seed=0, device="cpu", data=TOY_VERSION, weights=WEIGHTS, threads=1
    )
    record["config"]["out"] = settings.out.name
    record["seconds"] = costs(settings, refinements())
    both = ToyWorld("train", settings.develop + settings.scenes).tensors()
    maps = class_maps(both["image"])
    sweep = ThresholdSweep(len(TOY_CLASSES) + 1)
    develop = part_of(both, slice(0, settings.develop))
    sweep.update(maps[: settings.develop], develop["tags"], develop["mask"].long())
    threshold = sweep.compute().best_threshold
    record["threshold"] = threshold
    record["scores"] = scores_of(settings, maps, both, threshold)
    protocol = Protocol(
        split=f"{TOY_VERSION} train, scenes {settings.develop} to {len(maps) - 1}",
        images=settings.scenes,
        label_source="procedural truth",
        scales=(1.0,),
        flip=False,
        crf="as the row says",
        tags_at_test=True,
        thresholds=f"{threshold:.2f}, best for plain maps on scenes 0 to {settings.develop - 1}",
        resolution="original (128 px)",
    )
    record["protocol"] = protocol.lines()
    write_json(settings.out, record)
    return record


if __name__ == "__main__":
    run(tyro.cli(Refinements))
