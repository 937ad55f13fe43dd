"""ACR from data to `metrics.json`: transformer -> maps -> pseudo-labels -> segmentation network.

| stage | what it leaves in the run's folder |
|---|---|
| fit: train `wsss_lab.methods.acr.ACR` on tags | `fit/model.safetensors` |
| labels: localise with the tags of the training images, then the CRF | `labels/NAME.png` |
| masks: train `MaskNetwork` on these labels | `model.safetensors` |
| evaluate: both on the validation list; maps on training images | `metrics.json` |

Settings of the method are those of `wsss_lab.methods.acr.PRESETS`. Its released code ends with the
maps: it saves them, and scores them by the best of 100 thresholds on VOC train (1464 images), with
the true tags. Nothing of it turns maps into a segmentation network, so the last two stages are
ours: `MaskNetwork` is a small decoder on a ResNet and not the DeepLabV2 on ResNet-101 behind the
numbers listed for ACR, which can therefore not be compared with its scores.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int, UInt8
from lightning_fabric import Fabric
from torch import Tensor

from wsss_lab.cam.maps import present_classes
from wsss_lab.config import OptimConfig, RunConfig
from wsss_lab.data.config import DataConfig
from wsss_lab.engine.devices import require_even_shares
from wsss_lab.engine.evaluate import resolve_crf
from wsss_lab.engine.inference import VIEWS, Views
from wsss_lab.engine.recipes.end_to_end import (
    TestConfig,
    count_classes,
    released_preset,
    score,
    score_training_maps,
)
from wsss_lab.engine.recipes.folder import RunFolder, device_name, restore
from wsss_lab.engine.recipes.stages import (
    Labelled,
    Log,
    fit_stage,
    label_stage,
    launch,
    load_data,
    require_images,
    seeded,
)
from wsss_lab.methods import acr
from wsss_lab.methods.acr import ACR, ACRConfig
from wsss_lab.methods.base import Method, SegOutput
from wsss_lab.methods.cam_baseline import MaskNetwork
from wsss_lab.models import keymaps
from wsss_lab.models.backbones import build_backbone
from wsss_lab.models.base import Backbone
from wsss_lab.models.weights import load_backbone_weights, load_strictly

NAME = "acr"
TAGS_NOTE = (
    "ACR's released code localises with the true tags and reports the best threshold of the scored "
    "list; its list is VOC train (--data.val-split train)"
)
"""Which column of an evaluation corresponds to published numbers."""


class Localiser(Method):
    """A trained ACR that is asked for maps. Without true tags it takes those it sees itself.

    Args:
        method: trained.
    """

    uses_tags = True

    def __init__(self, method: ACR):
        super().__init__()
        self.acr = method

    def predict(
        self, images: Float[Tensor, "b 3 h w"], tags: Float[Tensor, "b k"] | None = None
    ) -> SegOutput:
        """Maps in 0..1 at the size of the images, mirror image included, and tag logits.

        Args:
            images: RGB in [0, 1].
            tags: true tags, if they may be used.
        """
        return SegOutput(cam=self.acr.localise(images, tags), tag_logits=self.acr(images))


@dataclass(frozen=True)
class Config:
    """Settings of a run of ACR."""

    data: DataConfig = field(default_factory=DataConfig)
    """Which images, and how they are cut for training."""
    method: ACRConfig = field(default_factory=ACRConfig)
    """Settings of the method."""
    backbone: str = "toy_vit"
    """A transformer with a class token: r50_vit_b16 (the paper's), vit_b16, deit_*, toy_vit."""
    weights: str = "toy"
    """What it starts from: `toy`, `imagenet`, `random`, the exact name of timm weights, or a
    file."""
    run: RunConfig = field(default_factory=RunConfig)
    """Training with tags; seed, devices, precision and log hold for both networks."""
    optim: OptimConfig = field(default_factory=OptimConfig)
    """Optimiser of the transformer."""
    label_crf: str = "acr-cam"
    """CRF between maps and pseudo-labels, a name of `wsss_lab.refine.PRESETS`; "none" for none."""
    background: tuple[float, float] = (1.0, 12.0)
    """Exponents a of the background score (1 - largest map value)^a; parser defaults of the
    released code. A pixel is a class if it wins against the first, background if that wins with the
    second, else ignored (rule of PSA, whose format the released code writes)."""
    mask_backbone: str = "toy_cnn"
    """Network of the segmentation stage."""
    mask_weights: str = "toy"
    """What that starts from."""
    mask_batch: int = 0
    """Images per step of the segmentation network; 0 takes `run.batch`."""
    mask_steps: int = 0
    """Steps of the segmentation network; 0 takes `run.steps`."""
    mask_optim: OptimConfig = field(default_factory=OptimConfig)
    """Optimiser of the segmentation network."""
    hidden: int = 64
    """Channels of the segmentation decoder."""
    report_train: int = 200
    """Training images on which the maps are compared with the truth, if there is one; 0 for none.
    For the report only: nothing is chosen by it."""
    test: TestConfig = field(default_factory=lambda: TestConfig(cam_threshold=None))
    """How both networks are scored; `views` is the segmentation network's."""

    def __post_init__(self) -> None:
        low, high = self.background
        if not 0 < low <= high:
            raise ValueError(f"background: expected 0 < first <= second, got {self.background}")
        for name in ("mask_batch", "mask_steps", "report_train"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}: expected at least 0, got {getattr(self, name)}")
        if self.hidden < 1:
            raise ValueError(f"hidden: expected at least 1, got {self.hidden}")


def _photos(name: str) -> Config:
    """The recipe for photos: the method's preset, and our segmentation network."""
    preset, dataset = acr.PRESETS[name], name.removesuffix("-released")
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
        mask_backbone="resnet50",
        mask_weights="resnet50.tv_in1k",
        mask_batch=16,
        mask_steps=20_000 if dataset == "voc" else 60_000,
        mask_optim=OptimConfig(lr=5e-5, head_lr_factor=10.0, schedule="poly"),
        hidden=256,
        test=TestConfig(cam_threshold=None, tags_at_test=True),
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
        mask_steps=500,
    )


