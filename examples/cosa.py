"""CoSA on one page: two networks that supervise each other, in a minute on one CPU thread.

python examples/cosa.py [--steps 45] [--out DIR]

Both know the tags of toy scenes (packaged weights), their segmentation heads nothing. The maps of
the slow one label the segmentation of the fast one, its segmentation gives targets for the maps.
"""

import argparse
import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from wsss_lab import viz
from wsss_lab.cam import cam_to_label, normalize_cam, present_classes
from wsss_lab.data.augment import augment
from wsss_lab.data.toy import ToyWorld
from wsss_lab.ema import MomentumTeacher
from wsss_lab.losses import tag_loss
from wsss_lab.methods.common.base import split_decay
from wsss_lab.methods.cosa import PRESETS, CoSANetwork, cosa_backbone
from wsss_lab.methods.cosa.labels import label_from_cam, sampled_target, teacher_cam
from wsss_lab.methods.cosa.losses import perplexity_weights, swapped_cam_loss, swapped_seg_loss
from wsss_lab.methods.cosa.method import TEACHER
from wsss_lab.methods.cosa.network import forward_views
from wsss_lab.methods.cosa.threshold import threshold_searches
from wsss_lab.metrics import ConfusionMatrix, mean_iou
from wsss_lab.runs.start import read_start

BATCH, SCENES, HELD_OUT, SHOWN = 8, 256, 64, [1, 4, 8, 10]
MOMENTUM = 0.9  # a memory of ten steps, because the run is short; full size: 0.9994
CONFIG = replace(PRESETS["toy"], scales=(1.0, 0.5))


@torch.no_grad()
def assign(images: Tensor, tags: Tensor, grid: tuple[int, int]) -> tuple[Tensor, ...]:
    """Return the teacher's labels for the segmentation, their weights, and targets for the maps."""
    size, (classes, present) = (images.shape[2], images.shape[3]), present_classes(tags)
    views = forward_views(teacher, student.backbone.normalize(images), CONFIG.scales)
    labels, weights = [], []
    for name, search in zip(("cam", "aux_cam"), searches, strict=True):
        cam = teacher_cam([getattr(v, name) for v in views], classes, present, size, CONFIG.scales)
        # the threshold splits the latest map values in two; far from it a label is more certain
        values = F.interpolate(cam, CONFIG.queue_grid, mode="bilinear").amax(1)
        low, high = search(values.flatten(1))
        labels.append(label_from_cam(cam, classes, present, low, high, images[:, 0] >= 0))
        form = (CONFIG.alpha, CONFIG.beta, CONFIG.certainty)
        weights.append(perplexity_weights(cam.amax(1), labels[-1], low, high, *form))
    seg = [view.seg_logits for view in views]
    some = sampled_target(seg, classes, present, size, grid, CONFIG.temperature)
    target = some.new_zeros(*tags.shape, *grid)
    target.scatter_add_(1, classes[:, :, None, None].expand_as(some), some)
    return torch.stack(labels, 1), torch.stack(weights, 1), target


@torch.no_grad()
def evaluate(name: str) -> dict[str, Tensor]:
    """Print the teacher's scores on the held-out scenes; return maps and masks of some."""
    out = [teacher(student.backbone.normalize(part)) for part in images.split(16)]
    maps = [torch.cat([getattr(o, kind) for o in out]) for kind in ("seg_logits", "cam")]
    seg, cam = (F.interpolate(one, images.shape[2:], mode="bilinear") for one in maps)
    cam = normalize_cam(cam, "plain") * val["tags"][:, :, None, None]
    rows = {"segmentation": seg.argmax(1), "maps (true tags)": cam_to_label(cam, val["tags"], 0.4)}
    for row, labels in rows.items():
        miou = float(mean_iou(ConfusionMatrix(11).update(labels, truth).compute())[1])
        print(f"{name}, {row}: {100 * miou:.1f} % mIoU on {HELD_OUT} held-out scenes")
    return {f"maps {name}": cam.amax(1)[SHOWN], f"mask {name}": seg.argmax(1)[SHOWN]}


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=45)
    parser.add_argument("--out", type=Path, default=Path("runs/examples"))
    options = parser.parse_args()
    torch.manual_seed(0)
    train, val = ToyWorld("train", SCENES).tensors(), ToyWorld("val", HELD_OUT).tensors()
    images, truth = val["image"] / 255, val["mask"].long()
    student = CoSANetwork(cosa_backbone(CONFIG, "toy"), 10, CONFIG.hidden)
    start = read_start("toy", "cosa", CONFIG.backbone)
    student.load_state_dict({key.removeprefix(TEACHER): value for key, value in start.items()})
    teacher = MomentumTeacher(copy.deepcopy(student), MOMENTUM)
    searches, source = threshold_searches(CONFIG), torch.Generator().manual_seed(0)
    optimizer = torch.optim.AdamW(split_decay(student, 5e-4, 0.05))
    columns, factors = evaluate("before"), CONFIG.weights
    for step in range(options.steps):
        chosen = torch.randint(SCENES, (BATCH,))
        weak, _ = augment(train["image"][chosen] / 255, generator=source)
        strong, _ = augment(weak, generator=source, shift=0, flip=False, jitter=0.6)  # same places
        out, tags = student.train()(student.backbone.normalize(strong)), train["tags"][chosen]
        labels, weights, target = assign(weak, tags, (out.cam.shape[2], out.cam.shape[3]))
        logits = F.interpolate(out.seg_logits, weak.shape[2:], mode="bilinear")
        tag = tag_loss(out.tag_logits, tags) + tag_loss(out.aux_logits, tags)
        seg = swapped_seg_loss(logits, labels, weights)  # the swap: maps -> segmentation
        cam = swapped_cam_loss(out.cam, target)  # and segmentation -> maps
        optimizer.zero_grad()
        (tag + factors.seg * seg + factors.cam * cam).backward()
        optimizer.step()
        teacher.update(student)
        print(f"{step:3} tags {tag.item():.3f} seg {seg.item():.3f} cam {cam.item():.3f}")
    columns |= evaluate("after") | {"truth": truth[SHOWN]}
    drawn = [map(viz.overlay, images[SHOWN], layer) for layer in columns.values()]
    drawn, edge = [map(viz.rgb, images[SHOWN]), *drawn], ((0, 4), (0, 0), (0, 0))
    rows = [np.vstack([np.pad(x, edge, constant_values=255) for x in each]) for each in drawn]
    options.out.mkdir(parents=True, exist_ok=True)
    viz.image_grid(rows, ["image", *columns], columns=6).savefig(options.out / "cosa.png", dpi=150)
