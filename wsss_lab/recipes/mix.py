"""Mix your own, from data to `metrics.json`: one stage, see `wsss_lab.recipes.end_to_end`.

Techniques are settings: `--method.refine.kind varm`, `--method.scd.weight 0.1`, `--acr.alpha 125`.
`--start toy` begins with the packaged network of TSCD that has learned the tags alone.
"""

from dataclasses import dataclass, field

from wsss_lab.config import OptimConfig, RunConfig
from wsss_lab.methods.asdt.signal import student_share
from wsss_lab.methods.mix import config as mix_config
from wsss_lab.methods.mix.config import MixConfig
from wsss_lab.methods.mix.method import Mix
from wsss_lab.methods.mix.network import mix_backbone
from wsss_lab.recipes.end_to_end import EndToEnd, EndToEndConfig
from wsss_lab.recipes.tiny import tiny

NAME = "mix"


@dataclass(frozen=True)
class Config(EndToEndConfig):
    """Settings of a run of the base with techniques of your choice."""

    method: MixConfig = field(default_factory=MixConfig)
    """Settings of the method."""


_TOY = Config(
    run=RunConfig(600, batch=8, log_every=20, save_every=50),
    optim=OptimConfig(lr=5e-4),
    method=mix_config.PRESETS["toy"],
)
PRESETS: dict[str, Config] = {
    "tiny": tiny(_TOY, 40, start="toy", method=mix_config.PRESETS["tiny"]),
    "toy": _TOY,
}
"""The base alone, as long as TSCD's presets of these names."""
_NO_CODE = "no paper has this method; start from toy, and change --data and --method.backbone"
NO_PRESET = {
    name: _NO_CODE
    for dataset in ("voc", "coco", "stuff10k")
    for name in (dataset, f"{dataset}-released")
} | {
    "tiny-released": "no paper has this method; take tiny",
    "toy-released": "no paper has this method; take toy",
    "voc-mini": "the techniques are compared on the toy world alone; take that of a paper's method",
}
"""Presets that do not exist, and why."""


def build(config: Config, classes: int, pretrained: bool) -> Mix:
    """The method; heads come from the current random seed.

    Args:
        config: uses `method` and `weights`.
        classes: foreground classes `k`.
        pretrained: load the backbone's weights.
    """
    backbone = mix_backbone(config.method, config.weights if pretrained else "random")
    return Mix(backbone, classes, config.method)


def step_kind(config: Config, step: int) -> str:
    """Kind of a step: with tags alone, with the maps' labels, or with teacher B's, too."""
    turns, warmup = config.method.turns, config.method.warmup
    if step <= warmup:
        return "fit, tags only"
    share = student_share(
        step, turns.signal, period=turns.period, duty=turns.duty, warmup=warmup, mix=turns.mix
    )
    return "fit, all losses and teacher B" if share > 0 else "fit, all losses"


METHOD = EndToEnd(
    NAME,
    "techniques of all four papers on one common base, by settings alone",
    Config,
    PRESETS,
    build,
    missing_presets=NO_PRESET,
    step_kind=step_kind,
    packaged_start="tscd",
)
RECIPE = METHOD.recipe()
