"""Settings of ASDT, quirks of its released code, and presets."""

from dataclasses import dataclass, replace
from typing import Annotated, Literal

from wsss_lab.config import OptimConfig, RunConfig
from wsss_lab.methods.asdt.signal import Selection, Wave
from wsss_lab.methods.asdt.values import CRFS
from wsss_lab.ranges import (
    Count,
    Factor,
    Positive,
    Range,
    Scales,
    Seed,
    SettingError,
    Settings,
    Share,
    Whole,
)
from wsss_lab.refine import DenseCRF

Oracle = Literal["none", "a", "b", "silence"]
"""Lesson of the student that is the truth, see `wsss_lab.methods.asdt.oracle`.

``none``: neither. ``a``: teacher A's, at the pixels that it labels. ``b``: teacher B's, everywhere.
``silence``: teacher B's, at the pixels that teacher A does not label, and none elsewhere.
"""
Distillation = Literal["hard", "hard_conf", "soft_kl"]
"""Target of teacher B for the student: labels of all pixels, of confident ones, or probabilities.
"""


@dataclass(frozen=True)
class ASDTQuirks(Settings):
    """Behaviour of the released code that we do not share: False is ours, True as released."""

    ignore_pulse: bool = False
    """Train the student on teacher A's label in pulses, too: the released code computes the signal
    and teacher B's label, but the loss on it is commented out, so nothing alternates."""
    squashed_crf_image: bool = False
    """Refine teacher B's label on the whole image squashed to the crop's size, not on the crop that
    the head has seen, so that the CRF follows edges which are elsewhere in the crop."""
    label_padding: bool = False
    """Keep teacher B's label in the padding of a crop, so that the student learns from pixels
    without content; otherwise padding is ignored."""
    absent_classes: bool = False
    """Let all classes compete for teacher B's label, also those that the image's tags exclude."""
    nan_on_empty: bool = False
    """Return NaN for a batch whose labels lack background or foreground, as the released code does
    under today's PyTorch; otherwise the mean over no pixel is 0."""
    old_resize: bool = False
    """Halve odd sides for the dense energy as PyTorch 0.4.1 did, by the ratio of both sizes instead
    of 0.5, which shifts the samples by a fraction of a pixel."""
    truncate_images: bool = False
    """Cut colours to whole numbers for CRFs and energy, which changes them by less than 1 of 255.
    """


RELEASED = ASDTQuirks(
    ignore_pulse=True,
    squashed_crf_image=True,
    label_padding=True,
    absent_classes=True,
    nan_on_empty=True,
    old_resize=True,
    truncate_images=True,
)
"""The released code."""


@dataclass(frozen=True)
class ASDTConfig(Settings):
    """Settings of the method; length and batch of a run are in `RUNS`, data in the recipe."""

    backbone: str = "wrn38"
    """Name for `build_backbone`."""
    hidden: Annotated[int, Range("[1, 65536]")] = 512
    """Channels inside a segmentation head; released code."""
    dilation: Annotated[int, Range("[1, 65535]")] = 12
    """Dilation of both convolutions of a segmentation head, cells; released code."""
    head_dropout: Annotated[float, Range("[0, 1)")] = 0.5
    """Probability of dropping a channel before the tag classifier; released code."""
    background: bool = True
    """Whether label 0 is background. Without it label c is class c, for COCO-Stuff with 171
    classes; ours."""
    things: Annotated[int, Range("[1, 254]")] = 80
    """Number of classes, the first ones, that are things; without background the loss averages
    things and stuff separately."""
    max_classes: Whole = 0
    """Largest number of classes per image in the teachers' labels (those with the strongest maps);
    0 for all. Bounds the cost of the CRF; ours."""

    selection: Selection = "pulse"
    """Signal that chooses the student's teacher; all but "pulse" are arms of the ablation."""
    period: Count = 150
    """Period of the pulse, steps; released code (T=150)."""
    duty: Annotated[float, Range("[0, 1]", hint="a duty of 1/6 is 0.1667, not 6")] = 1 / 6
    """Share of a period that selects teacher B, [0, 1]; released code (N=6)."""
    phase: Annotated[int, Range("(-inf, inf)")] = 0
    """Step at which a wave starts; released code."""
    warmup: Annotated[int, Range("[-1, inf)")] = 1000
    """Last step at which teacher A is selected in any case; released code."""
    invert: bool = False
    """Exchange the teachers after warm-up; ours."""
    mix: Share | None = None
    """Share of teacher B in every step under "mix", [0, 1]; None takes the duty. Ours."""
    choice_seed: Seed = 0
    """Seed of the coins that replace the pulse under "bernoulli" and "blocks"; ours."""
    oracle: Oracle = "none"
    """Lesson of the student that is the truth: an upper bound for experiments, which reads masks
    that weak supervision does not have. Ours."""

    kd: Distillation = "hard"
    """Form of the distillation from teacher B. The released code's commented-out line has hard
    labels; the others are ours."""
    kd_weight: Factor = 0.1
    """Weight of the distillation, at least 0; the same line."""
    kd_confidence: Share = 0.8
    """Least probability of a pixel under "hard_conf" and "soft_kl"; as in teacher A's label."""
    temperature: Positive = 1.0
    """Temperature of "soft_kl", above 0; ours."""
    teacher_weight: Factor = 0.5
    """Weight of the loss of teacher B's head; released code."""
    student_weight: Factor = 0.5
    """Weight of the student's loss; released code."""
    pulse_dense: bool = True
    """Whether the student keeps its dense energy in pulses; the released code adds it just above
    the commented-out line."""

    scales: Scales = (1.0, 0.5, 1.5, 2.0)
    """Image scales of teacher A's maps; the first must be 1. Released code."""
    cam_dropout: bool = True
    """Keep the backbone's dropout active in the extra scales of teacher A's maps; released code."""
    cam_crf: DenseCRF = CRFS["cam"]
    """CRF for teacher A's maps."""
    seg_crf: DenseCRF = CRFS["seg"]
    """CRF for teacher B's probabilities, and for the fused prediction."""
    exponents: Annotated[tuple[float, float], Range("(0, inf)", rising=True)] = (4.0, 32.0)
    """Exponents a of the background score (1 - largest map value)^a: the small one makes a large
    background, the large one a small background; released code."""
    top_from: Share = 0.6
    """Share of a class's pixels, lowest map values first, that get no label; released code."""
    cam_floor: Share = 0.1
    """Map value, 0..1, that a labelled foreground pixel must exceed; released code."""
    background_floor: Share = 0.8
    """Background score, 0..1, that a labelled background pixel must exceed; released code."""
    crf_floor: Share = 0.8
    """Least probability after the CRF of a labelled pixel; released code."""
    energy_weight: Factor = 1e-7
    """Weight of the dense energy, a sum over pixels; released code."""
    energy_sigma_xy: Positive = 100.0
    """Width of the energy's kernel in positions, px; released code."""
    energy_sigma_rgb: Positive = 15.0
    """Width of the energy's kernel in colours, 0..255; released code."""

    quirks: ASDTQuirks = ASDTQuirks()
    """Behaviour of the released code; all off by default."""

    def require(self) -> None:
        """Refuse scales without the training pass, an energy by image, an oracle of soft labels."""
        if self.scales[0] != 1:
            raise SettingError(
                ["scales"], f"expected 1 first (the training pass), got {self.scales}"
            )
        if self.selection == "images" and not self.pulse_dense:
            raise SettingError(
                ["pulse_dense"],
                "expected True with selection='images', got False; the energy is not split by "
                "image",
            )

        joint = self.kd != "hard" or self.selection in ("soft_mean", "agreement")
        if self.oracle != "none" and joint:
            raise SettingError(
                ["oracle"],
                f"expected none with kd={self.kd!r} and selection={self.selection!r}, got "
                f"{self.oracle!r}; the truth is a hard label of one teacher",
            )

    @property
    def pulse(self) -> Wave:
        """Arguments of `pulse_signal`."""
        return Wave(
            period=self.period,
            duty=self.duty,
            phase=self.phase,
            warmup=self.warmup,
            invert=self.invert,
        )