PRESETS: dict[str, Config] = {
    "toy": _toy(),
    **{name: _photos(name) for name in acr.PRESETS if name != "toy"},
}
"""`toy` and all segmentation stages are ours."""
NO_PRESET = {
    "toy-released": "the released code does not know the toy world; take toy",
    "stuff10k": "ACR's released code has no settings for it; start from coco, and change --data",
    "stuff10k-released": "ACR's released code has no settings for it",
}
"""Presets that do not exist, and why."""


def build(config: Config, classes: int, pretrained: bool, **options: Any) -> ACR:
    """The method; its head comes from the current random seed.

    Args:
        config: uses `method`, `backbone` and `weights`.
        classes: foreground classes `k`.
        pretrained: load the backbone's weights.
        **options: of the backbone, beyond those of the method's presets.
    """
    known = {preset.backbone: preset.options for preset in acr.PRESETS.values()}
    backbone = build_backbone(config.backbone, **{**known.get(config.backbone, {}), **options})
    if pretrained and config.weights != "random":
        load_backbone_weights(backbone, config.weights)
    return ACR(backbone, classes, config.method)


def label_rule(config: Config) -> Any:
    """The rule by which maps become labels, see `LabelRule`.

    Args:
        config: uses `label_crf` and `background`.
    """
    crf, _ = resolve_crf(config.label_crf)

    def winner(images: Tensor, cam: Tensor, power: float) -> Tensor:
        background = (1 - cam.amax(1, keepdim=True)) ** power
        scores = torch.cat([background, cam], 1)
        return (scores if crf is None else crf(images, scores)).argmax(1)

    def rule(
        images: UInt8[Tensor, "b 3 h w"], cam: Float[Tensor, "b k h w"], tags: Float[Tensor, "b k"]
    ) -> Int[Tensor, "b h w"]:
        index, present = present_classes(tags)
        picked = cam.gather(1, index[:, :, None, None].expand(-1, -1, *cam.shape[2:]))
        picked = (picked * present[:, :, None, None]).clamp(0, 1)
        low, high = (winner(images, picked, power) for power in config.background)
        names = torch.cat([torch.zeros_like(index[:, :1]), index + 1], 1)
        label = names.gather(1, low.flatten(1)).view_as(low)
        return torch.where((low == 0) & (high > 0), 255, label)

    return rule


