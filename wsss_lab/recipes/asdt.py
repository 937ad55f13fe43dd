"""ASDT from data to `metrics.json`: one stage, see `wsss_lab.recipes.end_to_end`.

Settings of the method, length and batch are those of `wsss_lab.methods.asdt.config`; data and test
are added here. ASDT needs maps that are good from the start: the released code begins with PSA's
`res38_cls.pth`, tag classifier included. So if the file that `weights` names holds a tag classifier
with the right number of classes, it is taken over, too; the toy preset begins with the packaged
classifier. Any run of the baseline makes such a file: `--weights RUN/tags/model.safetensors`.

Test: one view of the whole image, the larger probability of both heads, and their CRF by name
(`asdt-seg`), which gets them divided by their sum; the released inference does not divide. With
`report`, also every head and both teachers' labels alone: `wsss_lab.recipes.asdt_report`.
"""

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from wsss_lab.config import OptimConfig
from wsss_lab.data.config import DataConfig
from wsss_lab.data.transform import squashes
from wsss_lab.evaluate.predict import toy_classifier
from wsss_lab.methods.asdt import config as asdt_config
from wsss_lab.methods.asdt import values
from wsss_lab.methods.asdt.config import ASDTConfig
from wsss_lab.methods.asdt.keymap import KEYMAP
from wsss_lab.methods.asdt.method import ASDT
from wsss_lab.methods.asdt.released import CHECKPOINT
from wsss_lab.methods.asdt.schedule import makes_b_label
from wsss_lab.models.backbones import build_backbone
from wsss_lab.models.weights import load_backbone_weights, load_strictly
from wsss_lab.ranges import Count, Whole
from wsss_lab.recipes.asdt_report import report_predictions, watcher
from wsss_lab.recipes.end_to_end import EndToEnd, EndToEndConfig, TestConfig
from wsss_lab.recipes.tiny import VAL_COUNT, tiny
from wsss_lab.recipes.voc_mini import OPTIM as MINI_OPTIM
from wsss_lab.recipes.voc_mini import voc_mini_data
from wsss_lab.runs.packaged import PACKAGED, packaged_file
from wsss_lab.runs.safe_read import read_checkpoint

NAME = "asdt"
TAGS_NOTE = "ASDT's released inference uses no tags"
"""Which column of an evaluation corresponds to published numbers."""


@dataclass(frozen=True)
class Config(EndToEndConfig):
    """Settings of a run of ASDT."""

    method: ASDTConfig = field(default_factory=ASDTConfig)
    """Settings of the method."""
    report: Whole = 0
    """Training images on which teachers' labels and heads are compared with the truth at the end,
    if there is one (and the heads on the validation list); 0 for none. For the report only."""
    watch: Whole = 0
    """Training images on which teachers and student are compared during training; 0 for none."""
    watch_every: Count = 4
    """Steps between two such comparisons."""

    @property
    def trains_on_masks(self) -> bool:
        """Whether a teacher of the student is an oracle."""
        return self.method.oracle != "none"


def _photos(name: str, crop: int = 321, **changes: Any) -> Config:
    """Make settings for photos, with the released views: one factor a batch, zeros as padding."""
    method, dataset = asdt_config.PRESETS[name], "stuff10k" if "stuff" in name else "voc"
    return Config(
        data=DataConfig(
            name=dataset,  # type: ignore[arg-type]
            crop=crop,
            scale=(0.7, 1.3),
            scale_per="batch",
            pad="mean",
            **changes,
        ),
        weights="imagenet",
        run=dataclasses.replace(asdt_config.RUNS[name], workers=4, save_every=2000),
        optim=asdt_config.OPTIM,
        method=method,
        test=TestConfig(crf="asdt-seg", cam_threshold=None, tags_at_test=True),
    )


