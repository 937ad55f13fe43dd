"""CoSA on a transformer of three narrow blocks, and a batch of three images for it."""

from dataclasses import fields, replace

import torch
import torch.nn.functional as F

from wsss_lab.methods.cosa.config import PRESETS, CoSAQuirks
from wsss_lab.methods.cosa.method import CoSA
from wsss_lab.models.backbones import build_backbone

K, SIDE, START = 4, 64, 10
QUIRKS = [field.name for field in fields(CoSAQuirks)]


def tiny_backbone():
    return build_backbone(
        "vit_b16",
        levels=(-2,),
        train_pos_embed=False,
        img_size=SIDE,
        embed_dim=48,
        depth=3,
        num_heads=3,
    )


def settings(preset="voc", **changes):
    """A preset in small, with changes to its settings or, by their names, to its quirks."""
    small = {"hidden": 16, "warmup": START, "queue_rows": 8, "queue_grid": (4, 4), "decay": 0.9}
    quirks = {name: changes.pop(name) for name in QUIRKS if name in changes}
    quirks = replace(PRESETS[preset].quirks, **quirks)
    return replace(PRESETS[preset], **(small | {"quirks": quirks} | changes))


def make(preset="voc", seed=0, **changes):
    torch.manual_seed(seed)
    return CoSA(tiny_backbone(), K, settings(preset, **changes)).train()


def batch(b=3, seed=0):
    g = torch.Generator().manual_seed(seed)
    coarse = torch.rand(b, 3, 8, 8, generator=g)
    images = F.interpolate(coarse, (SIDE, SIDE), mode="bicubic").clamp(0, 1)
    tags = torch.zeros(b, K)
    tags[:, 1] = 1
    tags[0, 3] = 1
    boxes = torch.tensor([[0, SIDE, 0, SIDE]]).repeat(b, 1)
    boxes[1] = torch.tensor([8, 50, 0, 40])
    strong = (1 - images).clamp(0, 1)
    return {"images": images, "strong": strong, "tags": tags, "boxes": boxes}


def step(method, at=START + 1, **changes):
    torch.manual_seed(3)
    return method.training_step(batch() | changes, at)
