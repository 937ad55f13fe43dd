"""Settings of TSCD, each with its unit and its source, and the presets."""

from dataclasses import dataclass, field, fields, replace
from typing import Annotated, Literal

from wsss_lab.config import OptimConfig
from wsss_lab.ranges import (
    Factor,
    Pixels,
    Range,
    Scales,
    SettingError,
    Settings,
    Whole,
    require_order,
)

ScdClasses = Literal["all", "tagged", "background"]
Refiner = Literal["varm", "par", "none"]


@dataclass(frozen=True)
class TSCDQuirks(Settings):
    """Behaviour of the released code that we would not choose: False is ours, True as released."""

    decoder_in_cam: bool = False
    """The decoder runs in train mode in passes that only read maps, too: six more updates of its
    running statistics per step, by images of 0.15 to 1.5 of the size; needs `extra_pass`."""
    bn_from_view: bool = False
    """The decoder's running statistics are also updated by the second view; with `decoder_in_cam`
    60 % of their weight is on images of 0.45 of the size or less, of which evaluation has none."""
    noisy_cam: bool = False
    """Stochastic depth stays on while maps are made, so that two calls give different maps."""
    inert_er: bool = False
    """The mean difference of both views' maps is added to the loss; without gradient, so only the
    logged number changes."""
    truncate_colours: bool = False
    """Labels are refined by an image whose grey levels are cut off after rounding errors: about 1 %
    of the values are one level darker."""
    one_sided_affinity: bool = False
    """The affinity is that of the attention alone, not of it plus its transpose (AFA): pairs (i, j)
    and (j, i) differ, although their label is the same."""
    nan_when_missing: bool = False
    """The segmentation loss of a batch without foreground or without background pixels is NaN, even
    in warm-up where its weight is 0; otherwise the missing half counts 0."""
    use_padding: bool = False
    """Padding takes part in the minimum and maximum that normalise maps, and points of the SCD loss
    are drawn in it."""
    full_warmup: bool = False
    """Steps of the warm-up compute all losses and multiply all but the tag loss by 0: the same
    gradients for the time of a full step, but the decoder's running statistics are updated."""
    decay_all: bool = False
    """Biases and the decoder's norm have weight decay, too."""
    extra_pass: bool = False
    """Maps of both views at scale 1 come from one more pass each instead of the pass that is
    trained, which takes longer; with stochastic depth the two passes differ."""


RELEASED = TSCDQuirks(*(True for _ in fields(TSCDQuirks)))
"""All quirks of the released code."""


@dataclass(frozen=True)
class LossWeights(Settings):
    """Factors of the losses after warm-up; the tag loss weighs 1. All from the released code."""

    seg: Factor = 0.1
    """Cross-entropy of the segmentation with the refined labels."""
    energy: Factor = 0.01
    """Dense energy, which has 1e-7 inside already."""
    affinity: Factor = 0.1
    """Affinity head; the released code calls it auxiliary."""
    scd: Factor = 0.1
    """Self correspondence distillation."""
    er: Factor = 0.1
    """Difference of both views' maps; counts only with `quirks.inert_er`."""


