"""Settings and presets of the recipe of ACR, see `wsss_lab.recipes.acr.recipe`."""

import dataclasses
from dataclasses import dataclass, field
from typing import Annotated, Literal

from wsss_lab.config import OptimConfig, RunConfig
from wsss_lab.data.config import DataConfig
from wsss_lab.methods.acr import config as acr
from wsss_lab.methods.acr.config import ACRConfig
from wsss_lab.methods.common import deeplab
from wsss_lab.ranges import Batch, Count, Factor, Positive, Range, Settings, Whole
from wsss_lab.recipes.tiny import VAL_COUNT, tiny
from wsss_lab.recipes.voc_mini import LITE0_WEIGHTS, OURS, voc_mini_data
from wsss_lab.recipes.voc_mini import OPTIM as MINI_OPTIM
from wsss_lab.runs.scoring import TestConfig

NAME = "acr"


@dataclass(frozen=True)
class AffinityConfig(Settings):
    """Settings of the two stages of AffinityNet-style propagation; defaults fit the toy world."""

    backbone: str = "toy_cnn"
    """Network whose features become affinities. Paper: Wide ResNet-38 (`wrn38`, whose weights timm
    does not have)."""
    weights: str = "toy"
    """Weights it starts from."""
    widths: Annotated[tuple[int, ...], Range("[1, 65536]")] = (16, 32, 64)
    """Channels of its last maps, see `AffinityNetwork`. Paper: 64, 128, 256."""
    radius: Annotated[float, Range("(0, 1000]")] = 5.0
    """Pairs nearer than this count, cells (paper)."""
    crop: Annotated[int, Range("[0, 65535]")] = 0
    """Side of its training crops, px; 0 takes `data.crop`. Released code of AffinityNet: 448."""
    steps: Count = 100
    """Its training steps."""
    batch: Batch = 8
    """Images per step."""
    optim: OptimConfig = field(default_factory=OptimConfig)
    """Its optimiser."""
    power: Factor = 8.0
    """beta of the walk (paper). ACR's history names 36 (code, 2022)."""
    walk: Whole = 16
    """Steps t of the walk. Paper: 256, on grids of some 60 cells a side. The distance that maps
    cover grows with the root of t, and a toy grid has 16 cells a side: 256 steps level its maps."""
    crf: str = "none"
    """CRF after the walk, METHOD-NAME, such as `acr-cam`; "none" for none."""


@dataclass(frozen=True)
class Config(Settings):
    """Settings of a run of ACR."""

    data: DataConfig = field(default_factory=DataConfig)
    """Which images, and how they are cut for training."""
    method: ACRConfig = field(default_factory=ACRConfig)
    """Settings of the method."""
    backbone: str = "toy_vit2"
    """A transformer with a class token: r50_vit_b16 (the paper's), vit_b16, deit_*, toy_vit2."""
    weights: str = "toy"
    """Weights it starts from: `toy`, `imagenet`, `random`, the exact name of timm weights, or a
    file."""
    start: str = ""
    """Go on from the end of a training with tags alone, head included, see
    `wsss_lab.runs.start`: `toy`, a weights file, or nothing."""
    until: Literal["maps", "masks"] = "masks"
    """Last stage: the maps, scored without a segmentation network, or all."""
    run: RunConfig = field(default_factory=RunConfig)
    """Training with tags; seed, devices, precision and log hold for both networks."""
    optim: OptimConfig = field(default_factory=OptimConfig)
    """Optimiser of the transformer."""
    label_crf: str = "acr-cam"
    """CRF between maps and pseudo-labels, METHOD-NAME, such as `acr-cam`; "none" for none."""
    background: Annotated[tuple[float, float], Range("(0, inf)", rising=True)] = (1.0, 12.0)
    """Exponents a of the background score (1 - largest map value)^a; parser defaults of the
    released code. A pixel is a class if it wins against the first, background if that wins with the
    second, else ignored (rule of PSA, whose format the released code writes)."""
    propagation: Literal["crf", "affinity"] = "crf"
    """Labels of the segmentation network: `crf`, those above; `affinity`, maps propagated along the
    affinities of a network that is trained on those above."""
    affinity: AffinityConfig = field(default_factory=AffinityConfig)
    """Settings of `affinity`."""
    exponent: Positive = 0.75
    """Exponent of the background score that is propagated with the maps. 0.75 ties with a map at
    0.55, the background threshold in ACR's history and about the best one for its maps (code,
    2022)."""
    mask_network: Literal["decoder", "deeplabv2"] = "decoder"
    """Kind of the segmentation network: our small decoder (`SegNetwork`), or `DeepLabV2`."""
    mask_backbone: str = "toy_cnn"
    """Backbone of the segmentation network."""
    mask_weights: str = "toy"
    """Weights that network starts from."""
    mask_batch: Annotated[int, Range("[0, 1048576]")] = 0
    """Images per step of the segmentation network; 0 takes `run.batch`."""
    mask_steps: Whole = 0
    """Steps of the segmentation network; 0 takes `run.steps`."""
    mask_optim: OptimConfig = field(default_factory=OptimConfig)
    """Optimiser of the segmentation network."""
    mask_crop: Annotated[int, Range("[0, 65535]")] = 0
    """Side of its training crops, px; 0 takes `data.crop`."""
    mask_scale: Annotated[tuple[float, float], Range("(0, 100)", rising=True)] | None = None
    """Smallest and largest factor on the size of its training images; None takes the rule of
    `data`."""
    hidden: Annotated[int, Range("[1, 65536]")] = 64
    """Channels of our small decoder; DeepLabV2 has none in between."""
    report_train: Whole = 200
    """Training images on which maps and labels are compared with the truth, if there is one; 0 for
    none. For the report only: nothing is chosen by it."""
    test: TestConfig = field(default_factory=lambda: TestConfig(cam_threshold=None))
    """How both networks are scored; `views` is the segmentation network's."""


