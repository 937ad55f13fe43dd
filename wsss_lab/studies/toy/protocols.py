"""Effect of the test protocol: one classifier, one set of maps, scored in many ways.

    python -m wsss_lab.studies.toy.protocols --out wsss_lab/records/protocols.json

The packaged tag classifier of the toy world predicts validation scenes once, at one scale and at
several. Every row changes one switch of the base protocol, and nothing is trained: what moves is
the number, not the network. The base is what `predict` does: own tags, one view, threshold 0.4, no
CRF, one confusion matrix for the whole set at the size of the truth.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
import tyro
from jaxtyping import Float, Int
from torch import Tensor

from wsss_lab.cam import FUSIONS, cam_to_label
from wsss_lab.config import provenance, write_json
from wsss_lab.data.catalog import TOY_CLASSES
from wsss_lab.data.toy import TOY_VERSION, ToyTensors, ToyWorld
from wsss_lab.evaluate.inference import MultiScale, multi_scale_predict
from wsss_lab.evaluate.predict import WEIGHTS, toy_classifier
from wsss_lab.methods.common.base import SegOutput
from wsss_lab.metrics import ConfusionMatrix, Protocol, ThresholdSweep, mean_iou
from wsss_lab.metrics.report import Unlabelled
from wsss_lab.ranges import Count, Settings
from wsss_lab.studies.toy.label_scores import confusion_per_scene
from wsss_lab.train.fit import image_batches

THRESHOLD = 0.4
"""Background score of `predict`."""
BAND = (0.25, 0.55)
"""Background score up to which labels are background, and up to which they are left open."""
FEW = 5
"""Scenes of a quick look, as with `eval METHOD --first 5`."""
PARTS = 4
"""Parts of the list that are scored apart."""


@dataclass
class Protocols(Settings):
    """Settings of the study."""

    out: Path = Path("protocols.json")
    """Record to write."""
    scenes: Count = 400
    """Validation scenes, and as many training scenes for the row on pseudo-labels."""


def miou(
    pred: Int[Tensor, "b h w"],
    truth: Int[Tensor, "b h w"],
    unlabelled: Unlabelled = "error",
) -> float:
    """Compute the mIoU of a set from its one confusion matrix, 0..1."""
    counts = ConfusionMatrix(len(TOY_CLASSES) + 1, unlabelled=unlabelled).update(pred, truth)
    return float(mean_iou(counts.compute())[1])


def look(images: Float[Tensor, "b 3 h w"], views: MultiScale) -> SegOutput:
    """Predict maps and tag logits of many images, 50 at a time."""
    classifier = toy_classifier()
    parts = [
        multi_scale_predict(classifier.predict, batch, views) for batch in image_batches(images, 50)
    ]
    maps, logits = ([getattr(part, name) for part in parts] for name in ("cam", "tag_logits"))
    return SegOutput(cam=torch.cat(maps), tag_logits=torch.cat(logits))


def own_tags(output: SegOutput) -> Float[Tensor, "b k"]:
    """Return the tags that the classifier predicts, 0 or 1."""
    assert output.tag_logits is not None
    return (output.tag_logits > 0).float()


def maps_of(output: SegOutput) -> Float[Tensor, "b k h w"]:
    """Return the maps of an output that has them."""
    assert output.cam is not None
    return output.cam


def rows(world: ToyTensors) -> Iterator[tuple[str, float]]:
    """Yield every protocol and its mIoU, the base first."""
    truth, tags, k1 = world["mask"].long(), world["tags"], len(TOY_CLASSES) + 1
    single = look(world["image"], MultiScale())
    several = look(world["image"], MultiScale(cam=FUSIONS["multi_scale"]))
    cam, seen = maps_of(single), own_tags(single)
    base = cam_to_label(cam, seen, THRESHOLD)
    counts = confusion_per_scene(base, truth)
    yield "base", miou(base, truth)
    yield "true tags", miou(cam_to_label(cam, tags, THRESHOLD), truth)
    for name, given in (("own tags", seen), ("true tags", tags)):
        best = ThresholdSweep(k1).update(cam, given, truth).compute()
        yield f"{name}, best threshold", best.best_miou
    for threshold in (0.2, 0.3, 0.5, 0.6):
        yield f"threshold {threshold}", miou(cam_to_label(cam, seen, threshold), truth)
    views = cam_to_label(maps_of(several), own_tags(several), THRESHOLD)
    yield "scales and flip", miou(views, truth)
    yield "mean over images", float(mean_iou(counts)[1].mean())
    yield "foreground classes only", float(mean_iou(counts.sum(0))[0][1:].mean())
    yield "quarter of the size", miou(_quarter(base), _quarter(truth))
    band = cam_to_label(cam, seen, THRESHOLD, band=BAND)
    ways: tuple[Unlabelled, ...] = ("wrong", "ignored")
    for way in ways:
        yield f"open pixels {way}", miou(band, truth, way)
    few = counts[:FEW].sum(0)
    for absent in ("skip", "nanmean", "zero"):
        yield f"first {FEW}, {absent}", float(mean_iou(few, absent)[1])
    for part, some in enumerate(counts.chunk(PARTS)):
        yield f"part {part + 1} of {PARTS}", float(mean_iou(some.sum(0))[1])


def _quarter(label: Int[Tensor, "b h w"]) -> Int[Tensor, "b gh gw"]:
    return F.interpolate(label[:, None].float(), scale_factor=0.25, mode="nearest")[:, 0].long()


def pseudo_labels(world: ToyTensors) -> float:
    """Compute the mIoU of training labels: true tags, several scales and flip, the best threshold.

    The number that tables call "CAM" or "seed".
    """
    several = look(world["image"], MultiScale(cam=FUSIONS["multi_scale"]))
    sweep = ThresholdSweep(len(TOY_CLASSES) + 1)
    sweep.update(maps_of(several), world["tags"], world["mask"].long())
    return sweep.compute().best_miou


def run(settings: Protocols) -> dict[str, Any]:
    """Score every protocol; write the record."""
    torch.set_num_threads(1)
    record = provenance(settings, seed=0, device="cpu", data=TOY_VERSION, weights=WEIGHTS)
    record["config"]["out"] = settings.out.name
    record["protocol"] = Protocol(
        split=f"{TOY_VERSION} val, scenes 0 to {settings.scenes - 1}",
        images=settings.scenes,
        label_source="procedural truth",
        scales=(1.0,),
        flip=False,
        crf="none",
        tags_at_test=False,
        thresholds=f"fixed at {THRESHOLD}",
        resolution="original (128 px)",
    ).lines()
    record["miou"] = dict(rows(ToyWorld("val", settings.scenes).tensors()))
    train = ToyWorld("train", settings.scenes).tensors()
    record["miou"]["pseudo-labels of training scenes"] = pseudo_labels(train)
    write_json(settings.out, record)
    return record


if __name__ == "__main__":
    for name, value in run(tyro.cli(Protocols))["miou"].items():
        print(f"{name:35} {100 * value:.1f}")
