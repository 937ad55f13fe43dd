"""Qualities of networks in the calibration: tags, class maps, planted contexts, masks."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wsss_lab import IGNORE
from wsss_lab.cam import FUSIONS, multi_scale_cam, normalize_cam
from wsss_lab.data.catalog import TOY_CLASSES, TOY_CONTEXTS
from wsss_lab.data.toy import TOY_VERSION, Scene, ToyKnobs, ToyTensors, scene
from wsss_lab.methods.cam_baseline import SegNetwork, TagClassifier, predict_labels
from wsss_lab.metrics import (
    ConfusionMatrix,
    Protocol,
    Report,
    ThresholdSweep,
    dilate,
    mean_iou,
    near_far_recall,
    tag_map,
)
from wsss_lab.train.fit import image_batches

PAIR_SEED = 1
"""Seed of the world of the paired scenes, another than the training world's."""


def device_of(module: nn.Module) -> torch.device:
    """Return the device of the parameters."""
    return next(module.parameters()).device


@torch.no_grad()
def cams(classifier: TagClassifier, images: Tensor) -> Tensor:
    """Compute class activation maps at image size, ReLU, per-class maximum 1, (n, k, h, w)."""
    size = images.shape[-2:]
    maps = [
        F.interpolate(classifier.raw_cam(batch), size, mode="bilinear", align_corners=False).cpu()
        for batch in image_batches(images, 50, device_of(classifier))
    ]
    return normalize_cam(torch.cat(maps), "plain")


@torch.no_grad()
def tag_quality(classifier: TagClassifier, val: ToyTensors) -> float:
    """Compute the mean average precision of the tags on val."""
    batches = image_batches(val["image"], 100, device_of(classifier))
    logits = torch.cat([classifier(batch).cpu() for batch in batches])
    return tag_map(logits, val["tags"]).item()


def cam_quality(classifier: TagClassifier, train: ToyTensors) -> dict:
    """Score CAMs: threshold sweep, over- and under-activation, recall near and far from parts."""
    maps = cams(classifier, train["image"])
    truth = train["mask"].long()
    sweep = ThresholdSweep(len(TOY_CLASSES) + 1)
    for start in range(0, len(maps), 50):
        part = slice(start, start + 50)
        sweep.update(maps[part], train["tags"][part], truth[part])
    result = sweep.compute()
    protocol = Protocol(
        split=f"{TOY_VERSION} train",
        images=len(truth),
        label_source="procedural truth",
        tags_at_test=True,
    )
    report = Report.from_confusion(
        result.confusion[result.best], protocol, ("background", *TOY_CLASSES)
    )
    score, winner = (maps * train["tags"][:, :, None, None]).max(1)
    label = torch.where(score > result.best_threshold, winner + 1, 0)
    return {
        "cam_miou": multi_scale_miou(classifier, train),
        "cam_miou_single_scale": result.best_miou,
        "cam_threshold": result.best_threshold,
        "cam_iou": dict(zip(report.class_names, report.iou, strict=True)),
        "over_activation": dict(zip(report.class_names, report.over_activation, strict=True)),
        "under_activation": dict(zip(report.class_names, report.under_activation, strict=True)),
        "near_far": near_far(label, truth, train["distinctive"].bool()),
    }


@torch.no_grad()
def multi_scale_miou(classifier: TagClassifier, train: ToyTensors) -> float:
    """Score CAMs at the best threshold, with the released scales and flip of TSCD and CoSA."""
    sweep = ThresholdSweep(len(TOY_CLASSES) + 1)
    batches = image_batches(train["image"], 50, device_of(classifier))
    for number, batch in enumerate(batches):
        maps = multi_scale_cam(classifier.raw_cam, batch, FUSIONS["multi_scale"], normalize="plain")
        part = slice(50 * number, 50 * number + 50)
        sweep.update(maps.cpu(), train["tags"][part], train["mask"][part].long())
    return sweep.compute().best_miou


def near_far(label: Tensor, truth: Tensor, distinctive: Tensor) -> dict[str, dict[str, float]]:
    """Compute recall within 8 px of and beyond 20 px from the distinctive part, per class."""
    found = {}
    for c, name in enumerate(TOY_CLASSES, 1):
        own = truth == c
        # parts may lie in the void band: count a part for the class it touches
        part = distinctive & dilate(own, 2)
        recall = near_far_recall(label == c, own, part)
        found[name] = {"near": recall.near, "far": recall.far}
    return found


def context_effect(
    classifier: TagClassifier, name: str, knobs: ToyKnobs, pairs: int
) -> dict[str, float]:
    """Compare a class's activation on its planted context and at the same pixels without it.

    Both members of a pair show the same objects in the same places. Only pixels more than 8 px from
    every object count: closer ones are halo.

    Args:
        classifier: trained.
        name: of a class of `TOY_CONTEXTS`.
        knobs: settings of the toy world.
        pairs: number of pairs.
    """
    c, (planted, value) = TOY_CLASSES.index(name), TOY_CONTEXTS[name]
    shown, hidden = [], []
    for index in range(20 * pairs):
        pictured = scene(PAIR_SEED, index, knobs, context=(planted,))
        if pictured.tags[c]:
            shown.append(pictured)
            hidden.append(scene(PAIR_SEED, index, knobs, context=()))
        if len(shown) == pairs:
            break
    far = ~dilate(_stack(shown, "instance") > 0, 8)
    region = (_stack(shown, "context") == value) & far
    on, off = (
        cams(classifier, _stack(group, "image").permute(0, 3, 1, 2))[:, c][region].mean().item()
        for group in (shown, hidden)
    )
    return {"with": on, "without": off, "ratio": on / off, "pixels": int(region.sum())}


def _stack(scenes: list[Scene], what: str) -> Tensor:
    return torch.from_numpy(np.stack([getattr(s, what) for s in scenes]))


@torch.no_grad()
def mask_quality(network: SegNetwork, val: ToyTensors) -> float:
    """Compute the mean IoU of the fully supervised network on val."""
    confusion = ConfusionMatrix(len(TOY_CLASSES) + 1, ignore=IGNORE)
    truth = val["mask"].long()
    batches = image_batches(val["image"], 50, device_of(network))
    for number, batch in enumerate(batches):
        part = slice(50 * number, 50 * number + 50)
        confusion.update(predict_labels(network, batch).cpu(), truth[part])
    return float(mean_iou(confusion.compute(), "skip")[1])