@dataclass(frozen=True)
class TSCDConfig(Settings):
    """Settings of the method; those of data and optimiser lie elsewhere."""

    backbone: str = "mit_b1"
    """Name for `build_backbone`; the paper's is MiT-B1."""
    drop_path: Annotated[float, Range("[0, 1)")] = 0.1
    """Largest rate of stochastic depth; released code."""
    hidden: Annotated[int, Range("[1, 65536]")] = 256
    """Channels of the decoder; released code."""
    crop: Pixels = 512
    """Side of the crops, px, for the settings of the data (the step takes any size). 512 is the
    author's value; `voc-released` has 320, which the shipped launcher runs."""
    warmup: Annotated[int, Range("[-1, inf)")] = 2000
    """Last step (from 0) with the tag loss alone; 2000 VOC, 5000 COCO (AFA), released code."""
    scales: Scales = (1.0, 0.5, 1.5)
    """Sizes at which maps are read, relative to the image, each with its mirror image; released
    code."""
    view_scale: Annotated[float, Range("(0, 1]")] = 0.3
    """Side of the second view, relative to the image; released code."""
    view_crop: Annotated[float, Range("(0, 1]")] = 1.0
    """Side of a random window of the image that the second view shows, relative to the image. 1 is
    all of it, as in the released code; smaller ones are for studies."""
    view_turn: Annotated[float, Range("[0, 180]")] = 0.0
    """Largest angle in degrees, either way, by which that window is turned; with it the second view
    is an affine one, as in the paper. 0, no turn, in the released code. A turned window is reduced
    until it lies inside the image."""
    points: Annotated[int, Range("[1, 4096]")] = 40
    """Points per axis: 40 * 40 random ones per view; released code."""
    paired: bool = False
    """The points of both views are the same places. Off as in the released code; for studies."""
    scd_classes: ScdClasses = "all"
    """Maps that the correspondence is made of: `all` classes, each stretched to 0..1, as in the
    released code; `tagged` ones, or these with a `background`, are for studies."""
    scd_level: bool = True
    """Add the mean correspondence back after the rows lost theirs; released code, and STEGO.
    Without it the loss attracts and repels by equal amounts; for studies."""
    scd_shift: Factor = 0.0
    """Constant that is subtracted from the correspondence afterwards, 0 or more: STEGO's b. The
    released code has none; for studies."""
    low: Annotated[float, Range("(0, 1)")] = 0.35
    """Maps weaker than this score are background, 0..1; released code."""
    high: Annotated[float, Range("(0, 1)")] = 0.55
    """Maps stronger than this score are the class, 0..1; released code."""
    refiner: Refiner = "varm"
    """VARM, PAR (AFA) or nothing."""
    refine_iterations: Whole = 10
    """Iterations of the refiner; released code, also on COCO (AFA: 15)."""
    radius: Whole = 8
    """Reach of the affinity loss, cells of 16 px, in rows and in columns; released code."""
    weights: LossWeights = field(default_factory=LossWeights)
    """Loss weights."""
    freeze_norms: bool = True
    """The encoder's normalisation layers stay as they are (learning rate 0). So in the released
    code, and kept: all of its numbers were reached with it."""
    quirks: TSCDQuirks = field(default_factory=TSCDQuirks)
    """Behaviour of the released code; all off by default, all on in presets `-released`."""

    def require(self) -> None:
        """Refuse a band whose ends are exchanged, and statistics of a pass that is spared."""
        require_order(self, "low", "high")
        if self.quirks.decoder_in_cam and not self.quirks.extra_pass:
            raise SettingError(
                ["quirks.decoder_in_cam"],
                "needs quirks.extra_pass, got True and False: a pass that is spared cannot update "
                "statistics; set both or none",
            )


OPTIM = OptimConfig(
    lr=6e-5,
    head_lr_factor=10.0,
    weight_decay=0.01,
    schedule="poly",
    power=1.0,
    warmup=1500,
    warmup_start=1e-6,
    decay_from="start",
    clip=0.0,
)
"""Optimiser of the released scripts. The rate drops when the warm-up ends, because the decay is
counted from step 0. Frozen norms and rates of single parts are in `param_groups`."""
_VOC = TSCDConfig()
_COCO = TSCDConfig(warmup=5000)
_TOY = TSCDConfig(
    backbone="toy_mit2",
    drop_path=0.0,
    hidden=64,
    crop=128,
    warmup=150,
    view_scale=0.5,
    points=16,
    freeze_norms=False,
)
PRESETS: dict[str, TSCDConfig] = {
    "voc-released": replace(_VOC, crop=320, quirks=RELEASED),
    "coco-released": replace(_COCO, quirks=RELEASED),
    "voc": _VOC,
    "coco": _COCO,
    "tiny": replace(_TOY, warmup=0, scales=(1.0,)),
    "toy": _TOY,
    # 14 x 14 cells instead of 32 x 32: half the reach of the affinity, a quarter of the points.
    # Maps at 1.5 of the size would take three quarters of the time of all maps. The band is that of
    # wsss_lab.studies.photos.label_bands
    "voc-mini": TSCDConfig(
        backbone="lite0_vit",
        drop_path=0.0,
        hidden=128,
        crop=224,
        warmup=600,
        scales=(1.0, 0.5),
        low=0.5,
        high=0.7,
        view_scale=0.5,
        points=20,
        radius=4,
        freeze_norms=False,
    ),
}
"""Settings by name; `tiny`, `toy` and `voc-mini` are ours, for short runs.

The crop of `voc-released` is what the shipped launcher runs: a missing line continuation drops its
`--crop_size 512`, and 320 is the default. COCO's launcher passes 512."""
