"""The networks that `predict` takes by name, and what they do not know.

Without weights it takes the packaged network for photos; `toy` names the one for drawings.
"""

from dataclasses import dataclass

from wsss_lab.evaluate.trained import Trained
from wsss_lab.runs.packaged import PACKAGED, load_packaged

TOY_ONLY = """the weights `toy` know drawings of the toy world only, no photos.
      For photos: leave --weights away, or name a run trained on photos."""
PHOTOS_ONLY = """without --weights, a packaged network looks for the 20 classes of VOC in photos.
      Drawings of the toy world: --weights toy. Your own classes: train on your photos."""
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


def default_network(name: str = "voc-mini") -> DefaultNetwork:
    """Return a packaged network for `predict`.

    Args:
        name: `voc-mini` or `toy`.
    """
    return DefaultNetwork(load_packaged(name) if name in PACKAGED else None, NOTES[name])
