"""Checkpoints of a study's run."""

from pathlib import Path


def checkpoint_folders(folder: Path) -> list[Path]:
    """List the folders of checkpoints of all stages of a run."""
    return [*folder.glob("run/checkpoints"), *folder.glob("run/*/checkpoints")]


def checkpoints(folder: Path) -> set[Path]:
    """List the checkpoints of all stages of a run."""
    return {path for place in checkpoint_folders(folder) for path in place.glob("step_*.pt")}
