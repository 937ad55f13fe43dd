"""A small ASDT and a batch for it."""

from dataclasses import replace

import torch
import torch.nn.functional as F

from wsss_lab.methods.asdt.config import PRESETS
from wsss_lab.methods.asdt.method import ASDT
from wsss_lab.models.backbones import build_backbone

K, SIDE = 4, 64
SMALL = {"scales": (1.0, 0.5), "hidden": 8, "dilation": 2, "warmup": 10, "period": 6, "duty": 1 / 3}
PULSE, QUIET = 13, 16  # steps inside and outside a pulse, after warm-up


def settings(preset="voc", **changes):
    toy = PRESETS["toy"]
    small = {
        "cam_crf": replace(toy.cam_crf, iterations=3),
        "seg_crf": replace(toy.seg_crf, iterations=3),
    }
    return replace(PRESETS[preset], **(small | SMALL | changes))


def make(preset="voc", seed=0, classes=K, backbone="toy_cnn", config=None, **changes):
    torch.manual_seed(seed)
    options = {"width_factor": 1 / 64} if backbone == "wrn38" else {}
    net = build_backbone(backbone, **options)
    return ASDT(net, classes, config or settings(preset, **changes)).train()


def batch(b=3, seed=0, classes=K):
    g = torch.Generator().manual_seed(seed)
    coarse = torch.rand(b, 3, 8, 8, generator=g)
    images = F.interpolate(coarse, (SIDE, SIDE), mode="bicubic").clamp(0, 1)
    tags = torch.zeros(b, classes)
    tags[:, 1] = 1
    tags[0, 3] = 1
    boxes = torch.tensor([[0, SIDE, 0, SIDE]]).repeat(b, 1)
    boxes[-1] = torch.tensor([8, 50, 0, 40])
    return {"images": images, "tags": tags, "boxes": boxes}


def step(method, at=PULSE, **changes):
    torch.manual_seed(3)
    return method.training_step(batch() | changes, at)


def toward_b(preset="voc", **changes):
    """A method whose labels exist: thresholds so low that random maps are sure."""
    return make(preset, top_from=0.0, cam_floor=0.0, crf_floor=0.0, **changes)
