"""CoSA from data to `metrics.json`: one stage, see `wsss_lab.recipes.end_to_end`.

Settings of the method are those of `wsss_lab.methods.cosa.config.PRESETS`; data, optimiser and
length stand here. `voc-released` and `coco-released` also make pixels as the released code does,
and average losses over two halves of a batch, because that code ran on two GPUs without joining
their pixels. The released evaluation squashes images, joins five scales with their mirror images
and uses the true tags; all presets for photos look in the same way, and report both with true tags
and without.
"""

from dataclasses import dataclass, field
from typing import Any

from wsss_lab.config import OptimConfig, RunConfig
from wsss_lab.data.config import DataConfig
from wsss_lab.evaluate.inference import MultiScale
from wsss_lab.methods.cosa import config as cosa_config
from wsss_lab.methods.cosa import values
from wsss_lab.methods.cosa.config import CoSAConfig
from wsss_lab.methods.cosa.keymap import KEYMAP
from wsss_lab.methods.cosa.method import CoSA
from wsss_lab.methods.cosa.network import cosa_backbone
from wsss_lab.methods.cosa.released import CHECKPOINT
from wsss_lab.recipes.end_to_end import EndToEnd, EndToEndConfig, TestConfig
from wsss_lab.recipes.end_to_end_plan import warm_up_step
from wsss_lab.recipes.tiny import tiny
from wsss_lab.recipes.voc_mini import LITE0_WEIGHTS, OURS, voc_mini_data
from wsss_lab.recipes.voc_mini import OPTIM as MINI_OPTIM

NAME = "cosa"
TAGS_NOTE = "CoSA's released evaluation, whose numbers are the published ones, uses the true tags"
"""Which column of an evaluation corresponds to published numbers."""


@dataclass(frozen=True)
class Config(EndToEndConfig):
    """Settings of a run of CoSA."""

    method: CoSAConfig = field(default_factory=CoSAConfig)
    """Settings of the method."""


_LENGTHS = {"voc": (32_000, 4), "coco": (60_000, 8)}  # steps, images per step; released scripts


def _photos(name: str) -> Config:
    """The recipe for photos; the released pipeline's values, from two GPUs."""
    dataset, released = name.removesuffix("-released"), name.endswith("-released")
    steps, batch = _LENGTHS[dataset]
    return Config(
        data=DataConfig(
            name=dataset,  # type: ignore[arg-type]
            crop=448,
            scale=(0.5, 2.0),
            blur=0.5,
            strong=True,
            form="released" if released else "ours",
        ),
        weights="imagenet",
        run=RunConfig(
            steps,
            batch,
            accumulate=2 if released else 1,
            precision="32-true" if released else "bf16-mixed",
            workers=4,
            save_every=2000,
        ),
        optim=cosa_config.OPTIM,
        method=cosa_config.PRESETS[name],
        test=TestConfig("cosa-test", crf="cosa-eval", tags_at_test=True),
    )


_TOY = Config(
    data=DataConfig(strong=True, blur=0.5),
    run=RunConfig(600, batch=16, log_every=20, save_every=50),
    optim=OptimConfig(lr=5e-4),
    method=cosa_config.PRESETS["toy"],
)
PRESETS: dict[str, Config] = {
    "tiny": tiny(_TOY, 60, start="toy", method=cosa_config.PRESETS["tiny"]),
    "toy": _TOY,
    "voc-mini": Config(
        data=voc_mini_data(strong=True, blur=0.5),
        weights=LITE0_WEIGHTS,
        run=RunConfig(1000, batch=8, log_every=20, save_every=50),
        optim=MINI_OPTIM,
        method=cosa_config.PRESETS["voc-mini"],
        test=TestConfig(tags_at_test=True),
    ),
    **{name: _photos(name) for name in cosa_config.PRESETS if name not in OURS},
}
"""Those in `OURS` are ours."""
NO_PRESET = {
    "tiny-released": "the released code does not know the toy world; take tiny",
    "toy-released": "the released code does not know the toy world; take toy",
    "stuff10k": "CoSA's released code has no settings for it; start from coco, and change --data",
    "stuff10k-released": "CoSA's released code has no settings for it",
}
"""Presets that do not exist, and why."""


WARM_UPS: dict[str, dict[str, Any]] = {
    "toy_vit2": {"method.warmup": 1_000_000, "method.backbone": "toy_vit2", "method.aux_level": -2},
    "toy_cnn": {"method.warmup": 1_000_000, "method.backbone": "toy_cnn"},
    "toy_vit": {"method.warmup": 1_000_000, "method.backbone": "toy_vit", "method.aux_level": -2},
}
"""Backbone -> changes to the preset `toy` that leave the tag losses alone.

CoSA builds on the maps. After a warm-up those of toy_cnn have 38 mIoU, those that are read from the
patch tokens of toy_vit 14 (200 validation scenes, best threshold; `weights/toy_cnn_cosa.json` and
`toy_vit_cosa.json`, written by `python -m wsss_lab.studies.toy.warm_up cosa --backbone NAME`). With
toy_vit it served the consistency of ACR, which needs attention. toy_vit2 has packaged backbone
weights, but none yet from this warm-up."""


def build(config: Config, classes: int, pretrained: bool) -> CoSA:
    """The method; heads come from the current random seed.

    Args:
        config: uses `method` and `weights`.
        classes: foreground classes `k`.
        pretrained: load the backbone's weights.
    """
    backbone = cosa_backbone(config.method, config.weights if pretrained else "random")
    return CoSA(backbone, classes, config.method)


METHOD = EndToEnd(
    NAME,
    "two networks swap class maps and segmentation as labels (ECCV 2024)",
    Config,
    PRESETS,
    build,
    KEYMAP,
    NO_PRESET,
    tags_note=TAGS_NOTE,
    step_kind=warm_up_step,
    test_views={
        "test": MultiScale(
            values.EVAL_LOGIT_FUSION,
            values.EVAL_CAM_FUSION,
            values.NORMALIZATION,
            resize="squash",
            side=448,
        ),
    },
    crfs=values.CRFS,
    published=values.PUBLISHED,
    warm_ups=WARM_UPS,
    checkpoint=CHECKPOINT,
)
RECIPE = METHOD.recipe()
