"""A technique is an object whose hooks the step of the base calls; a table of techniques.

The step of `wsss_lab.methods.mix.method.Mix` fills a `State` from top to bottom and calls, in this
order and for every technique that is on:

============  ====================  ================================================================
hook          returns               base without it
============  ====================  ================================================================
`maker`       a network             the network in training makes the labels
`maps`        `cam`                 maps as they are
`thresholds`  `low`, `high`         those of the settings
`labels`      `labels`              maps cut at both thresholds
`weights`     `weights`             every labelled pixel counts 1
`lessons`     more `Lesson`         none: the labels of the maps are the only ones
`losses`      name -> loss          tags, segmentation, and the dense energy where it is on
`facts`       name -> number        nothing more in the log
`after_step`  nothing               nothing follows the weights
============  ====================  ================================================================

A hook returns what the state shall hold afterwards; one that is not overridden returns what is
there. Techniques are called in the order of `TECHNIQUES`, those of a reader last.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from wsss_lab.methods.common.base import Batch
from wsss_lab.methods.mix.config import MixConfig
from wsss_lab.methods.mix.network import MixNetwork, Outputs
from wsss_lab.registry import Registry


@dataclass(frozen=True)
class Lesson:
    """Labels beside those of the maps, for a share of the segmentation's loss."""

    labels: Int[Tensor, "b h w"]
    """0, `c + 1` or `IGNORE`."""
    share: float
    """Of the loss, [0, 1]; the labels of the maps have what is left."""
    weight: float = 1.0
    """Further factor of this lesson alone."""


@dataclass
class State:
    """One step, as far as it has come; a hook finds all that is filled above it.

    Everything that labels are made of is without gradient; `outputs` and `logits` have one.
    """

    step: int
    """0-based."""
    batch: Batch
    """As the loop gave it: `images` in 0..1, `tags`, perhaps `boxes` and more."""
    images: Float[Tensor, "b 3 h w"]
    """Normalised for the backbone."""
    valid: Bool[Tensor, "b h w"]
    """True at real pixels, False in the padding of a crop."""
    network: MixNetwork
    """The network in training."""
    outputs: Outputs
    """Its outputs for the images."""
    logits: Float[Tensor, "b k1 h w"]
    """Its segmentation at the size of the images, background first."""
    classes: Int[Tensor, "b m"]
    """Tagged classes, see `wsss_lab.cam.present_classes`."""
    present: Bool[Tensor, "b m"]
    """Which entries of `classes` are real; the others fill up the row."""
    maker: MixNetwork
    """The network whose maps and segmentation become labels."""
    maps: Float[Tensor, "b k h w"] = field(init=False)
    """Its maps of all classes, joined over scales and mirror images, each stretched to 0..1."""
    cam: Float[Tensor, "b m h w"] = field(init=False)
    """Those of the tagged classes, 0 where `present` is False: what labels are cut from."""
    low: Float[Tensor, ""] = field(init=False)
    """Maps up to here are background, 0..1."""
    high: Float[Tensor, ""] = field(init=False)
    """Maps above are the class, 0..1."""
    labels: Int[Tensor, "b h w"] = field(init=False)
    """0 background, `c + 1` class c, `IGNORE` in between and in padding."""
    weights: Float[Tensor, "b h w"] | None = None
    """Factor of every labelled pixel; None for 1."""
    lessons: list[Lesson] = field(default_factory=list)
    """Labels of other teachers."""

    @property
    def tags(self) -> Float[Tensor, "b k"]:
        """Tags of the images, 0 or 1."""
        return self.batch["tags"]

    @property
    def size(self) -> tuple[int, int]:
        """(h, w) of the images, px."""
        return self.images.shape[2], self.images.shape[3]


class Technique(nn.Module):
    """One technique: override the hooks that it needs.

    What lasts from step to step must be a parameter or a buffer; then a checkpoint holds it, and a
    killed run goes on as if nothing had happened.
    """

    factor: float = 1.0
    """Weight of its losses."""

    def maker(self, state: State) -> MixNetwork:
        """Choose the network that makes the labels."""
        return state.maker

    def maps(self, state: State) -> Float[Tensor, "b m h w"]:
        """Change the maps of the tagged classes before they become labels."""
        return state.cam

    def thresholds(self, state: State) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        """Choose the thresholds."""
        return state.low, state.high

    def labels(self, state: State) -> Int[Tensor, "b h w"]:
        """Change the labels."""
        return state.labels

    def weights(self, state: State) -> Float[Tensor, "b h w"] | None:
        """Weigh the labelled pixels."""
        return state.weights

    def lessons(self, state: State) -> list[Lesson]:
        """Add labels of other teachers; shares of all techniques sum to 1 at most."""
        return []

    def losses(self, state: State) -> dict[str, Float[Tensor, ""]]:
        """Add losses, unweighted."""
        return {}

    def facts(self, state: State) -> dict[str, Tensor]:
        """Name numbers for the log."""
        return {}

    def after_step(self, network: MixNetwork, step: int) -> None:
        """Follow the weights, after every update of them."""


Factory = Callable[[MixConfig, MixNetwork], Technique | None]
"""(settings, the network in training) -> the technique; None where the settings switch it off."""
TECHNIQUES: Registry[Factory] = Registry("technique", "wsss_lab.techniques")
"""Name -> factory, in the order in which a step calls them."""
OWN = ("slow", "refine", "search", "perplexity", "turns", "scd", "separation")
"""Techniques of the package; each has a group of settings of its name."""

for _name in OWN:
    TECHNIQUES.register(_name, f"wsss_lab.methods.mix.techniques:{_name}")
TECHNIQUES.close()


def register_technique(name: str, factory: Factory) -> None:
    """Make a technique of your own known to the setting `extra`.

    Args:
        name: a Python name; a second one of that name replaces the first.
        factory: makes the technique, in every run that names it.

    Raises:
        ValueError: it is no Python name, or this package has a technique of that name.
    """
    if not name.isidentifier() or hasattr(nn.ModuleDict, name):
        raise ValueError(f"name: expected a Python name such as mirror, got {name!r}")
    TECHNIQUES.register(name, factory)
