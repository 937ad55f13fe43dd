"""TSCD from data to `metrics.json`: one stage, see `wsss_lab.recipes.end_to_end`.

Settings of the method are those of `wsss_lab.methods.tscd.config.PRESETS`; data, optimiser and
length stand here. Values for VOC are those of the released code; for COCO it lacks its settings
file, so length and batch are those of AFA, on which it is built. It ran on two GPUs (COCO: four)
that joined their batch statistics, but averaged pixel losses each for itself; here one process
averages over the whole batch.

Photos are tested as AFA's test script does it (TSCD's release has none): long side 512 px, three
scales with mirror images, then a dense CRF.
"""

from dataclasses import dataclass, field
from typing import Any

from wsss_lab.config import OptimConfig, RunConfig
from wsss_lab.data.config import DataConfig
from wsss_lab.evaluate.inference import MultiScale
from wsss_lab.methods.tscd import config as tscd_config
from wsss_lab.methods.tscd import values
from wsss_lab.methods.tscd.config import TSCDConfig
from wsss_lab.methods.tscd.keymap import KEYMAP
from wsss_lab.methods.tscd.method import TSCD
from wsss_lab.methods.tscd.network import tscd_backbone
from wsss_lab.methods.tscd.released import CHECKPOINT
from wsss_lab.recipes.end_to_end import EndToEnd, EndToEndConfig, TestConfig
from wsss_lab.recipes.end_to_end_plan import warm_up_step
from wsss_lab.recipes.tiny import tiny
from wsss_lab.recipes.voc_mini import LITE0_WEIGHTS, OURS, VIT_OPTIM, voc_mini_data

NAME = "tscd"
TAGS_NOTE = (
    "TSCD's released validation scores maps with the true tags (at 0.45) and the segmentation "
    "without; its author reports the better one of the segmentation and of maps that were spread "
    "along the affinity, again with true tags"
)
"""Which column of an evaluation corresponds to published numbers."""


@dataclass(frozen=True)
class Config(EndToEndConfig):
    """Settings of a run of TSCD."""

    method: TSCDConfig = field(default_factory=TSCDConfig)
    """Settings of the method."""


_LENGTHS = {"voc": (20_000, 4), "coco": (80_000, 8)}  # steps, images per step


def _photos(name: str) -> Config:
    """The recipe for photos."""
    dataset, method = name.removesuffix("-released"), tscd_config.PRESETS[name]
    released = name.endswith("-released")
    steps, batch = _LENGTHS[dataset]
    return Config(
        data=DataConfig(
            name=dataset,  # type: ignore[arg-type]
            crop=method.crop,
            scale=(0.5, 2.0),
            form="released" if released else "ours",
        ),
        weights="imagenet",
        run=RunConfig(
            steps,
            batch,
            precision="32-true" if released else "bf16-mixed",
            workers=4,
            save_every=2000,
        ),
        optim=tscd_config.OPTIM,
        method=method,
        test=TestConfig("tscd-test", crf="tscd-eval", cam_threshold=0.45, tags_at_test=True),
    )


_TOY = Config(
    data=DataConfig(crop=tscd_config.PRESETS["toy"].crop),
    run=RunConfig(600, batch=8, log_every=20, save_every=50),
    optim=OptimConfig(lr=5e-4),
    method=tscd_config.PRESETS["toy"],
    test=TestConfig(cam_threshold=0.45),
)
PRESETS: dict[str, Config] = {
    "tiny": tiny(_TOY, 40, start="toy", method=tscd_config.PRESETS["tiny"]),
    "toy": _TOY,
    "voc-mini": Config(
        data=voc_mini_data(),
        weights=LITE0_WEIGHTS,
        run=RunConfig(1100, batch=8, log_every=20, save_every=50),
        optim=VIT_OPTIM,
        method=tscd_config.PRESETS["voc-mini"],
        test=TestConfig(cam_threshold=0.45, tags_at_test=True),
    ),
    **{name: _photos(name) for name in tscd_config.PRESETS if name not in OURS},
}
"""Those in `OURS` are ours."""
NO_PRESET = {
    "tiny-released": "the released code has no toy world; take tiny",
    "toy-released": "the released code has no toy world; take toy",
    "stuff10k": "TSCD's released code has no settings for it; start from coco, and change --data",
    "stuff10k-released": "TSCD's released code has no settings for it",
}
"""Presets that do not exist, and why."""


_TAGS = {"method.warmup": 1_000_000}
WARM_UPS: dict[str, dict[str, Any]] = {
    "toy_mit2": _TAGS | {"method.backbone": "toy_mit2"},
    "toy_mit": _TAGS | {"method.backbone": "toy_mit"},
}
"""Backbone -> changes to the preset `toy` that leave the tag loss alone."""


def build(config: Config, classes: int, pretrained: bool) -> TSCD:
    """Build the method; heads come from the current random seed.

    Args:
        config: uses `method` and `weights`.
        classes: foreground classes `k`.
        pretrained: load the backbone's weights.
    """
    backbone = tscd_backbone(config.method, config.weights if pretrained else "random")
    return TSCD(backbone, classes, config.method)


METHOD = EndToEnd(
    NAME,
    "refined maps as labels, correspondences of two views of the maps (AAAI 2023)",
    Config,
    PRESETS,
    build,
    KEYMAP,
    NO_PRESET,
    tags_note=TAGS_NOTE,
    step_kind=warm_up_step,
    test_views={
        "val": MultiScale(cam=values.CAM_FUSION, cam_norm=values.NORMALIZATION),
        "test": MultiScale(
            values.LOGIT_FUSION,
            values.CAM_FUSION,
            values.NORMALIZATION,
            resize="long",
            side=512,
            join_at="grid",
        ),
    },
    crfs=values.CRFS,
    published=values.PUBLISHED,
    warm_ups=WARM_UPS,
    checkpoint=CHECKPOINT,
)
RECIPE = METHOD.recipe()
