"""Class names of a folder of label images, wherever they are written down.

| where | what has it |
|---|---|
| in the files themselves | masks that this library has written, those of a run too |
| `classes.txt` in the folder, or in the one above it | data sets |
| `config.json` in the folder, or in the one above it | a run |
"""

from collections.abc import Sequence
from pathlib import Path

from wsss_lab.config import read_json
from wsss_lab.data.class_names import BACKGROUND, foreground, read_classes, require_same_classes
from wsss_lab.data.errors import DataError
from wsss_lab.data.files import existing
from wsss_lab.data.masks import mask_classes

RUN_LABELS = ("propagated", "labels")
"""Folders of a run's label images, the last stage first."""


def label_folder(folder: Path) -> Path:
    """Return the label images of a run's folder; any other folder as it is."""
    if (folder / "config.json").is_file() and not any(folder.glob("*.png")):
        return next((f for name in RUN_LABELS if (f := folder / name).is_dir()), folder)
    return folder


def find_class_names(
    pred_dir: Path, truth_dir: Path, names: Sequence[str]
) -> tuple[str, ...] | None:
    """Class names of two folders, background first; None where neither has any.

    Args:
        pred_dir: predictions.
        truth_dir: true masks.
        names: of their files, without ending.

    Raises:
        DataError: both have, and they differ.
    """
    truth, pred = (_names_of_folder(folder, names) for folder in (truth_dir, pred_dir))
    if truth is not None and pred is not None:
        remedy = "Bring both into one order: equal mask values mean different classes"
        require_same_classes(truth, pred, f"those of {truth_dir}", str(pred_dir), remedy)
    return pred if truth is None else truth


def _names_of_folder(folder: Path, names: Sequence[str]) -> tuple[str, ...] | None:
    first = next((f for n in names if (f := existing(folder / f"{n}.png")).is_file()), None)
    try:
        carried = mask_classes(first) if first is not None else None
    except DataError:  # a broken file is reported with all others
        carried = None
    if carried is not None:
        return carried
    place = folder.absolute()
    listed = (above / "classes.txt" for above in (place, place.parent))
    if found := next((path for path in listed if path.is_file()), None):
        return (BACKGROUND, *read_classes(found))
    return _names_of_run(place) or _names_of_run(place.parent)


def _names_of_run(folder: Path) -> tuple[str, ...] | None:
    """Class names in a run's settings; None where there is no run, or one that names none."""
    file = folder / "config.json"
    if not file.is_file():
        return None
    try:
        content = read_json(file, remedy="delete it")
    except ValueError:  # not of this library
        return None
    names = content.get("classes") if {"method", "config"} <= content.keys() else None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        return None
    return (BACKGROUND, *foreground(names, str(file))) if names else None
