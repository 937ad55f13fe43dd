"""The networks that `predict` takes by name, and what they do not know.

Without weights it takes the one for drawings of the toy world; `voc-mini` names that for photos.
"""

from dataclasses import dataclass

from wsss_lab.evaluate.trained import Trained
from wsss_lab.runs.packaged import PACKAGED, load_packaged

TOY_ONLY = """without --weights, only drawings of the toy world are known, no photos.
      For photos: --weights voc-mini (20 classes), or a run trained on photos."""
PHOTOS_ONLY = """the weights voc-mini look for the 20 classes of VOC, learned from tags of 2,451
      photos on two processor cores: outlines are rough."""
NOTES = {"toy": TOY_ONLY, "voc-mini": PHOTOS_ONLY}
"""Name of a packaged network -> note on it."""


@dataclass(frozen=True)
class DefaultNetwork:
    """A network for images without tags.

    Attributes:
        trained: None is the packaged classifier of the toy world.
        note: printed before the first line.
    """

    trained: Trained | None
    note: str


def default_network(name: str = "toy") -> DefaultNetwork:
    """Return a packaged network for `predict`, the one it takes without weights by default.

    Args:
        name: `voc-mini` or `toy`.
    """
    return DefaultNetwork(load_packaged(name) if name in PACKAGED else None, NOTES[name])
