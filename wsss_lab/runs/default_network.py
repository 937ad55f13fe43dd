"""The networks of the package that `predict` takes by name, and the one it takes without a name.

Images of an export of the toy world, known by their `classes.txt`, go to the network that learned
from such drawings; all other images are taken for photos.
"""

from dataclasses import dataclass
from pathlib import Path

from wsss_lab.data.catalog import TOY_CLASSES
from wsss_lab.data.class_names import read_classes
from wsss_lab.data.errors import DataError
from wsss_lab.evaluate.trained import Trained
from wsss_lab.runs.packaged import PACKAGED, load_packaged

PHOTOS, DRAWINGS = "voc-mini", "toy"
KNOWS = {
    PHOTOS: "finds the 20 classes of VOC in photos, learned from tags alone; outlines are rough",
    DRAWINGS: "finds the 10 classes of the toy world in its drawings, nothing in photos",
}
"""Name of a network of the package -> what it finds, and where."""


@dataclass(frozen=True)
class DefaultNetwork:
    """A network for images without tags.

    Attributes:
        trained: None is the packaged classifier of the toy world.
        note: printed before the first line.
    """

    trained: Trained | None
    note: str


def is_packaged_name(weights: Path) -> bool:
    """Whether `weights` names a network of the package, and neither a file nor a run.

    The folder `toy` of an exported toy world is no run.
    """
    run = any((weights / name).is_file() for name in ("config.json", "model.safetensors"))
    return str(weights) in KNOWS and not run and not weights.is_file()


def packaged_network(name: str, why: str = "") -> DefaultNetwork:
    """Return a network of the package, with a note on what it finds.

    Args:
        name: a key of `KNOWS`.
        why: how it was chosen.
    """
    note = f"network {name}{why}: {KNOWS[name]}"
    return DefaultNetwork(load_packaged(name) if name in PACKAGED else None, note)


def default_network(images: Path) -> DefaultNetwork:
    """Return the network for images when none is named.

    Args:
        images: an image file, or a folder of them.
    """
    if shows_toy_world(images):
        return packaged_network(DRAWINGS, f" (classes.txt; for photos --weights {PHOTOS})")
    return packaged_network(PHOTOS, f" (none named; for drawings --weights {DRAWINGS})")


def shows_toy_world(images: Path) -> bool:
    """Whether a `classes.txt` with the classes of the toy world belongs to the images.

    It lies beside their folder, as in an export of the toy world, or in it.

    Args:
        images: an image file, or a folder of them.
    """
    folder = (images if images.is_dir() else images.parent).absolute()
    for place in (folder, folder.parent):
        if (place / "classes.txt").is_file():
            try:
                return tuple(read_classes(place / "classes.txt")) == TOY_CLASSES
            except (DataError, OSError):
                return False
    return False
