"""A trained network, ready to predict and to be scored, wherever its weights came from."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from wsss_lab.evaluate.inference import MultiScale
from wsss_lab.methods.common.base import Method


@dataclass(frozen=True)
class Trained:
    """A network from a weights file."""

    name: str
    """Name of its recipe, see `wsss_lab.runs.recipe`."""
    method: Method
    """In eval mode, on the CPU."""
    views: MultiScale
    """Scales and flips with which it is run."""
    classes: tuple[str, ...]
    """Background first."""
    config: Any
    """Settings of its run, or of the released preset it belongs to."""
    file: Path
    """Where it came from."""
    released: bool
    """Whether the authors' code wrote it."""


def choose_device(name: str) -> torch.device:
    """The device behind "auto", "cpu" or "cuda".

    Raises:
        ValueError: a GPU is asked for and there is none.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise ValueError("device: cuda asked for, but this machine has no usable GPU; take cpu")
    if name not in ("auto", "cpu", "cuda"):
        raise ValueError(f"device: expected auto, cpu or cuda, got {name!r}")
    wanted = "cuda" if name != "cpu" and torch.cuda.is_available() else "cpu"
    return torch.device(wanted)
