"""Settings of CoSA, each with its unit and its source, and the presets."""

from dataclasses import dataclass, field, fields, replace
from typing import Annotated, Literal

from wsss_lab.config import OptimConfig
from wsss_lab.ranges import Count, Factor, Positive, Range, Scales, Settings, Share, require_order

Score = Annotated[float, Range("(0, 1)")]
"""A score that leaves room on both sides."""
Search = Literal["bands", "mixture", "split"]
"""Ways to search a threshold, see `wsss_lab.methods.cosa.threshold.ThresholdSearch`."""


@dataclass(frozen=True)
class CoSAQuirks(Settings):
    """Behaviour of the released code that we would not choose: False is ours, True as released."""

    aux_last_scale: bool = False
    """Auxiliary maps are those of the last scale alone, because a list is overwritten at every
    scale: they, and the labels made from them, are finer and noisier than sums over all scales."""
    cam_floor: bool = False
    """Maps pass a ReLU before their sigmoid cross-entropy: an empty cell costs ln 2 or more, and a
    map below 0 gets no gradient."""
    independent_start: bool = False
    """The teacher's heads start as other random draws than the student's, of which 2.7 % are left
    after 6000 steps; otherwise the teacher starts as a copy."""
    use_padding: bool = False
    """Padding takes part in the minimum and maximum that normalise maps, and in the loss of the
    maps, where it counts as cells without any class."""
    energy_on_strong: bool = False
    """The dense energy follows the colours of the strong view, solarised and posterised as they
    are, instead of those of the weak view."""
    full_warmup: bool = False
    """Steps of the warm-up run the teacher and compute all losses with weight 0: the same weights
    for the time of a full step, but a threshold search already follows the maps."""
    decay_all: bool = False
    """Norms, biases and the class token have weight decay, too."""
    random_queue: bool = False
    """The queue of the threshold search starts with random numbers in [0, 1) instead of empty, so
    that the first thresholds are those of noise."""
    queue_per_process: bool = False
    """Every process searches its thresholds in a queue of its own images, so that processes label
    by different thresholds; otherwise all processes fill one queue."""


RELEASED = CoSAQuirks(*(True for _ in fields(CoSAQuirks)))
"""All quirks of the released code."""


@dataclass(frozen=True)
class LossWeights(Settings):
    """Factors of the terms after warm-up; the two tag losses weigh 1."""

    seg: Factor = 0.1
    """CAM to segmentation; released code and log."""
    cam: Factor = 0.05
    """Segmentation to CAM; released code and log."""
    energy: Factor = 0.05
    """Dense energy; released code and log."""
    separation: Factor = 0.05
    """Contrastive separation; ours, like the CAM term. Counts only if `separation` is on."""


