"""The network that `predict` takes where no weights are given, and what it does not know.

This is the one place to change where a better one is at hand: return its `Trained`, see
`wsss_lab.runs.weights.load_trained`, and a note that is true of it.
"""

from dataclasses import dataclass

from wsss_lab.evaluate.trained import Trained

TOY_ONLY = """without --weights, only drawings of the toy world are known, no photos.
      For photos: `explain PHOTO`, or --weights of a run trained on photos."""
"""Note on the packaged classifier."""


@dataclass(frozen=True)
class DefaultNetwork:
    """A network for images without tags.

    Attributes:
        trained: None is the packaged classifier of the toy world.
        note: printed before anything else.
    """

    trained: Trained | None
    note: str


def default_network() -> DefaultNetwork:
    """Return the network for `predict` without weights."""
    return DefaultNetwork(None, TOY_ONLY)
