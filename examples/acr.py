"""ACR on the toy world in one file: `python examples/acr.py [--steps N] [--out DIR]`.

A vision transformer that knows the tags of toy scenes (packaged weights) goes on learning them, and
must attend to every scene and to its mirror image in the same way. Its class maps come from the
gradients of the class logits with respect to attention. The steps of ACR (Sun et al., arXiv
2308.04321) are below, in the library's parts; `ACR.losses` of `wsss_lab.methods.acr.method` holds
the same loop body. Consistency rises at once; whether maps get better, the book's study asks.
"""

import argparse
from pathlib import Path

import numpy as np
import torch

from wsss_lab import viz
from wsss_lab.cam import cam_to_label
from wsss_lab.data.augment import augment
from wsss_lab.data.catalog import TOY_CLASSES
from wsss_lab.data.toy import ToyWorld
from wsss_lab.losses import tag_loss
from wsss_lab.methods.acr import ACR, ACRConfig
from wsss_lab.methods.acr.losses import consistency
from wsss_lab.methods.acr.network import forward_views
from wsss_lab.methods.acr.views import Flip
from wsss_lab.metrics import ConfusionMatrix, mean_iou
from wsss_lab.models.backbones import build_backbone
from wsss_lab.runs.start import start_method

ALPHA, THRESHOLD, BATCH = 125.0, 0.4, 8  # weight of the losses; background score; images a step

arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
arguments.add_argument("--steps", type=int, default=40, help="training steps")
arguments.add_argument("--out", type=Path, default=Path("runs/examples"), help="for acr.png")
options = arguments.parse_args()
torch.manual_seed(0)

# Model: a transformer, and a linear tag head on its class token.
model = ACR(
    build_backbone("toy_vit2"),
    len(TOY_CLASSES),
    ACRConfig(alpha=ALPHA, start_layer=-4, propagate=False),  # four layers, all localise
)
start_method(model, "toy", "acr", "toy_vit2")

# Data: images and tags to learn from; masks of other scenes, to score with.
train = ToyWorld("train", 200).tensors(workers=0)
held_out = ToyWorld("val", 40).tensors(workers=0)
photos, truth = held_out["image"].float() / 255, held_out["mask"].long()


def moved_attention() -> float:
    """Share of attention that goes elsewhere in the mirror image, mean of both losses, 0..1."""
    images = model.prepare(photos)
    with torch.no_grad():
        _, pairs, grid = forward_views(model.backbone, images, images.flip(-1))
    terms = consistency(pairs, Flip(), grid)  # mean |difference| over N entries of rows of sum 1
    return float(sum(terms.values())) / len(terms) * grid[0] * grid[1] / 2


def evaluate(name: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Print scores on the held-out scenes, without their tags; return maps and labels."""
    model.eval()
    maps = torch.cat([model.localise(part) for part in photos.split(BATCH)])
    labels = cam_to_label(maps, None, THRESHOLD)
    _, miou = mean_iou(ConfusionMatrix(1 + len(TOY_CLASSES)).update(labels, truth).compute())
    moved = f"{100 * moved_attention():.1f} % of the attention moves in the mirror image"
    print(f"{name}: mIoU of the class maps {100 * miou:.1f} %; {moved}")
    return maps, labels


before = evaluate("before")

# Loop: two views, one pass, two kinds of losses.
optimizer = torch.optim.AdamW(model.param_groups(3e-4, 9e-4, 0.05))
generator = torch.Generator().manual_seed(0)
model.train()
for step in range(options.steps):
    chosen = torch.randint(len(train["image"]), (BATCH,), generator=generator)
    images, _ = augment(train["image"][chosen].float() / 255, generator=generator)
    tags, view = train["tags"][chosen], Flip()  # also Turn, Shift, Scale
    images = model.prepare(images)
    other = view.image(images, model.backbone.stride)
    tokens, pairs, grid = forward_views(model.backbone, images, other)  # attention of all layers
    tag_losses = sum(tag_loss(model.head.linear(token), tags) for token in tokens)
    terms = consistency(pairs, view, grid)  # "activation": class row; "affinity": all pairs
    loss = tag_losses + ALPHA * (terms["activation"] + terms["affinity"])
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if step % 10 == 0 or step == options.steps - 1:
        shown = ", ".join(f"{name} {float(term.detach()):.2e}" for name, term in terms.items())
        print(f"step {step}: tags {float(tag_losses.detach()):.3f}, {shown}", flush=True)

after = evaluate("after")

# Picture: the largest of each scene's class maps, labels, truth; one column of scenes per kind.
scenes = (1, 4, 8, 10)
columns = {"image": [viz.rgb(photos[i]) for i in scenes]}
for name, (maps, labels) in (("before", before), ("after", after)):
    columns[f"maps {name}"] = [viz.overlay(photos[i], maps[i].amax(dim=0)) for i in scenes]
    columns[f"labels {name}"] = [viz.overlay(photos[i], labels[i]) for i in scenes]
columns["truth"] = [viz.overlay(photos[i], truth[i]) for i in scenes]
gap = np.full((4, photos.shape[-1], 3), 255, np.uint8)
stacked = [np.vstack([x for panel in c for x in (panel, gap)]) for c in columns.values()]
options.out.mkdir(parents=True, exist_ok=True)
viz.image_grid(stacked, list(columns), columns=6).savefig(options.out / "acr.png", dpi=150)
print(f"{options.out / 'acr.png'} written")
