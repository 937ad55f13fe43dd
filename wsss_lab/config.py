"""Run settings as frozen dataclasses, and the facts every result is stamped with."""

import dataclasses
import json
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

IMAGENET_MEAN = (0.485, 0.456, 0.406)
"""RGB in [0, 1]. All four released codes use it, also with weights trained for 0.5."""
IMAGENET_STD = (0.229, 0.224, 0.225)
"""RGB in [0, 1]."""


@dataclasses.dataclass(frozen=True)
class FitConfig:
    """How long, how fast and how precisely to train."""

    steps: int = 500
    """Optimiser steps."""
    batch: int = 32
    """Images per step, over all devices."""
    lr: float = 1e-3
    """Peak learning rate of the body; AdamW."""
    head_lr_factor: float = 3.0
    """Learning rate of freshly made heads, as a multiple of `lr`."""
    weight_decay: float = 0.05
    """Decoupled weight decay of matrices and filters; norms and biases get none."""
    warmup: float = 0.08
    """Share of the steps with linearly rising learning rate; cosine to zero follows."""
    clip: float = 2.0
    """Largest gradient norm."""
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "32-true"
    """Fabric's name of the arithmetic. bf16 on a CPU is fast only with AVX512-BF16 or AMX."""
    seed: int = 0
    """Seeds head initialisation, data order and augmentation."""
    log_every: int = 50
    """Steps between log lines; 0 for none."""

    def __post_init__(self) -> None:
        for name, least in (("steps", 1), ("batch", 1), ("lr", 0.0), ("clip", 0.0)):
            value = getattr(self, name)
            if value < least:
                raise ValueError(f"{name}: expected at least {least}, got {value}")
        if not 0 <= self.warmup < 1:
            raise ValueError(f"warmup: expected a share of the steps in [0, 1), got {self.warmup}")


def git_revision() -> str:
    """Commit of the checkout this package is imported from, `+` if it has changes, or `unknown`."""
    here = Path(__file__).parent
    try:
        sha = subprocess.run(
            ["git", "rev-parse", "--short=12", "HEAD"],
            cwd=here,
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        changes = subprocess.run(
            ["git", "status", "--porcelain", "--untracked-files=no"],
            cwd=here,
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return sha + ("+" if changes else "")


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide numbers."""
    names = ("torch", "torchvision", "timm", "numpy", "wsss-lab")
    found = {"python": platform.python_version()}
    for name in names:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def provenance(config: Any, *, seed: int, device: str, **facts: Any) -> dict[str, Any]:
    """What a `metrics.json` says about its run, besides the numbers.

    Args:
        config: a dataclass or mapping with the settings of the run.
        seed: seed of the run.
        device: `cpu`, or the name of the accelerator.
        **facts: further entries, e.g. `weights="toy_cnn"`.
    """
    settings = dataclasses.asdict(config) if dataclasses.is_dataclass(config) else config  # type: ignore[arg-type]
    return {
        "config": settings,
        "seed": seed,
        "device": device,
        "git": git_revision(),
        "versions": versions(),
        **facts,
    }


def write_json(path: Path | str, content: dict[str, Any]) -> None:
    """Write JSON with sorted keys and a final newline, creating the folder."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n")
