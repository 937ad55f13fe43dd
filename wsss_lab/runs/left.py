"""Results in the folder of a run, made ready to be shown: logs, galleries, a list of files."""

import dataclasses
from pathlib import Path
from typing import Any

from wsss_lab.data.errors import DataError
from wsss_lab.data.truth import lacks_truth
from wsss_lab.runs.contents import LABELS, PLANS, PROPAGATED
from wsss_lab.runs.examples import examples
from wsss_lab.runs.images import load_data
from wsss_lab.train.log import History, read_log

MAPPERS = ("fit", "tags")
"""Stages whose network makes class maps, where it is not that of the run's end."""


def log_files(folder: Path) -> dict[str, Path]:
    """Find the logs of all trainings of a run, by stage, in the order in which they were written.

    Args:
        folder: of the run; a log that lies directly in it is of the stage `fit`.
    """
    files = [folder / "log.csv", *folder.glob("*/log.csv")]
    files = sorted((f for f in files if f.is_file()), key=lambda f: f.stat().st_mtime_ns)
    return {f.parent.name if f.parent != folder else "fit": f for f in files}


def read_logs(folder: Path) -> dict[str, History]:
    """Read the logs of all trainings of a run, by stage.

    Raises:
        ValueError: one is damaged.
    """
    return {name: read_log(file) for name, file in log_files(folder).items()}


def label_folder(folder: Path) -> Path:
    """Return the folder of a run's last pseudo-labels, which need not be there."""
    propagated = folder / PROPAGATED
    return propagated if propagated.is_dir() else folder / LABELS


def first_examples(
    config: Any, folder: Path, role: str, count: int, predict: bool = True
) -> tuple[list[dict[str, Any]], tuple[str, ...]]:
    """Return the first images of a list with labels, maps and predictions, see `examples`.

    Args:
        config: settings of the run.
        folder: of the run, finished or not.
        role: "train", whose tags are given, with pseudo-labels and truth where there are any;
            or "val", about which nothing is given; without pixel truth training images again.
        count: of images; 0 reads nothing.
        predict: load the networks that are there; else maps and predictions are left out.

    Returns:
        Rows for `wsss_lab.viz.gallery`, and the class names, background first.

    Raises:
        DataError, ValueError, OSError: images or networks cannot be read.
    """
    if not count:
        return [], ()
    train = role == "train"
    data = config.data  # toy scenes: draw no more than are shown
    some = dataclasses.replace(
        data, count=min(data.count, count), val_count=min(data.val_count, count)
    )
    if not train and lacks_truth(data):
        role = "train"
    try:
        images = load_data(some, role, masks=True)
    except DataError:  # training images need no masks
        images = load_data(some, role)
    mappers = [folder / name / "model.safetensors" for name in MAPPERS]
    maps = next((file for file in mappers if file.is_file()), None)
    whole = (folder / "model.safetensors").is_file()  # else the run ends with its maps
    rows = examples(
        images,
        range(min(count, len(images))),
        (folder if whole else maps) if predict else None,
        maps=maps if predict else None,
        labels=label_folder(folder) if train else None,
        tell_tags=train,
    )
    return rows, ("background", *images.class_names)


def list_files(folder: Path) -> str:
    """List the files in a run's folder; label images are counted only."""
    lines = []
    for file in sorted(folder.glob("*.*")) + sorted(folder.glob("*/*.*")):
        if file.is_file() and file.suffix != ".png":
            size = file.stat().st_size / 1e6
            lines.append(f"{size:9.3f} MB  {file.relative_to(folder)}")
    for below in sorted({file.parent for file in folder.glob("*/*.png")}):
        count = len(list(below.glob("*.png")))
        lines.append(f"{count:>9} files  {below.relative_to(folder)}/")
    return "\n".join(lines)


def kept_plan(folder: Path) -> Path | None:
    """Find the plan that was kept in a run's folder, if one was."""
    return next((folder / name for name in PLANS if (folder / name).is_file()), None)
