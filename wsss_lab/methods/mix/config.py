"""Settings of the common base and of the techniques on it, each with its unit and its source.

A technique is a group of settings and off by default. Its numbers are those of its paper's preset.
"""

from dataclasses import dataclass, field
from typing import Annotated, Literal

from wsss_lab.ranges import (
    Count,
    Factor,
    Positive,
    Range,
    Scales,
    SettingError,
    Settings,
    Share,
    require_order,
)

Score = Annotated[float, Range("(0, 1)")]
"""A score that leaves room on both sides."""


@dataclass(frozen=True)
class SlowConfig(Settings):
    """A slow copy of the network makes the labels; after CoSA."""

    decay: Annotated[float, Range("[0, 1)")] = 0.0
    """Share of its weights that a step keeps; 0 is off: the trained network makes the labels."""


@dataclass(frozen=True)
class RefineConfig(Settings):
    """Class maps take the edges of the image before they become labels; after AFA and TSCD."""

    kind: Literal["none", "par", "varm"] = "none"
    """`par` (AFA) or `varm` (TSCD); `none` is off."""
    iterations: Count = 10
    """Iterations; TSCD's released code."""


@dataclass(frozen=True)
class SearchConfig(Settings):
    """The thresholds follow the maps; after CoSA, see `wsss_lab.methods.cosa.threshold`."""

    how: Literal["none", "bands", "mixture", "split"] = "none"
    """Kind of search; `none` is off: `low` and `high` stay. Otherwise the search starts there."""
    queue_rows: Count = 640
    """Images whose map values are searched; as CoSA's preset `toy`."""
    queue_grid: Annotated[tuple[int, int], Range("[1, 4096]")] = (16, 16)
    """Rows and columns of values of an image; as CoSA's preset `toy`."""
    momentum: Share = 0.99
    """Share of the old thresholds that a step keeps; CoSA's released code."""


@dataclass(frozen=True)
class PerplexityConfig(Settings):
    """Labelled pixels weigh by the certainty of their map; after CoSA, a reconstruction."""

    on: bool = False
    """Whether they do."""
    alpha: Score = 0.8
    """Factor inside the logarithm; as CoSA's presets."""
    beta: Annotated[float, Range("[1, inf)")] = 1.5
    """Exponent; as CoSA's presets."""
    certainty: Literal["exp", "inverse"] = "inverse"
    """Weight of a pixel; as CoSA's presets."""


@dataclass(frozen=True)
class TurnsConfig(Settings):
    """The maps and the refined segmentation teach in turns; after ASDT, with one head.

    Teacher A is the label of the maps, teacher B the network's own segmentation, refined. In ASDT
    another head than the one that learns is teacher B.
    """

    signal: Literal["a", "pulse", "mix", "bernoulli", "blocks"] = "a"
    """Who teaches when, see `wsss_lab.methods.asdt.signal.Selection`; `a`, always the maps, is off.
    """
    labels: Literal["par", "crf"] = "par"
    """Refinement of teacher B's labels: PAR, which is quick, or ASDT's dense CRF."""
    period: Count = 60
    """Period of the signal, steps; as ASDT's preset `toy`."""
    duty: Annotated[float, Range("[0, 1]", hint="a duty of 1/6 is 0.1667, not 6")] = 1 / 6
    """Share of teacher B, [0, 1]; ASDT's released code."""
    mix: Share | None = None
    """Share of teacher B in every step under `mix`, [0, 1]; None takes the duty."""
    weight: Factor = 0.1
    """Weight of teacher B's lesson; ASDT's released code, in a line that is commented out there."""

    def require(self) -> None:
        """Refuse a share that no signal reads."""
        if self.mix is not None and self.signal != "mix":
            raise SettingError(
                ["mix"],
                f"expected None with signal={self.signal!r}, got {self.mix}; only signal='mix' "
                "reads it, the others take duty",
            )


