"""Whether a data set has pixel truth at all; training needs none, scores do."""

from pathlib import Path

from wsss_lab.data.config import DataConfig
from wsss_lab.data.errors import DataError
from wsss_lab.data.layouts import voc_root


def lacks_truth(data: DataConfig) -> bool:
    """Whether this is a folder of somebody's own with nothing to evaluate on: no mask, or no list.

    Masks of training images alone, drawn later to score labels on, are no list to evaluate on.
    Where there are masks and `tags_val.csv`, a missing mask is a fault of the folder; and a list
    to evaluate on that the settings name is wanted.

    Args:
        data: settings of the data set; own folders, and folders in VOC's layout, may lack truth.
    """
    if data.val_split or data.root is None:
        return False
    if data.name == "folder":
        root = Path(data.root)
        return not (_holds_png(root / "masks") and (root / "tags_val.csv").is_file())
    if data.name == "voc":
        try:
            folder = voc_root(data.root)
        except DataError:  # no such layout: reading it tells more
            return False
        return not any(map(_holds_png, folder.glob("SegmentationClass*")))
    return False


def what_is_lacking(data: DataConfig) -> str:
    """Name what a data set that `lacks_truth` would have to have."""
    if data.name == "folder" and _holds_png(Path(data.root or "") / "masks"):
        return "tags_val.csv, a list of images whose masks to compare with"
    return "masks to compare with"


def _holds_png(folder: Path) -> bool:
    return folder.is_dir() and any(f.suffix.lower() == ".png" for f in folder.iterdir())