def _photos(name: str) -> Config:
    """Build the recipe for photos: the method's preset, and stages that the release lacks."""
    preset, dataset = acr.PRESETS[name], name.removesuffix("-released")
    voc = dataset == "voc"
    affinity = AffinityConfig(
        backbone="resnet50",
        weights="resnet50.tv_in1k",
        widths=(64, 128, 256),
        crop=448,
        # five epochs, as ACR's history says for VOC; rates of AffinityNet's released code
        steps=6_610 if voc else 51_735,
        optim=dataclasses.replace(deeplab.OPTIM, lr=0.01),
        power=36.0,
        walk=256,
        crf="acr-cam",
    )
    return Config(
        data=DataConfig(
            name=dataset,  # type: ignore[arg-type]
            crop=preset.crop,
            resize="long_side",
            scale=(0.9, 1 / 0.875),
            pad="mean",
            form="released" if name.endswith("-released") else "ours",
        ),
        method=preset.config,
        backbone=preset.backbone,
        weights="imagenet",
        run=dataclasses.replace(preset.run, workers=4, save_every=2000),
        optim=preset.optim,
        propagation="affinity",
        affinity=affinity,
        mask_network="deeplabv2",
        mask_backbone="resnet101",
        mask_weights="resnet101.tv_in1k",
        mask_batch=deeplab.BATCH,
        mask_steps=20_000 if voc else 60_000,
        mask_optim=deeplab.OPTIM,
        mask_crop=deeplab.CROP,
        mask_scale=deeplab.SCALE,
        test=TestConfig(
            views="deeplabv2", batch=4, crf="acr-seg", cam_threshold=None, tags_at_test=True
        ),
    )


def _toy() -> Config:
    preset = acr.PRESETS["toy"]
    return Config(
        data=DataConfig(crop=preset.crop),
        method=preset.config,
        backbone=preset.backbone,
        run=dataclasses.replace(preset.run, save_every=100),
        optim=preset.optim,
        label_crf="none",
        propagation="affinity",
        mask_steps=500,
    )


def _tiny() -> Config:
    run = acr.PRESETS["tiny"].run
    made: Config = tiny(
        _toy(),
        run.steps,
        run.batch,
        start="toy",
        propagation="crf",  # the sure pixels alone, without a second network
        mask_steps=60,
        report_train=VAL_COUNT,
    )
    return made


def _voc_mini() -> Config:
    preset = acr.PRESETS["voc-mini"]
    return Config(
        data=voc_mini_data(crop=preset.crop),
        method=preset.config,
        backbone=preset.backbone,
        weights=LITE0_WEIGHTS,
        run=preset.run,
        optim=preset.optim,
        label_crf="none",
        # best single threshold of plain maps of another start, 0.40 (vit_start.json), 0.1 to either
        # side, by the rule that gave ASDT's: wsss_lab.studies.photos.teacher_a
        background=(1.0, 3.38),
        propagation="crf",
        mask_backbone="lite0",
        mask_weights=LITE0_WEIGHTS,
        mask_steps=400,
        mask_optim=MINI_OPTIM,
        test=TestConfig(cam_threshold=None, tags_at_test=True),
        report_train=550,
    )


PRESETS: dict[str, Config] = {
    "tiny": _tiny(),
    "toy": _toy(),
    "voc-mini": _voc_mini(),
    **{name: _photos(name) for name in acr.PRESETS if name not in OURS},
}
"""Those in `OURS` are ours, and so is the choice of what follows the maps: the release has nothing
there. Its history holds runs of AffinityNet (6,610 steps, rate 0.01, beta 36) and of IRN; which of
them fed the paper is not known. `-released` is about the maps only."""
NO_PRESET = {
    "tiny-released": "the released code has no toy world; take tiny",
    "toy-released": "the released code has no toy world; take toy",
    "stuff10k": "ACR's released code has no settings for it; start from coco, and change --data",
    "stuff10k-released": "ACR's released code has no settings for it",
}
"""Presets that do not exist, and why."""
