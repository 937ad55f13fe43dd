"""Settings and presets of the CAM baseline, which `wsss_lab.recipes.cam_baseline.recipe` trains."""

from dataclasses import dataclass, field
from typing import Annotated, Literal

from wsss_lab.config import OptimConfig, RunConfig
from wsss_lab.data.config import DataConfig
from wsss_lab.ranges import (
    MOST_PIXELS,
    Batch,
    MostPixels,
    Range,
    Scales,
    Settings,
    Share,
    Whole,
)
from wsss_lab.recipes.tiny import VAL_COUNT, tiny
from wsss_lab.recipes.voc_mini import LITE0_WEIGHTS, voc_mini_data
from wsss_lab.recipes.voc_mini import OPTIM as MINI_OPTIM

NAME = "cam_baseline"


@dataclass(frozen=True)
class TestConfig(Settings):
    """How the trained networks are scored."""

    __test__ = False  # no test case, whatever pytest thinks of its name

    scales: Scales = (1.0,)
    """Scales whose logits are averaged."""
    flip: bool = False
    """Average with the mirrored image, too."""
    batch: Batch = 8
    """Images of one size per forward pass, at most. Photos go one by one on a CPU."""
    most_pixels: MostPixels = MOST_PIXELS
    """Most pixels of a photo inside networks and refinement, in labels, scores and `predict`. A
    larger photo is shrunk for them, and the scores are enlarged to its own size; see
    `wsss_lab.evaluate.large`. Photos of VOC and COCO have fewer."""
    crf: str = "none"
    """Post-processing by name; "none" for none."""
    tags_at_test: bool = False
    """Score a second time with the true tags of every image. An oracle, and reported as one."""


@dataclass(frozen=True)
class Config(Settings):
    """Settings of the CAM baseline. All defaults are ours."""

    data: DataConfig = field(default_factory=DataConfig)
    """Which images, and how they are cut for training."""
    backbone: str = "toy_cnn"
    """Network of both stages, see `python -m wsss_lab info`."""
    weights: str = "toy"
    """Weights it starts from: `toy`, the exact name of timm weights, or a file."""
    start: str = ""
    """Go on from a tag classifier that has learned the tags, head included: `toy` for the package's
    own, the folder of a run of the baseline or its `tags/model.safetensors`, or nothing. The
    segmentation network still starts from `weights`."""
    pool: Literal["gap", "gmp"] = "gap"
    """How the classifier pools: average (the CAM paper) or maximum (TSCD, CoSA)."""
    run: RunConfig = field(default_factory=RunConfig)
    """Training with tags; seed, devices, precision and log hold for both networks."""
    optim: OptimConfig = field(default_factory=OptimConfig)
    """Optimiser of the tag classifier."""
    cam_scales: Scales = (1.0, 0.5, 1.5)
    """Scales of the maps that labels are made of, as TSCD and CoSA (released codes)."""
    cam_flip: bool = True
    """Mirrored images, too."""
    refine_steps: Annotated[int, Range("[0, 1000]")] = 0
    """Steps of PAR, which brings the edges of the maps to those of the image before the threshold,
    in labels and in scores of maps; 0 leaves them as they are. AFA takes 10."""
    threshold: Share = 0.4
    """Background score of the pseudo-labels, 0..1: fixed beforehand, not chosen on any truth; but
    that of `voc-mini` was calibrated once on the masks of its list `train`."""
    band: Annotated[tuple[float, float], Range("[0, 1]", rising=True)] | None = None
    """(low, high) instead: background up to low, ignored up to high."""
    until: Literal["tags", "masks"] = "masks"
    """Last training: the classifier, whose maps are scored, or the segmentation network, too."""
    mask_steps: Whole = 0
    """Steps of the segmentation network, whatever `run.steps` is; 0 takes `run.steps`."""
    mask_optim: OptimConfig = field(default_factory=OptimConfig)
    """Optimiser of the segmentation network."""
    hidden: Annotated[int, Range("[1, 65536]")] = 64
    """Channels of the segmentation decoder."""
    report_train: Whole = 200
    """Training images on which the pseudo-labels are compared with the truth, if there is one; 0
    for none. For the report only: nothing is chosen by it."""
    test: TestConfig = field(default_factory=TestConfig)
    """How the result is scored."""


def _photos(name: Literal["voc", "coco", "stuff10k"], steps: int, mask_steps: int) -> Config:
    """Our settings for photos. Five epochs with tags at 16 images a step follow IRN's habit."""
    optim = OptimConfig(lr=5e-5, head_lr_factor=10.0, schedule="poly")
    return Config(
        data=DataConfig(name=name, crop=448, scale=(0.5, 2.0), pad="mean"),
        backbone="resnet50",
        weights="resnet50.tv_in1k",
        run=RunConfig(steps=steps, batch=16, workers=4),
        optim=optim,
        mask_optim=optim,
        mask_steps=mask_steps,
        hidden=256,
        test=TestConfig(scales=(1.0, 0.5, 1.5), flip=True),
    )


# as the calibration of the toy world: batch 32, AdamW 1e-3, 4 and 8 epochs
_TOY = Config(run=RunConfig(steps=375, batch=32, save_every=100), mask_steps=750)
PRESETS: dict[str, Config] = {
    "tiny": tiny(
        _TOY,
        steps=10,
        batch=16,
        start="toy",
        optim=OptimConfig(lr=1e-4),  # the tags are learned; a tenth, so that they stay
        mask_steps=60,
        report_train=VAL_COUNT,
    ),
    "toy": _TOY,
    # five epochs with tags
    "voc-mini": Config(
        data=voc_mini_data(),
        backbone="lite0",
        weights=LITE0_WEIGHTS,
        run=RunConfig(steps=765, batch=16, save_every=50),
        optim=MINI_OPTIM,
        cam_scales=(1.0, 1.5),
        refine_steps=40,
        threshold=0.45,
        mask_steps=400,
        mask_optim=MINI_OPTIM,
        hidden=128,
        report_train=550,
        test=TestConfig(tags_at_test=True),
    ),
    "voc": _photos("voc", steps=3300, mask_steps=20000),
    "coco": _photos("coco", steps=25600, mask_steps=60000),
    "stuff10k": _photos("stuff10k", steps=2800, mask_steps=20000),
}
"""All ours."""
_WHY = "there is no single released code for a CAM baseline; all its presets are ours"
NO_PRESET = {f"{name}-released": _WHY for name in PRESETS}
"""Presets that do not exist, and why."""
