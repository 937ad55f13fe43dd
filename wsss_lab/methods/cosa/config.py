"""Settings of CoSA, each with its unit and its source, and the presets."""

from dataclasses import dataclass, field, replace
from typing import Any, Literal

from wsss_lab.ema import Search


@dataclass(frozen=True)
class LossWeights:
    """Factors of the terms after warm-up; the two tag losses weigh 1."""

    seg: float = 0.1
    """CAM to segmentation; released code and log."""
    cam: float = 0.05
    """Segmentation to CAM; released code and log."""
    energy: float = 0.05
    """Dense energy; released code and log."""
    separation: float = 0.05
    """Contrastive separation; ours, like the CAM term. Counts only if `separation` is on."""


@dataclass(frozen=True)
class CoSAConfig:
    """Settings of the method; those of data and optimiser lie elsewhere."""

    backbone: str = "vit_b16"
    """Name for `build_backbone`."""
    aux_level: int = -3
    """Block that the auxiliary classifier reads; -3 in the logs, -4 in the script of 2024-07."""
    hidden: int = 512
    """Channels of the segmentation head; released code."""
    decay: float = 0.9994
    """What the teacher keeps per step; released code."""
    warmup: int = 6000
    """Last step without the swapped losses; 6000 VOC, 10000 COCO, released scripts."""
    scales: tuple[float, ...] = (1.0, 0.5, 1.5)
    """Views of the teacher, each with its mirror image; released code."""
    low: float = 0.20
    """CAM up to here is background; 0.20 in the VOC log, 0.25 in the script and for COCO."""
    high: float = 0.70
    """CAM above here is the class; 0.70 VOC, 0.65 COCO."""
    aux_low: float = 0.25
    """As `low`, for the auxiliary maps; released code."""
    aux_high: float = 0.70
    """As `high`, for the auxiliary maps; released code."""
    temperature: float = 0.01
    """Of the segmentation pseudo-label; released code."""
    weights: LossWeights = field(default_factory=LossWeights)
    """Loss weights."""
    aux_last_scale: bool = False
    """Deviation 1."""
    cam_floor: bool = False
    """Deviation 2."""
    independent_start: bool = False
    """Deviation 3."""
    perplexity: bool = True
    """Deviation 4."""
    alpha: float = 0.8
    """Of the perplexity, in (0, 1); ours."""
    beta: float = 1.0
    """Of the perplexity, at least 1; an unread setting of the released code has this value."""
    separation: Literal["none", "margin", "infonce"] = "infonce"
    """Deviation 5."""
    search: Literal["none"] | Search = "split"
    """Deviation 6: `bands` is the released option, the others find one threshold."""
    queue_rows: int = 200
    """Images in the queue of the search; released: 100 times the batch of a device."""
    queue_grid: tuple[int, int] = (28, 28)
    """Values per image in the queue; released code."""
    queue_start: Literal["uniform", "empty"] = "empty"
    """Deviation 11."""
    queue_shared: bool = True
    """Deviation 12."""
    mask_padding: bool = True
    """Deviation 7."""
    energy_view: Literal["strong", "weak"] = "weak"
    """Deviation 8."""
    skip_warmup: bool = True
    """Deviation 9."""
    decay_all: bool = False
    """Deviation 10."""

    def __post_init__(self) -> None:
        for name, low, high in (
            ("low, high", self.low, self.high),
            ("aux_low, aux_high", self.aux_low, self.aux_high),
        ):
            if not 0 < low <= high < 1:
                raise ValueError(f"{name} must satisfy 0 < low <= high < 1, got {low} and {high}")
        if self.separation not in ("none", "margin", "infonce"):
            raise ValueError(
                f"separation must be 'none', 'margin' or 'infonce', got {self.separation!r}"
            )
        if self.energy_view not in ("strong", "weak"):
            raise ValueError(f"energy_view must be 'strong' or 'weak', got {self.energy_view!r}")


_RELEASED: dict[str, Any] = {
    "aux_last_scale": True,
    "cam_floor": True,
    "independent_start": True,
    "perplexity": False,
    "separation": "none",
    "search": "none",
    "queue_start": "uniform",
    "queue_shared": False,
    "mask_padding": False,
    "energy_view": "strong",
    "skip_warmup": False,
    "decay_all": True,
}
_VOC = CoSAConfig()
_COCO = CoSAConfig(warmup=10_000, low=0.25, high=0.65, queue_rows=400)
PRESETS: dict[str, CoSAConfig] = {
    "voc-released": replace(_VOC, **_RELEASED),
    "coco-released": replace(_COCO, **_RELEASED),
    "voc": _VOC,
    "coco": _COCO,
    "toy": CoSAConfig(
        backbone="toy_cnn",
        hidden=128,
        decay=0.99,
        warmup=150,
        queue_rows=640,
        queue_grid=(16, 16),
    ),
}
"""Settings by name; `toy` is ours, for runs of some hundred steps. It takes the convolutional
network, because class maps read from the patch tokens of `toy_vit` hardly say where a class is."""
