"""TSCD on one page: learn to segment from image tags alone, in a minute on one CPU thread.

python examples/tscd.py [--steps 36] [--out DIR]

The network (packaged weights) has learned the tags already, its decoder nothing. From its own class
maps it makes labels. Padding, mixed precision and the rest: `wsss_lab/methods/tscd/method.py`.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from wsss_lab import viz
from wsss_lab.cam import cam_to_pseudo_label
from wsss_lab.data.toy import ToyWorld
from wsss_lab.losses import balanced_pixel_loss, enlarge, tag_loss
from wsss_lab.methods.tscd.config import PRESETS
from wsss_lab.methods.tscd.labels import affinity_label
from wsss_lab.methods.tscd.losses import affinity_loss, correspondence, scd_loss
from wsss_lab.methods.tscd.method import TSCD
from wsss_lab.methods.tscd.network import tscd_backbone
from wsss_lab.methods.tscd.views import place_points, sample_points, second_view, whole_image
from wsss_lab.metrics import ConfusionMatrix, mean_iou
from wsss_lab.refine import grid_label, radius_mask
from wsss_lab.runs.start import start_method

BATCH, SCENES, HELD_OUT, SHOWN = 4, 256, 64, [1, 4, 8, 10]
CONFIG = PRESETS["toy"]  # its band `low` to `high`, 0.35 to 0.55, is that of the released code


def pseudo_labels(method: TSCD, images: Tensor, cam: Tensor, tags: Tensor) -> Tensor:
    """Label pixels by the maps of tagged classes, refined by VARM; 255 where undecided."""
    low, high = CONFIG.low, CONFIG.high
    return cam_to_pseudo_label(cam, tags, low, high, images=images, refine=method.refiner)


def losses(method: TSCD, images: Tensor, tags: Tensor) -> dict[str, Tensor]:
    """Compute the five losses of a step."""
    seen, size = method.normalize(images), (images.shape[2], images.shape[3])
    out = method.network(seen)
    cam = method.maps(seen, scale_1=out.cam)  # without gradient: the maps are the teacher
    labels = pseudo_labels(method, images, cam, tags)
    # A(I): the same at half the size; running statistics are to be of full size, as in evaluation
    view = second_view(seen, CONFIG.view_scale)
    view_logits, raw = method.network.segment(view, update=False)
    view_cam = method.maps(view, scale_1=raw)
    # the points of both views are unrelated: SCD is about relations of places, not about places
    u, v = place_points(None, size, CONFIG.points, whole_image(len(images)))
    logits = enlarge(out.seg_logits, size, align_corners=True)
    of_maps, of_logits = (
        correspondence(sample_points(one, u), sample_points(two, v))
        for one, two in ((cam, view_cam), (logits, view_logits))
    )
    grid = (out.cam.shape[2], out.cam.shape[3])
    pairs = affinity_label(grid_label(labels, grid), radius_mask(*grid, CONFIG.radius))
    return {
        "tags": tag_loss(out.tag_logits, tags),
        "seg": balanced_pixel_loss(logits, labels),
        "energy": method.energy(logits.softmax(1), 255 * images, images[:, 0] >= 0, labels),
        "affinity": affinity_loss(out.affinity, pairs),
        "scd": scd_loss(of_maps, of_logits),
    }


@torch.no_grad()
def segment(method: TSCD, images: Tensor) -> Tensor:
    """Predict the class of every pixel, without tags."""
    logits = method.eval().predict(images).logits
    return enlarge(logits, (images.shape[2], images.shape[3])).argmax(1)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=36)
    parser.add_argument("--out", type=Path, default=Path("runs/examples"))
    options = parser.parse_args()
    torch.manual_seed(0)
    train, val = ToyWorld("train", SCENES).tensors(), ToyWorld("val", HELD_OUT).tensors()
    images, truth = val["image"] / 255, val["mask"].long()
    method = TSCD(tscd_backbone(CONFIG, "toy"), 10, CONFIG)
    start_method(method, "toy", "tscd", CONFIG.backbone)
    optimizer = torch.optim.AdamW(method.param_groups(lr=1e-3, head_lr=3e-3, weight_decay=0.05))
    before = segment(method, images)
    for step in range(options.steps):
        chosen = torch.randint(SCENES, (BATCH,))
        parts = losses(method.train(), train["image"][chosen] / 255, train["tags"][chosen])
        loss = parts["tags"] + sum(getattr(CONFIG.weights, k) * parts[k] for k in list(parts)[1:])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        print(f"{step:3}", *(f"{name} {part.item():.3f}" for name, part in parts.items()))
    after = segment(method, images)
    for labels, name in ((truth * 0, "all background"), (before, "before"), (after, "after")):
        miou = float(mean_iou(ConfusionMatrix(11).update(labels, truth).compute())[1])
        print(f"{name}: {100 * miou:.1f} % mIoU on {HELD_OUT} held-out scenes")
    photos, tags = images[SHOWN], val["tags"][SHOWN]
    cam = method.maps(method.normalize(photos)) * tags[:, :, None, None]
    columns = {"tagged maps": cam.amax(1), "pseudo-label": pseudo_labels(method, photos, cam, tags)}
    columns |= {"before": before[SHOWN], "after": after[SHOWN], "truth": truth[SHOWN]}
    stacked = [np.vstack([*map(viz.overlay, photos, column)]) for column in columns.values()]
    stacked.insert(0, np.vstack([*map(viz.rgb, photos)]))
    options.out.mkdir(parents=True, exist_ok=True)
    sheet = viz.image_grid(stacked, ["image", *columns], columns=6)
    sheet.savefig(options.out / "tscd.png", dpi=150)
