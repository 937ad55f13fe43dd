"""Interface between the training loop and a method: batches in, losses and predictions out."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NotRequired, TypedDict

from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from wsss_lab.config import IMAGENET_MEAN, IMAGENET_STD
from wsss_lab.models.weights import load_strictly


def normalize(images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
    """Images in [0, 1] -> what backbones take: minus ImageNet's mean, over its deviation."""
    mean = images.new_tensor(IMAGENET_MEAN)[:, None, None]
    std = images.new_tensor(IMAGENET_STD)[:, None, None]
    return (images - mean) / std


class Batch(TypedDict):
    """One step's images on their device. Masks are there for supervised references only."""

    images: Float[Tensor, "b 3 h w"]
    """RGB in [0, 1]; methods normalise themselves."""
    tags: Float[Tensor, "b k"]
    """0 or 1."""
    masks: NotRequired[Int[Tensor, "b h w"]]
    names: NotRequired[list[str]]
    """Which images these are, for messages."""
    strong: NotRequired[Float[Tensor, "b 3 h w"]]
    """The same crops in other colours, RGB in [0, 1]; for methods with a weak and a strong view."""
    squashed: NotRequired[Float[Tensor, "b 3 h w"]]
    """The whole images at the crops' size, RGB in [0, 1]; for ASDT's released code."""
    boxes: NotRequired[Int[Tensor, "b 4"]]
    """[y0, y1, x0, x1] of the real pixels of a padded crop, ends excluded, px."""
    valid: NotRequired[Bool[Tensor, "b h w"]]
    """Which pixels are real; the same as `boxes`, as a map."""
    max_tags: NotRequired[int]
    """Most tags of an image; spares a wait for the accelerator, which holds `tags`."""


@dataclass
class StepOutput:
    """Loss to minimise, its parts for the log, and tensors that the book shows."""

    loss: Float[Tensor, ""]
    parts: dict[str, Tensor] = field(default_factory=dict)
    """Scalars by name, detached or not; the log detaches them."""
    panels: dict[str, Tensor] = field(default_factory=dict)
    """Intermediate tensors that a chapter shows."""


@dataclass(frozen=True)
class SegOutput:
    """Predictions for one view of some images; `None` for what a method does not predict."""

    logits: Float[Tensor, "b k1 gh gw"] | None = None
    """Segmentation logits, background first, on any grid."""
    cam: Float[Tensor, "b k _gh _gw"] | None = None
    """Class activation maps on any grid: raw (any sign) out of `Method.predict`, 0..1 once joined
    by `wsss_lab.evaluate.inference`."""
    tag_logits: Float[Tensor, "b k"] | None = None
    """Tag logits; above 0 counts as named."""


class Method(nn.Module):
    """A trainable method: a module with a training step and a prediction."""

    uses_tags: bool = False
    """Whether the output of `predict` depends on the true tags."""
    start_prefix: str = ""
    """Beginning of the names of all tensors that `start_from` needs."""

    def training_step(self, batch: Batch, step: int) -> StepOutput:
        """Loss of one step."""
        raise TypeError(f"{type(self).__name__} has no training step")

    def predict(
        self, images: Float[Tensor, "b 3 h w"], tags: Float[Tensor, "b k"] | None = None
    ) -> SegOutput:
        """Predict one view of images.

        Args:
            images: RGB in [0, 1]; the module is in eval mode.
            tags: true tags, 0 or 1. Only when an evaluation is asked to use them, and then its
                report says so; methods whose maps need tags take their own predictions otherwise.

        Returns:
            Raw outputs at the network's own grid; `wsss_lab.evaluate.inference` joins views.
        """
        raise TypeError(f"{type(self).__name__} has no prediction")

    def param_groups(self, lr: float, head_lr: float, weight_decay: float) -> list[dict[str, Any]]:
        """Optimiser groups: `params`, `lr`, `weight_decay`; by default everything at `lr`."""
        return split_decay(self, lr, weight_decay)

    def start_from(self, state: Mapping[str, Tensor]) -> None:
        """Take over weights of a network of this kind that has learned the tags, heads included.

        Args:
            state: its tensors by name.

        Raises:
            ValueError: they do not fit.
        """
        load_strictly(self, state, what=f"start of {type(self).__name__}")

    def after_step(self, step: int) -> None:
        """Called once after every update, e.g. to let a momentum teacher follow."""


def split_decay(module: nn.Module, lr: float, weight_decay: float) -> list[dict[str, Any]]:
    """Two optimiser groups: matrices and filters with weight decay, vectors without."""
    trained = [p for p in module.parameters() if p.requires_grad]
    matrices = [p for p in trained if p.ndim > 1]
    vectors = [p for p in trained if p.ndim <= 1]
    groups = [
        {"params": matrices, "lr": lr, "weight_decay": weight_decay},
        {"params": vectors, "lr": lr, "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]
