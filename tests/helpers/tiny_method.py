"""A method of a few hundred weights with every kind of state, for tests of the loop."""

import hashlib
import random

import numpy as np
import torch
from torch import nn

from wsss_lab.config import OptimConfig
from wsss_lab.losses import tag_loss
from wsss_lab.methods.common.base import Method, StepOutput, split_decay

OPTIM = OptimConfig(lr=1e-2)


class Tiny(Method):
    """Learns tags from mean colours, with a LayerNorm.

    Args:
        noise: also drop out and draw from numpy and Python.
        width: of the hidden layer.
    """

    def __init__(self, noise=True, width=8):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(3, width), nn.LayerNorm(width), nn.ReLU())
        self.head = nn.Linear(width, 2)
        self.teacher = nn.Linear(width, 2).requires_grad_(False)
        self.register_buffer("queue", torch.zeros(4, 2))
        self.register_buffer("updates", torch.zeros((), dtype=torch.long))
        self.noise = noise

    def training_step(self, batch, step):
        features = self.body(batch["images"].mean((2, 3)))
        if self.noise:
            features = nn.functional.dropout(features, 0.1, training=True)
            features = features * (1 + 0.1 * np.random.rand() + 0.1 * random.random())  # noqa: NPY002
        logits = self.head(features)
        self.queue.copy_(torch.cat([self.queue[1:], logits.detach().float().mean(0)[None]]))
        tags = tag_loss(logits, batch["tags"])
        follow = (logits - self.teacher(features)).float().square().mean()
        return StepOutput(tags + 0.1 * follow, {"tags": tags, "follow": follow})

    @torch.no_grad()
    def after_step(self, step):
        self.updates += 1
        for slow, fast in zip(self.teacher.parameters(), self.head.parameters(), strict=True):
            slow.lerp_(fast, 0.1)

    def param_groups(self, lr, head_lr, weight_decay):
        body = split_decay(self.body, lr, weight_decay)
        return body + split_decay(self.head, head_lr, weight_decay)


def tiny(seed=0, **options):
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    torch.manual_seed(seed)
    return Tiny(**options)


def data(count=32):
    g = torch.Generator().manual_seed(0)
    tags = torch.randint(0, 2, (count, 2), generator=g).float()
    images = torch.randint(0, 256, (count, 3, 4, 4), generator=g, dtype=torch.uint8)
    images[:, :2] = (tags * 200).to(torch.uint8)[:, :, None, None]
    return images, tags


def digest(method):
    """sha256 of weights and buffers."""
    found = hashlib.sha256()
    for name, value in method.state_dict().items():
        found.update(name.encode() + value.contiguous().numpy().tobytes())
    return found.hexdigest()