OPTIM = OptimConfig(
    name="sgd",
    lr=7e-4,
    head_lr_factor=10.0,
    weight_decay=1e-5,
    momentum=1e-5,
    schedule="poly",
    power=0.9,
    warmup=0,
    decay_steps=20_000,
    clip=0.0,
)
"""Optimiser of the released script. Its momentum is a slip: the weight decay stands in its place.
It is kept, because the losses were balanced with it. The twentyfold rate of biases is in
`param_groups`; the last step repeats the last rate."""
_VOC = ASDTConfig()
_STUFF = ASDTConfig(background=False, max_classes=16)
# 128 px instead of 321: the energy's width in px times 0.4, so its sum is 0.4^4 as large. The
# widths of the CRFs stay: on toy scenes they make teacher A more precise than scaled ones
_SMALL = replace(_VOC, energy_sigma_xy=40.0, energy_weight=4e-6, dilation=4, warmup=100, period=60)
_TOY = replace(_SMALL, backbone="toy_cnn", hidden=64)

PRESETS: dict[str, ASDTConfig] = {
    "voc-released": replace(_VOC, quirks=RELEASED),
    "voc": _VOC,
    "stuff10k": _STUFF,
    "stuff10k-things": replace(_STUFF, background=True),
    "small": replace(_SMALL, backbone="resnet18", hidden=128),
    "tiny": replace(_TOY, scales=(1.0, 0.5), warmup=10, period=12),
    "toy": _TOY,
    # 224 px: the energy's width in px times 0.7, its sum is 0.7^4 as large; stride 16, not 8
    "voc-mini": replace(
        _VOC,
        backbone="lite0",
        hidden=128,
        dilation=6,
        energy_sigma_xy=70.0,
        energy_weight=4e-7,
        # for maps of lite0, by a rule that saw plain maps alone: wsss_lab.studies.photos.teacher_a
        exponents=(0.63, 2.02),
        warmup=100,
        period=60,
    ),
}
"""Settings by name.

`voc-released` is the public script: it trains the student with teacher A only. `voc` is the paper's
mechanism as far as it can be rebuilt. `stuff10k` takes all 171 classes and no background,
`stuff10k-things` 80 classes and background; nothing is known of the paper's own setting. `small`
(2000 steps at 129 px), `tiny` and `toy` (128 px) and `voc-mini` (224 px) are ours, and their
backbone can be any other.
"""

CLASSES = {"voc-released": 20, "voc": 20, "stuff10k": 171, "stuff10k-things": 80}
"""Number of tags that a preset expects."""

RUNS: dict[str, RunConfig] = {
    "voc-released": RunConfig(steps=20_001, batch=4, seed=42),
    "voc": RunConfig(steps=20_001, batch=4, seed=42),
    "stuff10k": RunConfig(steps=20_001, batch=4, seed=42),
    "stuff10k-things": RunConfig(steps=20_001, batch=4, seed=42),
    "small": RunConfig(steps=2000, batch=4),
    "tiny": RunConfig(steps=40, batch=8),
    "toy": RunConfig(steps=2000, batch=8),
    "voc-mini": RunConfig(steps=500, batch=8),
}
"""Length of a preset's run; crops are 321 px (released code), 129, 128, 128, 224 px (ours)."""