@dataclass(frozen=True)
class CoSAConfig(Settings):
    """Settings of the method; those of data and optimiser lie elsewhere."""

    backbone: str = "vit_b16"
    """Name for `build_backbone`; the paper's is ViT-B/16."""
    aux_level: Annotated[int, Range("[-1000, 1000]")] = -3
    """Block that the auxiliary classifier reads; -3 in the logs, -4 in the script of 2024-07."""
    hidden: Annotated[int, Range("[1, 65536]")] = 512
    """Channels of the segmentation head; released code."""
    decay: Share = 0.9994
    """Momentum of the teacher: share of its weights that a step keeps, 0..1; released code. The
    name is that of the declared study `cosa`."""
    warmup: Annotated[int, Range("[-1, inf)")] = 6000
    """Last step (from 0) with the tag losses alone; 6000 VOC, 10000 COCO, released scripts."""
    scales: Scales = (1.0, 0.5, 1.5)
    """Sizes at which the teacher sees the image, relative to it, each with its mirror image;
    released code."""
    low: Score = 0.20
    """Maps up to this score, 0..1, are background; 0.20 in the VOC log, 0.25 in the script and for
    COCO. With `search`, where the search starts."""
    high: Score = 0.70
    """Maps above this score, 0..1, are the class; 0.70 VOC, 0.65 COCO. With `search`, where the
    search starts."""
    aux_low: Score = 0.25
    """As `low`, for the auxiliary maps; released code."""
    aux_high: Score = 0.70
    """As `high`, for the auxiliary maps; released code."""
    temperature: Positive = 0.01
    """Temperature of the segmentation pseudo-label, above 0; released code."""
    weights: LossWeights = field(default_factory=LossWeights)
    """Loss weights."""
    perplexity: bool = True
    """Weight labelled pixels by the certainty of their map, see `perplexity_weights`. In the paper;
    absent in the released code; ours is a reconstruction."""
    alpha: Score = 0.8
    """Factor inside the perplexity's logarithm, in (0, 1). Inferred from the paper's figure of
    accuracy over 1 / P, together with `beta`."""
    beta: Annotated[float, Range("[1, inf)")] = 1.5
    """Exponent of the perplexity, at least 1. Inferred from the same figure, whose curve 0.8 and
    1.5 meet within its rounding; 1, the value of an unread setting of the released code, leaves
    half of its axis empty."""
    certainty: Literal["exp", "inverse"] = "inverse"
    """Weight of a pixel of perplexity P: 1 / P, or exp(1 / P). Both are reconstructions: 1 / P is
    the quantity that the paper's figure draws; how it becomes a weight is not known. With the
    inferred constants the exponential puts half of the foreground's weight on 2 % of its pixels,
    1 / P on 21 %."""
    separation: Literal["none", "margin", "infonce"] = "infonce"
    """Form of the contrastive separation of the student's maps, see `separation_margin` and
    `separation_infonce`. In the paper; absent in the released code; both forms are ours."""
    search: Literal["none"] | Search = "split"
    """Search of the thresholds. `split` and `mixture` find one, and no pixel is ignored, which is
    the form in the paper's figures (about 0.45 there, where ours starts, too); which estimator the
    paper uses is not known, and `split` is ours. `bands` finds two with a band between them and is
    the released option, off in its logs; `none` keeps `low` and `high`, which may be equal."""
    queue_rows: Count = 200
    """Images in the queue of the search; released: 100 times the batch of a device."""
    queue_grid: Annotated[tuple[int, int], Range("[1, 4096]")] = (28, 28)
    """Rows and columns of values that an image has in the queue; released code."""
    quirks: CoSAQuirks = field(default_factory=CoSAQuirks)
    """Behaviour of the released code; all off by default, all on in presets `-released`."""

    def require(self) -> None:
        """Refuse bands whose ends are exchanged."""
        require_order(self, "low", "high")
        require_order(self, "aux_low", "aux_high")


def _as_released(config: CoSAConfig) -> CoSAConfig:
    """Switch off the techniques that the released runs lack, and all quirks on."""
    off = replace(config, perplexity=False, separation="none", search="none", quirks=RELEASED)
    return replace(off, beta=1.0, certainty="exp")  # not read; as these presets always were


OPTIM = OptimConfig(
    lr=6e-5,
    head_lr_factor=10.0,
    weight_decay=0.01,
    schedule="poly",
    power=0.9,
    warmup=1500,
    warmup_start=1e-6,
    decay_from="start",
    clip=0.0,
)
"""Optimiser of the released scripts. The rate drops when the warm-up ends, because the decay is
counted from step 0. Norms are trained like the rest; the rates of single parts are in
`param_groups`."""
_VOC = CoSAConfig()
_COCO = CoSAConfig(warmup=10_000, low=0.25, high=0.65, queue_rows=400)
_TOY = CoSAConfig(
    backbone="toy_cnn",
    hidden=128,
    decay=0.99,
    warmup=150,
    queue_rows=640,
    queue_grid=(16, 16),
)
PRESETS: dict[str, CoSAConfig] = {
    "voc-released": _as_released(_VOC),
    "coco-released": _as_released(_COCO),
    "voc": _VOC,
    "coco": _COCO,
    # a run of a tenth of the length: the teacher and the queue remember about ten steps
    "tiny": replace(_TOY, warmup=0, scales=(1.0,), decay=0.9, queue_rows=80),
    "toy": _TOY,
    "voc-mini": CoSAConfig(
        backbone="lite0",
        hidden=128,
        decay=0.99,
        warmup=500,
        queue_rows=640,
        queue_grid=(14, 14),
    ),
}
"""Settings by name; `tiny`, `toy` and `voc-mini` are ours, for short runs. They take a
convolutional network: after a warm-up its class maps have 38 mIoU, those read from the patch tokens
of `toy_vit` 14; see `wsss_lab.recipes.cosa.WARM_UPS`."""