def train(config: Config, out: Path, resume: bool = False, log: Log = print) -> dict[str, Any]:
    """Run all stages, or go on with those that are not done.

    Args:
        config: the settings.
        out: folder of the run.
        resume: go on with the run in `out`.
        log: gets lines of text.

    Returns:
        The content of `metrics.json`.

    Raises:
        ValueError, FileExistsError, FileNotFoundError: settings, data or folder do not fit.
        OutputError: a result cannot be written.
    """
    folder = RunFolder(out, NAME, config, resume)
    for name in (config.test.crf, config.label_crf):
        resolve_crf(name)
    fabric, log = launch(config.run, log)
    masks_run = dataclasses.replace(
        config.run,
        steps=config.mask_steps or config.run.steps,
        batch=config.mask_batch or config.run.batch,
    )
    require_even_shares(masks_run, fabric.world_size)
    images, val = load_data(config.data, "train"), load_data(config.data, "val")
    seeded(config.run.seed)
    method = build(config, images.num_classes, True)  # missing weights are reported here
    require_images(images, max(config.run.batch, masks_run.batch))
    folder.begin()
    facts = {
        "method": NAME,
        "classes": ["background", *images.class_names],
        "config": config,
        "weights": config.weights,
    }
    common: dict[str, Any] = {"data": config.data, "fabric": fabric, "log": log}
    fit_stage(
        folder,
        "fit",
        method,
        images,
        config.run,
        config.optim,
        weights=out / "fit" / "model.safetensors",
        facts=facts | {"part": "ACR"},
        **common,
    )
    localiser = Localiser(method).eval()
    label_stage(
        localiser,
        images,
        out / "labels",
        views=VIEWS["single"],
        rule=label_rule(config),
        batch=config.test.batch,
        workers=config.run.workers,
        fabric=fabric,
        log=log,
    )
    seeded(config.run.seed)
    network = fit_stage(
        folder,
        "masks",
        _network(config, images.num_classes + 1, True),
        Labelled(images, out / "labels", images.num_classes + 1),
        masks_run,
        config.mask_optim,
        weights=out / "model.safetensors",
        facts=facts | {"part": "MaskNetwork", "weights": config.mask_weights},
        **common,
    )
    results = _score(config, localiser, network, val, fabric, log)
    return folder.write_metrics(
        results, seed=config.run.seed, device=device_name(fabric.device), weights=config.weights
    )


def _network(config: Config, classes: int, pretrained: bool) -> MaskNetwork:
    backbone: Backbone = build_backbone(config.mask_backbone)
    if pretrained and config.mask_weights != "random":
        load_backbone_weights(backbone, config.mask_weights)
    return MaskNetwork(backbone, classes, hidden=config.hidden)


def _score(
    config: Config, localiser: Localiser, network: Method, val: Any, fabric: Fabric, log: Log
) -> dict[str, Any]:
    """Segmentation and maps on the validation list; maps of some training images."""
    seg = score(network, val, VIEWS[config.test.views], config, fabric)
    cam = score(localiser, val, VIEWS["single"], config, fabric)
    train = score_training_maps(localiser, VIEWS["single"], config, fabric, log)
    for heading, found in (
        ("segmentation network, validation list", seg),
        ("maps, validation list", cam),
        *(("maps of training images, whose tags are given", found) for found in train.values()),
    ):
        log(f"\n{heading}\n{found.table()}")
    shown = {"val": seg.as_dict() | cam.as_dict()}
    return shown | {name: found.as_dict() for name, found in train.items()}


def load_method(facts: Mapping[str, Any], state: Mapping[str, Tensor]) -> Method:
    """A network of a weights file that `train` wrote, in eval mode: the transformer, or the last.

    Args:
        facts: see `wsss_lab.engine.recipes.folder.read_facts`.
        state: its tensors.

    Raises:
        ValueError: the tensors do not fit.
    """
    config = restore(Config, facts["config"])
    classes = len(facts["classes"])
    whole = facts["part"] != "ACR"
    method: Any = _network(config, classes, False) if whole else build(config, classes - 1, False)
    load_strictly(method, state, what=f"weights of {NAME}")
    return (method if whole else Localiser(method)).eval()


def load_views(facts: Mapping[str, Any]) -> Views:
    """How the network of a weights file looks at images."""
    if facts["part"] == "ACR":
        return VIEWS["single"]
    return VIEWS[restore(Config, facts["config"]).test.views]


def views(config: Config) -> Views:
    """How a released network looks at images: `localise` takes the mirror image itself."""
    return VIEWS["single"]


def load_released(state: Mapping[str, Tensor]) -> tuple[Method, Config]:
    """The authors' network, in eval mode, and the settings it had.

    Args:
        state: the released tensors by name: the hybrid, ViT-B or DeiT-B.

    Raises:
        ValueError: the tensors do not fit, or no released preset has this number of classes.
    """
    classes = count_classes(state, keymaps.ACR, NAME)
    config = PRESETS[released_preset(PRESETS, classes, NAME)]
    options: dict[str, Any] = {}
    plain = not any(".patch_embed.backbone." in key for key in state)
    if plain and config.backbone == "r50_vit_b16":
        tokens = state["pretrained.model.pos_embed"].shape[1] - 1
        config = dataclasses.replace(config, backbone="vit_b16")
        options = {"img_size": 16 * round(tokens**0.5)}
    method = build(config, classes, False, **options)
    method.load_released(state)
    return Localiser(method).eval(), config
