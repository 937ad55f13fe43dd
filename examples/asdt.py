"""ASDT on one page: two teachers alternate, image tags are the only truth; a minute on one thread.

python examples/asdt.py [--steps 100] [--out DIR]

Teacher A is a tag classifier (packaged weights): its class maps, refined by a CRF, label the pixels
of which it is sure. Teacher B is a segmentation head that learns from A; with a CRF it labels all
pixels. A square wave selects the teacher of a second head, the student. Crops, mixed precision and
the rest: `wsss_lab/methods/asdt/method.py`.
"""

import argparse
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from wsss_lab import viz
from wsss_lab.data.toy import TOY_CLASSES, ToyWorld
from wsss_lab.evaluate.predict import predict, toy_classifier
from wsss_lab.losses import enlarge, pixel_loss, tag_loss
from wsss_lab.methods.asdt import ASDTNetwork, pulse_signal, teacher_a_label, teacher_b_label
from wsss_lab.methods.asdt.config import PRESETS
from wsss_lab.methods.asdt.labels import present_cams, strongest_classes
from wsss_lab.methods.asdt.losses import first_part, fused_probs, two_part_ce
from wsss_lab.methods.asdt.network import Outputs
from wsss_lab.metrics import ConfusionMatrix, mean_iou
from wsss_lab.refine import DenseEnergyLoss

SIDE, BATCH, HELD_OUT, SHOWN = 72, 4, 64, [1, 4, 8, 10]
# made short: maps of one scale, a warm-up of 40 steps, pulses of 4 in 12 steps; energy as at 128 px
CONFIG = replace(PRESETS["toy"], scales=(1.0,), warmup=39, period=12, duty=1 / 3)
CONFIG = replace(CONFIG, energy_sigma_xy=40 * SIDE / 128, energy_weight=4e-6 * (128 / SIDE) ** 4)
ENERGY = DenseEnergyLoss(CONFIG.energy_weight, CONFIG.energy_sigma_rgb, CONFIG.energy_sigma_xy)


@torch.no_grad()  # labels are constants: the student must not train its teachers' heads
def pseudo_labels(
    network: ASDTNetwork, outputs: Outputs, images: Tensor, tags: Tensor
) -> tuple[Tensor, Callable[[], Tensor]]:
    """Label the pixels of which teacher A is sure, and, if that is called, all by teacher B."""
    cam = network.fused_cam(images, outputs.cam)
    index, present = strongest_classes(cam, tags)
    cams = present_cams(cam, index, present, (SIDE, SIDE))
    a = teacher_a_label(255 * images, cams, index, present, CONFIG)
    logits = outputs.teacher_logits
    return a.label, lambda: teacher_b_label(255 * images, logits, index, present, CONFIG).label


def losses(network: ASDTNetwork, images: Tensor, tags: Tensor, step: int) -> dict[str, Tensor]:
    """Compute the losses of a step."""
    outputs = network(images)
    a, b = pseudo_labels(network, outputs, images, tags)
    valid, first = torch.ones_like(a).bool(), first_part(len(TOY_CLASSES) + 1, background=True)
    z1, z2 = (enlarge(z, (SIDE, SIDE)) for z in (outputs.teacher_logits, outputs.student_logits))
    # teacher B's head learns from A in every step, in pulses too
    parts = {"tags": tag_loss(outputs.tag_logits, tags), "head": two_part_ce(z1, a, first)}
    if pulse_signal(step, **CONFIG.pulse):  # weight 0.1: B decides only where A gives no label
        parts["student"] = CONFIG.kd_weight * pixel_loss(z2, b())
    else:
        parts["student"] = two_part_ce(z2, a, first)
    energy = [ENERGY(z.softmax(1), 255 * images, valid, a) for z in (z1, z2)]
    return parts | {"energy": energy[0] + energy[1]}


@torch.no_grad()
def segment(network: ASDTNetwork, images: Tensor) -> Tensor:
    """Predict the class of every pixel without tags: the larger probability of both heads."""
    outputs = network.eval()(images)
    return fused_probs(outputs.teacher_logits, outputs.student_logits, (SIDE, SIDE)).argmax(1)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--out", type=Path, default=Path("runs/examples"))
    options = parser.parse_args()
    torch.manual_seed(0)
    train = ToyWorld("train", BATCH * options.steps, size=SIDE).tensors()
    val = ToyWorld("val", HELD_OUT, size=SIDE).tensors()
    images, truth = val["image"] / 255, val["mask"].long()
    classifier = toy_classifier()  # has learned the tags; `before` are its class maps at 0.4
    before = torch.stack([predict(classifier, image)[0] for image in val["image"]])
    network = ASDTNetwork(classifier.backbone, len(TOY_CLASSES), CONFIG)
    network.tag_head = classifier.head  # teacher A; the other two heads are random
    optimizer = torch.optim.AdamW(network.param_groups(lr=3e-4, head_lr=1.5e-3, weight_decay=0.05))
    for step in range(options.steps):
        chosen = slice(BATCH * step, BATCH * (step + 1))
        some = train["image"][chosen] / 255
        parts = losses(network.train(), some, train["tags"][chosen], step)
        loss = parts["tags"] + 0.5 * (parts["head"] + parts["student"] + parts["energy"])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        print(f"{step:3}", *(f"{name} {part.item():.3f}" for name, part in parts.items()))
    after = segment(network, images)
    for labels, name in ((truth * 0, "all background"), (before, "before"), (after, "after")):
        miou = float(mean_iou(ConfusionMatrix(11).update(labels, truth).compute())[1])
        print(f"{name}: {100 * miou:.1f} % mIoU on {HELD_OUT} held-out scenes")
    photos, tags = images[SHOWN], val["tags"][SHOWN]
    a, b = pseudo_labels(network, network(photos), photos, tags)
    columns = {"teacher A": a, "teacher B": b(), "before": before[SHOWN], "after": after[SHOWN]}
    columns |= {"truth": truth[SHOWN]}
    stacked = [np.vstack([*map(viz.overlay, photos, column)]) for column in columns.values()]
    stacked.insert(0, np.vstack([*map(viz.rgb, photos)]))
    options.out.mkdir(parents=True, exist_ok=True)
    sheet = viz.image_grid(stacked, ["image", *columns], columns=6)
    sheet.savefig(options.out / "asdt.png", dpi=150, bbox_inches="tight")
