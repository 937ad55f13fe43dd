"""Files that a run reads, and those it leaves in its folder: to protect, replace or undo a run."""

import contextlib
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from wsss_lab.config import OutputError

LABELS, OVERLAYS = "labels", "overlays"
"""Folders of a run: label images of the training images, and pictures of them."""
PROPAGATED = "propagated"
"""Folder of labels that were made better along affinities."""
LABEL_FOLDERS = (LABELS, PROPAGATED)
PLANS = ("plan.json", "probe.json")
"""Files of what a run was expected to take. They come before the run, so they do not make its
folder one of something else, and `overwrite` leaves them."""
REPORT = "report.html"
"""Page about the run, see `wsss_lab.report`."""
FACTS = ("config.json", "metrics.json", "phase.json", "per_image.npz", REPORT)
STAGE = (
    *("log.csv", "stage.json", "model.safetensors", "nonfinite_step*.pt"),
    *("checkpoints/*", "tensorboard/*"),
)
"""Patterns of what a training stage leaves, in the run's folder or in one below it."""


def run_files(folder: Path) -> list[Path]:
    """List what a run has written into its folder; other files in it are left out.

    Returns:
        Sorted paths; nothing if the folder holds no run.
    """
    if not (folder / "config.json").is_file():
        return []
    patterns = [*FACTS, *STAGE, *(f"*/{pattern}" for pattern in STAGE)]
    patterns += [f"{name}/*.png" for name in LABEL_FOLDERS] + [f"{OVERLAYS}/*_overlay.jpg"]
    return sorted({f for pattern in patterns for f in folder.glob(pattern) if f.is_file()})


def files_beside(weights: Path) -> list[Path]:
    """List a weights file and, where it is part of a run, all files of that run.

    Args:
        weights: file, or folder of a run.
    """
    found = [weights] if weights.is_file() else []
    place = weights.absolute()
    for folder in (place, place.parent, place.parent.parent):
        if there := run_files(folder):
            return found + there
    return found


def input_paths(config: Any, prefix: str = "") -> dict[str, Path]:
    """Files and folders that settings name, by setting: starting weights and data.

    Only what exists is listed; other values of these settings are names of packaged weights.
    """
    found: dict[str, Path] = {}
    for field in dataclasses.fields(config):
        value, name = getattr(config, field.name), f"{prefix}{field.name}"
        if dataclasses.is_dataclass(value):
            found |= input_paths(value, f"{name}.")
        elif field.name.endswith(("weights", "start", "root")) and isinstance(value, str | Path):
            found |= {name: Path(value)} if value and Path(value).exists() else {}
    return found


def require_inputs_elsewhere(config: Any, folder: Path) -> None:
    """Refuse to replace a run by one that starts from its weights or data.

    Args:
        config: settings of the new run.
        folder: of the run to be replaced.

    Raises:
        FileExistsError: names the setting.
    """
    home = folder.resolve()
    for name, path in input_paths(config).items():
        if path.resolve().is_relative_to(home):
            raise FileExistsError(
                f"overwrite: {name} is {path}, which lies in the run to be replaced; choose "
                "another folder"
            )


def discard_run(folder: Path) -> None:
    """Delete what a run has written, and the folders that this empties; other files stay.

    `config.json` goes last, so that a folder whose deletion was interrupted still holds a run.
    """
    files = run_files(folder)
    marker = folder / "config.json"
    for file in [f for f in files if f != marker]:
        file.unlink(missing_ok=True)
    for below in sorted({f.parent for f in files} | set(_stages(files)), reverse=True):
        if below != folder:
            with contextlib.suppress(OSError):  # not empty
                below.rmdir()
    marker.unlink(missing_ok=True)


def _stages(files: list[Path]) -> Iterator[Path]:
    """Folders of the stages whose checkpoints lie one level deeper."""
    for file in files:
        if file.parent.name in ("checkpoints", "tensorboard"):
            yield file.parent.parent


@contextlib.contextmanager
def undo_failed_start(folder: Path, first_process: bool = True) -> Iterator[None]:
    """Take back a start that fails before anything was achieved, so that the next is not refused.

    What was there before stays, and so do checkpoints, labels and weights. A start that was
    interrupted, or that found the disk full, stays, too: it can be resumed.

    Args:
        folder: of the run.
        first_process: others do nothing.
    """
    held_run, existed = (folder / "config.json").is_file(), folder.exists()
    try:
        yield
    except OutputError:
        raise  # with some space the same run goes on
    except Exception:
        if first_process and not held_run:
            left = {f.name for f in run_files(folder)}
            if left and left <= {"config.json", "log.csv", "stage.json"}:
                discard_run(folder)
                for below in folder.iterdir() if folder.is_dir() else ():
                    _remove_empty(below)
                if not existed:
                    _remove_empty(folder)
        raise


def _remove_empty(folder: Path) -> None:
    with contextlib.suppress(OSError):
        folder.rmdir()