@dataclass(frozen=True)
class SCDConfig(Settings):
    """Self correspondence distillation; after TSCD."""

    weight: Factor = 0.0
    """Weight of the loss; 0 is off. TSCD's released code: 0.1."""
    view_scale: Annotated[float, Range("(0, 1]")] = 0.5
    """Side of the second view, relative to the image; as TSCD's preset `toy`."""
    points: Annotated[int, Range("[1, 4096]")] = 16
    """Points per axis and view; as TSCD's preset `toy`."""
    classes: Literal["all", "tagged", "background"] = "all"
    """Maps that correspond, see `wsss_lab.methods.tscd.labels.scd_channels`; released code."""
    level: bool = True
    """Add the mean correspondence back; released code."""
    shift: Factor = 0.0
    """Constant subtracted from the correspondence; released code has none."""


@dataclass(frozen=True)
class SeparationConfig(Settings):
    """Maps separate sure foreground from sure background; after CoSA, reconstructions."""

    form: Literal["none", "margin", "infonce"] = "none"
    """Form of the loss, see `wsss_lab.methods.cosa.losses`; `none` is off."""
    weight: Positive = 0.05
    """Weight of the loss; as CoSA's presets."""


@dataclass(frozen=True)
class LossWeights(Settings):
    """Factors of the base's own losses after the warm-up; the tag loss weighs 1."""

    seg: Positive = 0.1
    """Segmentation against the labels; TSCD and CoSA, released codes."""
    energy: Factor = 0.0
    """Dense energy, which has 1e-7 inside already; 0 is off. TSCD 0.01, CoSA 0.05."""


@dataclass(frozen=True)
class MixConfig(Settings):
    """The base, and one group of settings per technique.

    All-pairs consistency (ACR) is `acr.alpha` of the run, as for every method of one stage.
    """

    backbone: str = "toy_mit2"
    """Name for `build_backbone`; with two maps or more."""
    pool: Literal["gap", "gmp"] = "gmp"
    """How the tag classifier pools; TSCD and CoSA: maximum."""
    hidden: Annotated[int, Range("[1, 65536]")] = 64
    """Channels of the decoder; as TSCD's preset `toy`."""
    warmup: Annotated[int, Range("[-1, inf)")] = 150
    """Last step (from 0) with the tag loss alone; as TSCD's preset `toy`."""
    scales: Scales = (1.0, 0.5, 1.5)
    """Sizes at which maps are read, relative to the image, each with its mirror image; TSCD and
    CoSA, released codes."""
    low: Score = 0.35
    """Maps up to this score are background, 0..1; TSCD's released code."""
    high: Score = 0.55
    """Maps above this score are the class, 0..1, pixels between are ignored; the same."""
    weights: LossWeights = field(default_factory=LossWeights)
    """Weights of the base's losses."""
    slow: SlowConfig = field(default_factory=SlowConfig)
    """Slow network."""
    refine: RefineConfig = field(default_factory=RefineConfig)
    """Refinement of the maps."""
    search: SearchConfig = field(default_factory=SearchConfig)
    """Searched thresholds."""
    perplexity: PerplexityConfig = field(default_factory=PerplexityConfig)
    """Perplexity weights."""
    turns: TurnsConfig = field(default_factory=TurnsConfig)
    """Turns of teachers."""
    scd: SCDConfig = field(default_factory=SCDConfig)
    """Self correspondence distillation."""
    separation: SeparationConfig = field(default_factory=SeparationConfig)
    """Separation."""
    extra: tuple[str, ...] | None = None
    """Techniques of your own by name, in this order, after all others; see `register_technique`."""

    def require(self) -> None:
        """Refuse a band whose ends are exchanged, and a technique that is named twice."""
        require_order(self, "low", "high")
        names = self.extra or ()
        if len(set(names)) < len(names):
            raise SettingError(["extra"], f"expected every technique once, got {names}")

    @property
    def view_scale(self) -> float:
        """Side of the smallest view beside the image, relative to it."""
        return self.scd.view_scale if self.scd.weight > 0 else 1.0


PRESETS: dict[str, MixConfig] = {
    "tiny": MixConfig(warmup=0, scales=(1.0,)),
    "toy": MixConfig(),
}
"""Settings by name: the base alone. Every number is another preset's; none was tuned here."""