_TOY = Config(
    run=dataclasses.replace(asdt_config.RUNS["toy"], log_every=20, save_every=50),
    optim=OptimConfig(),
    method=asdt_config.PRESETS["toy"],
    test=TestConfig(cam_threshold=None),
    report=200,
)
PRESETS: dict[str, Config] = {
    # like toy, it begins with the packaged classifier by its weights
    "tiny": tiny(
        _TOY, asdt_config.RUNS["tiny"].steps, method=asdt_config.PRESETS["tiny"], report=VAL_COUNT
    ),
    "toy": _TOY,
    "voc-mini": Config(
        data=voc_mini_data(),
        weights="voc-mini",
        run=dataclasses.replace(asdt_config.RUNS["voc-mini"], log_every=20, save_every=50),
        optim=MINI_OPTIM,
        method=asdt_config.PRESETS["voc-mini"],
        test=TestConfig(cam_threshold=None, tags_at_test=True),
        report=550,
    ),
    "voc": _photos("voc"),
    "voc-released": _photos("voc-released", form="released"),
    "stuff10k": _photos("stuff10k"),
    "stuff10k-things": _photos("stuff10k-things", convention="things"),
    "small": _photos("small", crop=129),
}
"""`tiny`, `toy`, `voc-mini`, `small` (on VOC) and all that regards COCO-Stuff are ours."""
NO_PRESET = {
    "tiny-released": "the released code does not know the toy world; take tiny",
    "toy-released": "the released code does not know the toy world; take toy",
    "coco": "ASDT's released code has no settings for it; start from voc, and change --data",
    "coco-released": "ASDT's released code has no settings for it",
    "stuff10k-released": "the released code is for VOC; settings for COCO-Stuff are not known",
    "small-released": "small is ours",
}
"""Presets that do not exist, and why."""


def build(config: Config, classes: int, pretrained: bool) -> ASDT:
    """Build the method; heads come from the current random seed, or the tag head from the weights.

    Args:
        config: uses `method` and `weights`.
        classes: foreground classes `k`.
        pretrained: load the weights.
    """
    method = ASDT(build_backbone(config.method.backbone), classes, config.method)
    if not pretrained or config.weights == "random":
        return method
    backbone, head = method.network.backbone, method.network.tag_head.linear
    file = Path(config.weights)
    if config.weights == "toy" and backbone.name == "toy_cnn":
        _take_over(toy_classifier().state_dict(), backbone, head, "the toy classifier")
    elif config.weights in PACKAGED and backbone.name == "lite0":
        state = read_checkpoint(packaged_file(config.weights))[0]
        _take_over(state, backbone, head, f"the packaged classifier of {config.weights}")
    elif file.is_file() and "head.linear.weight" in (state := read_checkpoint(file)[0]):
        _take_over(state, backbone, head, config.weights)
    else:
        load_backbone_weights(backbone, config.weights)
        if file.is_file() and "fc8.weight" in (state := read_checkpoint(file)[0]):
            _fill(head, state["fc8.weight"].flatten(1))
    backbone.weight_tag = config.weights
    return method


def _take_over(state: dict[str, Tensor], backbone: Any, head: nn.Linear, what: str) -> None:
    """Copy backbone and tag head of our own tag classifier."""
    inner = {k: v for k, v in state.items() if k.startswith("backbone.")}
    own = {k.removeprefix("backbone."): v for k, v in inner.items()}
    load_strictly(backbone, own, what=what, widen=True)
    _fill(head, state["head.linear.weight"])


def _fill(head: nn.Linear, weight: Tensor) -> None:
    """Copy a classifier; one of another number of classes is of no use, the head stays random."""
    if weight.shape == head.weight.shape:
        state = {**head.state_dict(), "weight": weight}
        load_strictly(head, state, what="the tag classifier of the weights", widen=True)


def step_kind(config: Config, step: int) -> str:
    """Kind of a step: with both teachers' labels it takes longer than with the first alone."""
    images = config.run.batch // (config.run.devices * config.run.nodes)
    both = makes_b_label(config.method, step, images, squashes(config.data))
    return "fit, both teachers" if both else "fit, teacher A"


METHOD = EndToEnd(
    NAME,
    "two teachers take turns by a pulse signal (TIP 2025)",
    Config,
    PRESETS,
    build,
    KEYMAP,
    NO_PRESET,
    tags_note=TAGS_NOTE,
    report=report_predictions,
    watcher=watcher,
    step_kind=step_kind,
    crfs=values.CRFS,
    published=values.PUBLISHED,
    checkpoint=CHECKPOINT,
)
RECIPE = METHOD.recipe()
