"""Settings and presets of ACR, see `wsss_lab.methods.acr.method`."""

from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

from wsss_lab.cam.attention_maps import Variant
from wsss_lab.config import OptimConfig, RunConfig
from wsss_lab.methods.acr.losses import ViewName, views_of
from wsss_lab.methods.acr.views import Flip, View


@dataclass(frozen=True)
class ACRConfig:
    """Settings of ACR; numbers in brackets are deviations, see `wsss_lab.methods.acr.method`."""

    alpha: float = 125.0
    """Weight of both consistency losses. Released: 125 in the VOC script, 100 elsewhere."""
    activation: bool = True
    """Use the class-token (activation) consistency."""
    affinity: bool = True
    """Use the patch-to-patch (all-pairs) consistency."""
    views: tuple[View, ...] = (Flip("width"),)
    """Second views, taken in turn (2)."""
    named_views: tuple[ViewName, ...] = ()
    """The same by name, as the command line and studies need it: see `NAMED_VIEWS`. If there are
    any, they hold instead of `views`."""
    layers: tuple[int, ...] | None = None
    """Attention layers compared; None for all, as released."""
    joint: bool = True
    """Both views in one batch where they have one size (1)."""
    renormalise: bool = True
    """Compare only what both views show, with rows that sum to 1 (3)."""
    input_stats: Literal["imagenet", "half"] = "imagenet"
    """Mean and deviation of the input (4). Released: ImageNet's."""
    final_norm: bool = False
    """Let the head read tokens after the final LayerNorm. Released: before."""
    variant: Variant = "grad"
    """Of the localisation. Released: `grad` in the script, `cam_grad_s` by default."""
    start_layer: int = -2
    """First layer whose gradients localise. Released: 10 of 12."""
    propagate: bool = True
    """Spread the maps by the attention of all layers. Released script: yes."""
    infer_size: int | None = None
    """Side in px of the square that images are squashed to for localisation (5). Released: 384."""
    batched: bool | None = None
    """All classes in one vectorised backward pass, or one pass after another (6), which is as fast
    on CPUs and takes less memory. None: vectorised on accelerators only."""

    def __post_init__(self) -> None:
        if not self.alpha >= 0:
            raise ValueError(f"alpha must be at least 0, got {self.alpha}")
        if not self.views:
            raise ValueError("views must name at least one view, got (); use (Flip(),)")
        if self.input_stats not in ("imagenet", "half"):
            raise ValueError(f"input_stats must be 'imagenet' or 'half', got {self.input_stats!r}")
        if self.variant not in get_args(Variant):
            raise ValueError(f"variant must be one of {get_args(Variant)}, got {self.variant!r}")
        self.second_views  # noqa: B018 -- refuses unknown names

    @property
    def second_views(self) -> tuple[View, ...]:
        """The views that hold."""
        return views_of(self.named_views) if self.named_views else self.views


@dataclass(frozen=True)
class ACRPreset:
    """A whole recipe as values: network, method, optimiser, length."""

    config: ACRConfig
    optim: OptimConfig
    run: RunConfig
    classes: int = 20
    crop: int = 384
    """Side of the square training crop, px."""
    backbone: str = "r50_vit_b16"
    """A key of `wsss_lab.models.backbones.BACKBONES`."""
    options: dict[str, Any] = field(default_factory=lambda: {"weight_std": "acr"})
    """Options of `build_backbone`."""


_RELEASED = ACRConfig(joint=False, renormalise=False, infer_size=384, batched=False)
_OURS = ACRConfig(input_stats="half")
_SGD = OptimConfig("sgd", 0.05, head_lr_factor=1.0, weight_decay=5e-4, momentum=0.0,
                   schedule="poly", power=0.9, warmup=0.0, clip=0.0)  # fmt: skip
_VOC_AS_RUN = replace(_SGD, weight_decay=0.0, momentum=5e-4, decay_steps=26_450)
_COCO_AS_RUN = replace(_VOC_AS_RUN, decay_steps=103_475)

PRESETS: dict[str, ACRPreset] = {
    "voc-released": ACRPreset(_RELEASED, _VOC_AS_RUN, RunConfig(26_451, batch=1)),
    "coco-released": ACRPreset(
        replace(_RELEASED, alpha=100.0), _COCO_AS_RUN, RunConfig(103_476, batch=1), 80
    ),
    "voc": ACRPreset(_OURS, _SGD, RunConfig(26_450, batch=4, precision="bf16-mixed")),
    "coco": ACRPreset(
        replace(_OURS, alpha=100.0),
        _SGD,
        RunConfig(103_475, batch=4, precision="bf16-mixed"),
        80,
    ),
    # toy_vit has four layers; spread by the attention of all of them, its maps say nothing any more
    "toy": ACRPreset(
        ACRConfig(start_layer=-4, propagate=False),
        OptimConfig(),
        RunConfig(),
        10,
        128,
        "toy_vit",
        {},
    ),
}
"""`-released`: what the released scripts compute, on the one replica that is saved. `voc`, `coco`:
the recipe they seem to intend, 10 and 5 epochs with four images per step (deviations 1, 4 to 6 and
8 to 11); not trained by us at full size. COCO counts 82,783 training images. `toy` is ours."""
