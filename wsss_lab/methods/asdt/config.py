"""Settings of ASDT, each with its unit and its source; presets; the arms of the ablation."""

from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

from wsss_lab.config import RunConfig
from wsss_lab.methods.asdt.signal import Selection, pulse_width
from wsss_lab.refine import DenseCRF

Distillation = Literal["hard", "hard_conf", "soft_kl"]
"""How teacher B's label teaches: all its pixels, its confident ones, or its probabilities."""

_CAM_CRF = DenseCRF.preset("asdt-cam")
_SEG_CRF = DenseCRF.preset("asdt-seg")


@dataclass(frozen=True)
class ASDTConfig:
    """Settings of the method; those of data and length lie elsewhere (`RUNS`)."""

    backbone: str = "wrn38"
    """Name for `build_backbone`."""
    optim: str = "asdt"
    """Name in `wsss_lab.train.optim.PRESETS`. The released momentum is 1e-5, and the weights of
    the losses were chosen with it."""
    hidden: int = 512
    """Channels inside a segmentation head; released code."""
    dilation: int = 12
    """Of both convolutions of a segmentation head; released code."""
    head_dropout: float = 0.5
    """Chance of dropping a channel before the tag classifier; released code."""
    background: bool = True
    """Whether label 0 is background. Without it label c is class c, as in COCO-Stuff's reading
    with 171 classes."""
    things: int = 80
    """Without background: classes below are things, the rest stuff; the loss averages each group
    for itself."""
    max_classes: int = 0
    """Largest number of classes per image in the teachers' labels (those with the strongest maps);
    0 for all. Bounds the cost of the CRF; ours."""

    selection: Selection = "pulse"
    """Who teaches the student."""
    period: int = 150
    """Of the pulse, steps; released code (T=150)."""
    duty: float = 1 / 6
    """Share of a period in which teacher B speaks; released code (N=6)."""
    phase: int = 0
    """Of the pulse, steps; released code."""
    warmup: int = 1000
    """Last step at which teacher A speaks in any case; released code."""
    invert: bool = False
    """Exchange the teachers after warm-up."""
    mix: float | None = None
    """Share of teacher B where both speak in every step; None takes the duty."""
    choice_seed: int = 0
    """Of the coins that replace the pulse in two arms."""

    kd: Distillation = "hard"
    """How teacher B teaches; hard labels stand in the released code's commented-out line."""
    kd_weight: float = 0.1
    """Of teacher B's loss; the same line."""
    kd_confidence: float = 0.8
    """Least probability of a pixel under "hard_conf" and "soft_kl"; as in teacher A's label."""
    temperature: float = 1.0
    """Of "soft_kl"; ours."""
    teacher_weight: float = 0.5
    """Of teacher B's own loss; released code."""
    student_weight: float = 0.5
    """Of the student's loss; released code."""
    pulse_dense: bool = True
    """Whether the student keeps its dense energy while teacher B speaks; the released code adds it
    just above the commented-out line."""

    scales: tuple[float, ...] = (1.0, 0.5, 1.5, 2.0)
    """Of teacher A's maps; the first must be 1. Released code."""
    cam_crf: DenseCRF = _CAM_CRF
    """Refines teacher A's maps."""
    seg_crf: DenseCRF = _SEG_CRF
    """Refines teacher B's probabilities, and the fused prediction."""
    exponents: tuple[float, float] = (4.0, 32.0)
    """Of the background score (1 - largest map value)^a: the small one makes foreground rare (its
    background is large), the large one makes background rare; released code."""
    top_from: float = 0.6
    """Share of a class's pixels, by map value, that is not sure; released code."""
    cam_floor: float = 0.1
    """Map values up to here are never sure; released code."""
    background_floor: float = 0.8
    """Background scores up to here are never sure; released code."""
    crf_floor: float = 0.8
    """Least probability after the CRF; released code."""
    energy_weight: float = 1e-7
    """Of the dense energy, a sum over pixels; released code."""
    energy_sigma_xy: float = 100.0
    """Width in positions, px; released code."""
    energy_sigma_rgb: float = 15.0
    """Width in colours, 0-255; released code."""

    pulse_in_loss: bool = True
    """Deviation 1."""
    aligned_crop: bool = True
    """Deviation 2."""
    ignore_padding: bool = True
    """Deviation 3."""
    tag_mask: bool = True
    """Deviation 4."""
    nan_on_empty: bool = False
    """Deviation 5, the other way round: True is the released code."""
    old_resize: bool = False
    """Deviation 6, the other way round: True is PyTorch 0.4.1."""
    truncate_images: bool = False
    """Deviation 7, the other way round: True is the released code."""
    cam_dropout: bool = True
    """Switch 8: teacher A's maps are made with dropout, as in the released code."""

    def __post_init__(self) -> None:
        pulse_width(self.period, self.duty)  # checks both
        for name, choices in (("selection", get_args(Selection)), ("kd", get_args(Distillation))):
            if getattr(self, name) not in choices:
                raise ValueError(f"{name}: expected one of {choices}, got {getattr(self, name)!r}")
        if not self.scales or self.scales[0] != 1:
            raise ValueError(f"scales: expected 1 first (the training pass), got {self.scales}")
        if self.mix is not None and not 0 <= self.mix <= 1:
            raise ValueError(f"mix: expected a share in [0, 1] or None, got {self.mix}")
        if self.temperature <= 0 or self.kd_weight < 0:
            raise ValueError(
                "temperature, kd_weight: expected above 0 and at least 0, got "
                f"{self.temperature} and {self.kd_weight}"
            )
        if self.selection == "images" and not self.pulse_dense:
            raise ValueError(
                "pulse_dense: expected True with selection='images', got False; the energy is not "
                "split by image"
            )

    @property
    def pulse(self) -> dict[str, Any]:
        """Arguments of `pulse_signal`."""
        names = ("period", "duty", "phase", "warmup", "invert")
        return {name: getattr(self, name) for name in names}


