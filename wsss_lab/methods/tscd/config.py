"""Settings of TSCD, each with its unit and its source, and the presets."""

from dataclasses import dataclass, field, replace
from typing import Any, Literal

BnUpdates = Literal["all", "main"]
Points = Literal["all", "tagged", "background"]
Refiner = Literal["varm", "par", "none"]


@dataclass(frozen=True)
class LossWeights:
    """Factors of the terms after warm-up; the tag loss weighs 1. All from the released code."""

    seg: float = 0.1
    """Refined labels to segmentation."""
    energy: float = 0.01
    """Dense energy, which has 1e-7 inside already."""
    affinity: float = 0.1
    """Affinity head; the released code calls it auxiliary."""
    scd: float = 0.1
    """Self correspondence distillation."""
    er: float = 0.1
    """The inert term; counts only with deviation 4."""


@dataclass(frozen=True)
class TSCDConfig:
    """Settings of the method; those of data and optimiser lie elsewhere."""

    backbone: str = "mit_b1"
    """Name for `build_backbone`; the paper's is MiT-B1."""
    drop_path: float = 0.1
    """Largest rate of stochastic depth; released code."""
    hidden: int = 256
    """Channels of the decoder; released code."""
    crop: int = 512
    """Deviation 8. Side of the crops, px, for the settings of the data; the step takes any size."""
    warmup: int = 2000
    """Last step (from 0) with the tag loss alone; 2000 VOC, 5000 COCO (AFA), released code."""
    scales: tuple[float, ...] = (1.0, 0.5, 1.5)
    """Views that maps are read from, each with its mirror image; released code."""
    view_scale: float = 0.3
    """Side of the second view, relative to the image; released code."""
    view_crop: float = 1.0
    """Deviation 12."""
    points: int = 40
    """Points per axis: 40 * 40 random ones per view; released code."""
    paired: bool = False
    """Deviation 11."""
    scd_classes: Points = "all"
    """Deviation 10."""
    low: float = 0.35
    """Maps weaker than this score are background; released code."""
    high: float = 0.55
    """Maps stronger than this score are the class; released code."""
    refiner: Refiner = "varm"
    """VARM, PAR (AFA) or nothing."""
    refine_iterations: int = 10
    """Turns of the refiner; released code, also on COCO (AFA: 15)."""
    radius: int = 8
    """Reach of the affinity loss, cells of 16 px, in rows and in columns; released code."""
    weights: LossWeights = field(default_factory=LossWeights)
    """Loss weights."""
    decoder_in_cam: bool = False
    """Deviation 1."""
    bn_updates: BnUpdates = "main"
    """Deviation 2."""
    noisy_cam: bool = False
    """Deviation 3."""
    inert_er: bool = False
    """Deviation 4."""
    truncate_colours: bool = False
    """Deviation 5."""
    symmetric_affinity: bool = True
    """Deviation 6."""
    nan_when_missing: bool = False
    """Deviation 7."""
    mask_padding: bool = True
    """Deviation 9."""
    skip_warmup: bool = True
    """Deviation 13."""
    decay_all: bool = False
    """Deviation 14."""
    share_pass: bool = True
    """Deviation 15."""
    freeze_norms: bool = True
    """The encoder's normalisation layers stay as they are (learning rate 0). So in the released
    code, and kept: all of its numbers were reached with it."""

    def __post_init__(self) -> None:
        if not 0 < self.low <= self.high < 1:
            raise ValueError(
                f"low, high must satisfy 0 < low <= high < 1, got {self.low} and {self.high}"
            )
        for name in ("view_scale", "view_crop"):
            if not 0 < getattr(self, name) <= 1:
                raise ValueError(f"{name} must be in (0, 1], got {getattr(self, name)}")
        if self.points < 1 or self.radius < 0:
            raise ValueError(
                "points must be 1 or more and radius 0 or more, got "
                f"{self.points} and {self.radius}"
            )
        if self.share_pass and self.decoder_in_cam:
            raise ValueError(
                "share_pass and decoder_in_cam exclude each other: a pass that is spared cannot "
                "leave its mark; set one of them to False"
            )
        for name, known in (
            ("scd_classes", ("all", "tagged", "background")),
            ("refiner", ("varm", "par", "none")),
            ("bn_updates", ("all", "main")),
        ):
            if getattr(self, name) not in known:
                raise ValueError(f"{name} must be one of {known}, got {getattr(self, name)!r}")


_RELEASED: dict[str, Any] = {
    "decoder_in_cam": True,
    "bn_updates": "all",
    "noisy_cam": True,
    "inert_er": True,
    "truncate_colours": True,
    "symmetric_affinity": False,
    "nan_when_missing": True,
    "mask_padding": False,
    "skip_warmup": False,
    "decay_all": True,
    "share_pass": False,
}
_VOC = TSCDConfig()
_COCO = TSCDConfig(warmup=5000)
PRESETS: dict[str, TSCDConfig] = {
    "voc-released": replace(_VOC, crop=320, **_RELEASED),
    "coco-released": replace(_COCO, **_RELEASED),
    "voc": _VOC,
    "coco": _COCO,
    "toy": TSCDConfig(
        backbone="toy_mit",
        drop_path=0.0,
        hidden=64,
        crop=128,
        warmup=150,
        view_scale=0.5,
        points=16,
        freeze_norms=False,
    ),
}
"""Settings by name; `toy` is ours, for runs of some hundred steps.

The crop of `voc-released` is what the shipped launcher runs: a missing line continuation drops its
`--crop_size 512`, and 320 is the default. COCO's launcher passes 512."""
