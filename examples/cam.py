"""The CAM baseline on one page: tags -> class maps -> pseudo-labels -> a segmentation network.

python examples/cam.py [--steps 50] [--out DIR]

Every method of this library is a way to do better than these three steps. At full length, with
exact resume and reports: `python -m wsss_lab train cam_baseline --preset toy --out runs/cam`.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from wsss_lab import viz
from wsss_lab.cam import cam_to_label, normalize_cam
from wsss_lab.data.toy import ToyWorld
from wsss_lab.losses import pixel_loss, tag_loss
from wsss_lab.methods.cam_baseline import SegNetwork, TagClassifier
from wsss_lab.metrics import ConfusionMatrix, mean_iou
from wsss_lab.models.backbones import build_backbone
from wsss_lab.models.weights import load_backbone_weights

CLASSES, BATCH, SCENES, HELD_OUT, SHOWN = 10, 16, 320, 64, [1, 4, 8, 10]
THRESHOLD = 0.4  # background score of the pseudo-labels, fixed beforehand: no truth chose it


def backbone():
    """Return the small residual network, pre-trained on scenes of one object (their ImageNet)."""
    return load_backbone_weights(build_backbone("toy_cnn"), "toy")


def train(network: torch.nn.Module, steps: int, loss_of) -> None:
    """Run the loop: draw a batch, take its loss, update."""
    groups = network.param_groups(lr=1e-3, head_lr=1e-2, weight_decay=0.05)
    optimizer = torch.optim.AdamW(groups)
    network.train()
    for step in range(steps):
        # early steps are small: the heads are random, and their gradients would spoil the backbone
        for group in optimizer.param_groups:
            group.setdefault("full", group["lr"])
            group["lr"] = group["full"] * min(1, (step + 1) / 10) * (1 - step / steps)
        loss = loss_of(torch.randint(SCENES, (BATCH,)))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 20 == 0 or step == steps - 1:
            print(f"step {step}: {type(network).__name__} loss {loss.item():.3f}")
    network.eval()


@torch.no_grad()
def class_maps(classifier: TagClassifier, images: Tensor, tags: Tensor) -> Tensor:
    """Compute maps in 0..1 at image size, of the tagged classes only."""
    maps = torch.cat([classifier.raw_cam(batch) for batch in images.split(64)])
    maps = F.interpolate(maps, images.shape[-2:], mode="bilinear")  # stride 8 -> pixels
    return normalize_cam(maps) * tags[:, :, None, None]


@torch.no_grad()
def segment(network: SegNetwork, images: Tensor) -> Tensor:
    """Predict the class of every pixel, without tags."""
    logits = torch.cat([network(batch) for batch in images.split(32)])
    return F.interpolate(logits, images.shape[-2:], mode="bilinear").argmax(1)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--out", type=Path, default=Path("runs/examples"))
    options = parser.parse_args()
    torch.manual_seed(0)
    data, val = ToyWorld("train", SCENES).tensors(), ToyWorld("val", HELD_OUT).tensors()
    images, tags, photos = data["image"] / 255, data["tags"], val["image"] / 255
    truth = val["mask"].long()

    # 1. tags alone -> a network that names what is in an image
    classifier = TagClassifier(backbone(), CLASSES)
    train(classifier, options.steps, lambda i: tag_loss(classifier(images[i]), tags[i]))
    # 2. its class maps, cut at a threshold -> pseudo-labels of the training images
    labels = cam_to_label(class_maps(classifier, images, tags), tags, THRESHOLD)
    # 3. pseudo-labels -> a network that needs no tags any more
    network = SegNetwork(backbone(), CLASSES + 1)
    before = segment(network.eval(), photos)
    train(network, options.steps, lambda i: pixel_loss(network(images[i]), labels[i]))

    maps = class_maps(classifier, photos, val["tags"])
    pseudo, after = cam_to_label(maps, val["tags"], THRESHOLD), segment(network, photos)
    shown = {"before": before, "pseudo-labels": pseudo, "after": after}
    for name, prediction in shown.items():
        miou = float(mean_iou(ConfusionMatrix(CLASSES + 1).update(prediction, truth).compute())[1])
        print(f"{name}: {100 * miou:.1f} % mIoU on {HELD_OUT} held-out scenes")

    columns = {"class maps": maps.amax(1), **shown, "truth": truth}
    stacked = [np.vstack([*map(viz.rgb, photos[SHOWN])])]
    stacked += [np.vstack([*map(viz.overlay, photos[SHOWN], c[SHOWN])]) for c in columns.values()]
    options.out.mkdir(parents=True, exist_ok=True)
    sheet = viz.image_grid(stacked, ["image", *columns], columns=6)
    sheet.savefig(options.out / "cam.png", dpi=150)
