"""The mix on the toy network at 64 px, and a batch of three images for it."""

import copy
from functools import cache

import torch

from wsss_lab.data.toy import ToyWorld
from wsss_lab.methods.acr.plugin import ConsistencyConfig, with_consistency
from wsss_lab.methods.mix.config import MixConfig
from wsss_lab.methods.mix.method import Mix
from wsss_lab.methods.mix.network import mix_backbone
from wsss_lab.runs.settings import with_changes
from wsss_lab.runs.start import start_method

K, SIDE, START = 10, 64, 3
SMALL = {
    "scales": [1.0, 1.5],
    "warmup": START - 1,
    "search.queue_rows": 6,
    "search.queue_grid": [4, 4],
}
ON = {
    "slow": {"slow.decay": 0.5},
    "refine": {"refine.kind": "varm"},
    "search": {"search.how": "split"},
    "perplexity": {"perplexity.on": True},
    "turns": {"turns.signal": "mix", "turns.mix": 0.25},
    "scd": {"scd.weight": 0.1, "scd.points": 6},
    "separation": {"separation.form": "infonce"},
}
"""Technique -> settings that switch it on."""


def make(seed=0, start=True, **changes):
    """Build a mix; settings with a dot as `**{"turns.signal": "mix"}`."""
    config = with_changes(MixConfig(), SMALL | changes)
    torch.manual_seed(seed)
    method = Mix(mix_backbone(config, "toy"), K, config)
    if start:
        start_method(method, "toy", "tscd", config.backbone)
    return method.train()


def with_acr(method, **changes):
    return with_consistency(method, ConsistencyConfig(alpha=2.0, **changes))


@cache
def scenes():
    """Scenes with two tags, and with one."""
    samples = [ToyWorld("train", 24, size=SIDE)[i] for i in range(24)]
    found = [[one for one in samples if int(one["tags"].sum()) == n] for n in (2, 1)]
    assert all(len(some) >= 3 for some in found)
    return found


def batch(seed=0):
    """Three scenes: a whole one with two tags, a padded one, one whose tags are taken away."""
    two, one = scenes()
    chosen = [two[seed % 3], one[seed % 3], one[(seed + 1) % 3]]
    tags = torch.stack([sample["tags"] for sample in chosen]).float()
    tags[2] = 0
    boxes = torch.tensor([[0, SIDE, 0, SIDE]]).repeat(3, 1)
    boxes[1] = torch.tensor([8, 60, 0, 56])
    images = torch.stack([sample["image"] for sample in chosen]).float() / 255
    return {"images": images, "tags": tags, "boxes": boxes}


def tagged():
    """Labels of the tagged classes, image by image."""
    return [(row.nonzero().flatten() + 1).tolist() for row in batch()["tags"]]


def state_of(method, step=START, data=None, seed=3):
    """The state of a step, up to its labels."""
    torch.manual_seed(seed)
    data = batch() if data is None else data
    images = method.network.backbone.normalize(data["images"])
    return method.make_labels(data, step, images, method.network(images))


def step(method, at=START, data=None, seed=3):
    torch.manual_seed(seed)
    return method.training_step(batch() if data is None else data, at)


def twin(method):
    return copy.deepcopy(method)
