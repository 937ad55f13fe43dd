"""Settings and presets of ACR, see `wsss_lab.methods.acr.method`."""

from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Literal

from wsss_lab.config import OptimConfig, RunConfig
from wsss_lab.methods.acr.localisation import Variant
from wsss_lab.methods.acr.views import View, ViewName, views_of
from wsss_lab.ranges import Factor, Pixels, Range, Settings

InputStats = Literal["backbone", "imagenet", "half"]
"""Ways to normalise images, see `ACRConfig.input_stats`."""


@dataclass(frozen=True)
class ACRQuirks(Settings):
    """Behaviour of the released code that this library offers and does not recommend."""

    two_passes: bool = False
    """Run the two views through the network one after the other instead of in one batch, which
    changes numbers only where there is batch normalisation: each view then has its own statistics.
    """
    raw_rows: bool = False
    """Leave attention rows as they are where a view hides tokens, so that they sum to less than 1;
    without effect on mirror images, the only view of the released code."""
    squash: Annotated[int, Range("[0, 65535]", hint="released: 384")] = 0
    """Side in px of the square to which every image is squashed for localisation, whatever its
    aspect; released: 384. 0 keeps size and aspect, with sides rounded to whole patches."""


RELEASED = ACRQuirks(two_passes=True, raw_rows=True, squash=384)
"""The released code."""


@dataclass(frozen=True)
class ACRConfig(Settings):
    """Settings of ACR. "Released" is the released code; of the paper only the abstract was read."""

    alpha: Factor = 125.0
    """Weight of both consistency losses. Released: 125 in the VOC script, 100 elsewhere."""
    activation: bool = True
    """Compare the attention of the class token. Released: yes."""
    affinity: bool = True
    """Compare the attention between all pairs of patches. Released: yes."""
    named_views: tuple[ViewName, ...] = ("flip",)
    """Second views by name, in turn, one a step: see `NAMED_VIEWS`. Released: the mirror image."""
    flat: Annotated[float, Range("(0, 1]")] = 1.0
    """Factor on the queries of every layer before training; below 1 attention starts flatter, see
    `flatten_attention`. A control without a second view; no source has it."""
    layers: Annotated[tuple[int, ...], Range("[-1000, 1000]")] | None = None
    """Attention layers compared, negative from the end; None for all, as released."""
    input_stats: InputStats = "backbone"
    """Colours that the network gets: "backbone" normalises by the mean and deviation that the
    network declares, "imagenet" by ImageNet's, "half" maps [0, 1] to [-1, 1]. The released code
    takes ImageNet's, although the weights of the hybrid were pre-trained with the last."""
    final_norm: bool = False
    """Let the head read tokens after the final LayerNorm. Released: before it."""
    variant: Variant = "grad"
    """Gradients and attention of a layer combined, see `layer_map`. Released: `grad` in the script,
    `cam_grad_s` by default."""
    start_layer: Annotated[int, Range("[-1000, 1000]")] = -2
    """First layer whose gradients localise, negative from the end. Released: 10 of 12."""
    propagate: bool = True
    """Spread the maps by the attention of all layers. Released script: yes."""
    batched: bool | None = None
    """Localise all classes in one vectorised backward pass, or one after another, which is as fast
    on CPUs and takes less memory; same numbers. None: vectorised on accelerators only. The released
    code runs one pass per class, through all weights."""
    quirks: ACRQuirks = field(default_factory=ACRQuirks)
    """Behaviour of the released code; all off by default."""

    def require(self) -> None:
        """Refuse names of views that are not known."""
        views_of(self.named_views)

    @property
    def views(self) -> tuple[View, ...]:
        """Second views, in turn."""
        return views_of(self.named_views)


@dataclass(frozen=True)
class ACRPreset(Settings):
    """Network, method, optimiser and length of a training."""

    config: ACRConfig
    """Settings of the method."""
    optim: OptimConfig
    """Its optimiser."""
    run: RunConfig
    """Steps, batch and precision."""
    classes: Annotated[int, Range("[1, 254]")] = 20
    """Foreground classes `k`."""
    crop: Pixels = 384
    """Side of the square training crop, px."""
    backbone: str = "r50_vit_b16"
    """A key of `wsss_lab.models.backbones.BACKBONES`."""
    options: dict[str, Any] = field(default_factory=lambda: {"weight_std": "added_eps"})
    """Options of `build_backbone`."""


_RELEASED = ACRConfig(input_stats="imagenet", batched=False, quirks=RELEASED)
_OURS = ACRConfig(input_stats="half")
_SGD = OptimConfig("sgd", 0.05, head_lr_factor=1.0, weight_decay=5e-4, momentum=0.0,
                   schedule="poly", power=0.9, warmup=0.0, clip=0.0)  # fmt: skip
# The released call puts its weight decay, 5e-4, in the place of momentum and decays nothing. Its
# four processes take one image each and never exchange gradients, so what is saved was trained with
# batch 1. Its loop adds a last step at the learning rate of the one before. All in float32.
VOC_OPTIM = replace(_SGD, weight_decay=0.0, momentum=5e-4, decay_steps=26_450)
"""Optimiser of the released script: the number named weight decay reaches SGD as its momentum."""
COCO_OPTIM = replace(VOC_OPTIM, decay_steps=103_475)
"""The same for COCO."""

# toy_vit2 has four layers. After the warm-up, maps summed over all of them have 47 mIoU, spread
# by their attention 12 (40 training scenes, true tags; python -m
# wsss_lab.studies.toy.localisation --develop 40 --scenes 40 --runs RUN, RUN of warm_up acr)
_TOY = ACRPreset(
    ACRConfig(start_layer=-4, propagate=False),
    OptimConfig(),
    RunConfig(),
    10,
    128,
    "toy_vit2",
    {},
)
PRESETS: dict[str, ACRPreset] = {
    "voc-released": ACRPreset(_RELEASED, VOC_OPTIM, RunConfig(26_451, batch=1)),
    "coco-released": ACRPreset(
        replace(_RELEASED, alpha=100.0), COCO_OPTIM, RunConfig(103_476, batch=1), 80
    ),
    # The recipe that the scripts seem to intend: four images a step, weight decay, no momentum.
    "voc": ACRPreset(_OURS, _SGD, RunConfig(26_450, batch=4, precision="bf16-mixed")),
    "coco": ACRPreset(
        replace(_OURS, alpha=100.0),
        _SGD,
        RunConfig(103_475, batch=4, precision="bf16-mixed"),
        80,
    ),
    "tiny": replace(_TOY, run=RunConfig(12, batch=8)),
    "toy": _TOY,
    # by wsss_lab.studies.photos.vit_start
    "voc-mini": ACRPreset(
        ACRConfig(start_layer=-5, propagate=False),
        OptimConfig(lr=5e-4, head_lr_factor=10.0),
        RunConfig(400, batch=16, save_every=50),
        20,
        224,
        "lite0_vit",
        {},
    ),
}
"""`-released`: what the released scripts compute, on the one replica that is saved. `voc`, `coco`:
the recipe that they seem to intend, 10 and 5 epochs of four images a step, not trained by us at
full size. COCO counts 82,783 training images. `tiny`, `toy` and `voc-mini` are ours. bf16 is
autocast, losses excepted; see the study `precision`."""
