"""Lists of a run: images to train on, and images to evaluate on where there is pixel truth."""

from pathlib import Path
from typing import Any

from wsss_lab.data.class_names import require_same_classes
from wsss_lab.data.config import DataConfig
from wsss_lab.data.truth import lacks_truth, what_is_lacking
from wsss_lab.runs.contents import OVERLAYS
from wsss_lab.runs.images import load_data
from wsss_lab.runs.labels import write_overlays
from wsss_lab.runs.stages import Log
from wsss_lab.train.fabric import Fabric

NO_TRUTH = "no pixel truth: the data set has no masks"
"""Reason in `metrics.json` for a run without scores."""


def load_lists(
    data: DataConfig, log: Log, *, batch: int = 1, wanted: int | None = None, masks: bool = False
) -> tuple[Any, Any | None]:
    """Load the images to train on and those to evaluate on.

    Args:
        data: which ones.
        log: gets a line where there is no truth, and one where images have no class.
        batch: images of a step; the training list has to fill one.
        wanted: see `load_data`.
        masks: the images to train on carry their truth, which an upper bound needs.

    Returns:
        Both lists; None for the second where the data set has no pixel truth at all.

    Raises:
        DataError: a file is missing or wrong.
        ValueError: fewer images than `batch`, or none with a class.
    """
    images = load_data(data, "train", masks=masks or None, wanted=wanted)
    require_images(images, batch)
    tags = getattr(images, "tags", None)
    if tags is not None and (none := int((tags.sum(1) == 0).sum())):
        if none == len(images):
            raise ValueError("data: no training image has a class; there is nothing to learn")
        log(f"negatives: {none} of {len(images)} training images have no class")
    if not lacks_truth(data):
        val = load_data(data, "val")
        require_one_list_of_classes(images, val)
        _note_shared(images, val, log)
        return images, val
    log(
        f"no scores: {data.root} has no {what_is_lacking(data)}; training on tags alone, up to "
        "pseudo-labels and overlays to look at"
    )
    return images, None


def _note_shared(images: Any, val: Any, log: Log) -> None:
    """Log how many images are in both lists, if those name any."""
    names = [set(getattr(each, "names", ())) for each in (images, val)]
    if shared := sorted(names[0] & names[1]):
        log(
            f"in both lists: {len(shared)} of {len(val)} images to evaluate on are trained on, "
            f"too, the first: {shared[0]}; their scores say nothing about new images"
        )


def finish_unscored(
    images: Any, out: Path, labels: str, *, fabric: Fabric, log: Log
) -> dict[str, Any]:
    """Write overlays of the pseudo-labels, the end of a run that cannot be scored.

    Args:
        images: training list.
        out: the run's folder.
        labels: folder of the label images, below it.
        fabric: launched; every process takes its share of the pictures.
        log: gets a line that names the folders.

    Returns:
        Results for `metrics.json`: no score, and why.
    """
    count = write_overlays(images, out / labels, out / OVERLAYS, fabric=fabric)
    log(f"pseudo-labels: {out / labels}; {count} of them over their images: {out / OVERLAYS}")
    return {"val": {}, "no_score": NO_TRUTH}


def require_images(images: Any, batch: int) -> None:
    """Refuse a training list that does not fill one batch.

    Raises:
        ValueError: names both numbers.
    """
    if len(images) < batch:
        raise ValueError(
            f"run.batch: {batch} images per step, but the training list has only {len(images)}; "
            "use a smaller batch"
        )


def require_one_list_of_classes(images: Any, val: Any) -> None:
    """Refuse to train on one list of classes and score on another.

    Args:
        images: data set to train on.
        val: data set to score on.

    Raises:
        DataError: the classes differ in a name or in their order.
    """
    remedy = "Give both lists the same classes in the same order, for example by classes.txt"
    require_same_classes(
        tuple(images.class_names),
        tuple(val.class_names),
        "the training list",
        "the validation list",
        remedy,
    )