_VOC = ASDTConfig()
_STUFF = ASDTConfig(background=False, max_classes=16)
# 128 px instead of 321: the energy's width in px times 0.4, so its sum is 0.4^4 as large. The
# widths of the CRFs stay: on toy scenes they make teacher A more precise than scaled ones
_SMALL: dict[str, Any] = {
    "energy_sigma_xy": 40.0,
    "energy_weight": 4e-6,
    "dilation": 4,
    "warmup": 100,
    "period": 60,
}

PRESETS: dict[str, ASDTConfig] = {
    "voc-released": replace(
        _VOC,
        pulse_in_loss=False,
        aligned_crop=False,
        ignore_padding=False,
        tag_mask=False,
        nan_on_empty=True,
        old_resize=True,
        truncate_images=True,
    ),
    "voc": _VOC,
    "stuff10k": _STUFF,
    "stuff10k-things": replace(_STUFF, background=True),
    "small": ASDTConfig(backbone="resnet18", hidden=128, **_SMALL),
    "toy": ASDTConfig(backbone="toy_cnn", optim="small", hidden=64, **_SMALL),
}
"""Settings by name.

`voc-released` is the public script: it trains the student with teacher A only. `voc` is the paper's
mechanism as far as it can be rebuilt. `stuff10k` takes all 171 classes and no background,
`stuff10k-things` 80 classes and background; nothing is known of the paper's own setting. `small`
(2000 steps at 129 px) and `toy` (128 px) are ours, and their backbone can be any other.
"""

CLASSES = {"voc-released": 20, "voc": 20, "stuff10k": 171, "stuff10k-things": 80}
"""Number of tags that a preset expects."""

RUNS: dict[str, RunConfig] = {
    "voc-released": RunConfig(steps=20_001, batch=4, seed=42),
    "voc": RunConfig(steps=20_001, batch=4, seed=42),
    "stuff10k": RunConfig(steps=20_001, batch=4, seed=42),
    "stuff10k-things": RunConfig(steps=20_001, batch=4, seed=42),
    "small": RunConfig(steps=2000, batch=4),
    "toy": RunConfig(steps=2000, batch=8),
}
"""Length of a preset's run; crops are 321 px (released code), 129 px and 128 px (ours)."""

ARMS: dict[str, dict[str, Any]] = {
    "R0": {"selection": "none"},
    "R1": {"selection": "a"},
    "R2": {"selection": "b"},
    "R2-full": {"selection": "b", "kd_weight": 1.0},
    "R3": {"selection": "mix"},
    "R3-half": {"selection": "mix", "mix": 0.5},
    "R4": {"selection": "soft_mean"},
    "R4-agree": {"selection": "agreement"},
    "R5": {"selection": "bernoulli"},
    "R6": {"selection": "blocks"},
    "R7": {"selection": "images"},
    "R8": {"selection": "pulse"},
    "R9": {"selection": "pulse", "invert": True},
    "R10": {"selection": "pulse", "kd_weight": 0.0, "pulse_dense": False},
    "R10-dense": {"selection": "pulse", "kd_weight": 0.0},
    "R11": {"selection": "pulse", "kd_weight": 1.0},
}
"""The ablation "does alternating beat any static use of the same two teachers?", as changes.

R0 no student; R1 teacher A only, which is what the released code trains; R2 teacher B only; R3 both
losses in every step with the pulse's expected weights; R4 both teachers' mean, or agreement; R5 a
coin per step; R6 a coin per block; R7 by image; **R8 ASDT**; R9 teachers exchanged; R10 nothing
instead of teacher B (is less supervision enough?); R11 teacher B with full weight.
"""


def arm(name: str, base: ASDTConfig) -> ASDTConfig:
    """Settings of one arm: `base` with the arm's changes."""
    if name not in ARMS:
        raise ValueError(f"name: expected one of {', '.join(ARMS)}, got {name!r}")
    return replace(base, **ARMS[name])
