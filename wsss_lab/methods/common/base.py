"""Interface between the training loop, evaluation and a method.

A method takes a `Batch` and returns a `StepOutput`, and takes images and returns a `SegOutput`. The
loop, the evaluation and the plans of runs know methods by `Method` alone.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NotRequired, TypedDict

from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from wsss_lab.config import IMAGENET_MEAN
from wsss_lab.models.base import Backbone
from wsss_lab.models.heads import TagHead
from wsss_lab.models.weights import load_strictly


class Batch(TypedDict):
    """Images and tags of one step, on the device of the method."""

    images: Float[Tensor, "b 3 h w"]
    """RGB in [0, 1], not normalised: every method normalises as its backbone declares."""
    tags: Float[Tensor, "b k"]
    """1 for classes in the image, else 0; foreground classes only."""
    masks: NotRequired[Int[Tensor, "b h w"]]
    """Label of every pixel: 0 background, class c is c + 1, 255 not counted. True ones for the
    fully supervised reference, pseudo-labels for a second stage; other methods ignore it."""
    names: NotRequired[list[str]]
    """Names of the images, for error messages."""
    strong: NotRequired[Float[Tensor, "b 3 h w"]]
    """The same crops in other colours, RGB in [0, 1]; for methods with a weak and a strong view."""
    squashed: NotRequired[Float[Tensor, "b 3 h w"]]
    """The whole images at the crops' size, RGB in [0, 1]; for ASDT's released code."""
    boxes: NotRequired[Int[Tensor, "b 4"]]
    """[y0, y1, x0, x1] of the real pixels of a padded crop, ends excluded, px."""
    valid: NotRequired[Bool[Tensor, "b h w"]]
    """True at real pixels, False in padding; the same as `boxes`, as a map."""
    max_tags: NotRequired[int]
    """Largest number of tags of an image; counting them in `tags` would wait for an accelerator."""


class ParamGroup(TypedDict):
    """Parameters that an optimiser treats alike."""

    params: list[nn.Parameter]
    lr: float
    """Peak learning rate; the schedule multiplies it."""
    weight_decay: float


@dataclass
class StepOutput:
    """Result of a training step: the loss, its parts, and intermediate tensors."""

    loss: Float[Tensor, ""]
    """Scalar with a graph; the loop calls `backward` on it."""
    parts: dict[str, Tensor] = field(default_factory=dict)
    """Scalars by name, unweighted unless documented otherwise, with or without a graph: the log
    detaches them."""
    panels: dict[str, Tensor] = field(default_factory=dict)
    """Intermediate tensors by name (maps, pseudo-labels, logits), for pictures and tests. Training
    does not read them."""


@dataclass(frozen=True)
class SegOutput:
    """Predictions for a batch of images; `None` for what a method does not predict."""

    logits: Float[Tensor, "b k1 gh gw"] | None = None
    """Segmentation logits, background first, on any grid."""
    cam: Float[Tensor, "b k _gh _gw"] | None = None
    """Class activation maps on any grid. `Method.predict` returns raw ones, of any sign;
    `wsss_lab.evaluate.inference` joins those of several scales and brings them to 0..1."""
    tag_logits: Float[Tensor, "b k"] | None = None
    """Tag logits; a class with a logit above 0 is predicted to be in the image."""


class Method(nn.Module):
    """Base class of trainable methods: a module with a training step and a prediction.

    Sub-classes implement `training_step` and `predict`; the rest has defaults. All state of a
    method (queues, thresholds, the teacher) lives in parameters and buffers, so that a checkpoint
    holds it and a resumed run continues exactly.
    """

    uses_tags: bool = False
    """Whether `predict` returns something else when it gets the true tags. If so, an evaluation
    that may use them runs the network once with and once without."""
    start_prefix: str = ""
    """Beginning of the names of all tensors that `start_from` needs."""
    mean_over_images: bool = False
    """Whether a batch's loss and state are the same however processes share its images: means over
    images, or over counts of all processes. Their number then changes speed, not results."""

    @property
    def input_mean(self) -> tuple[float, ...]:
        """Colour, RGB in [0, 1], that is 0 once normalised; "mean" padding is filled with it.

        By default the `input_mean` of the first backbone; ImageNet's where there is none.
        """
        found = (module for module in self.modules() if isinstance(module, Backbone))
        first = next(found, None)
        return IMAGENET_MEAN if first is None else first.input_mean

    def training_step(self, batch: Batch, step: int) -> StepOutput:
        """Compute the loss of one step, in training mode.

        Args:
            batch: images and tags; see the method for the optional entries that it reads.
            step: number of the step, 0-based, counted over resumed runs. Schedules inside a method
                depend on it and on nothing else.

        Raises:
            TypeError: the method is not trained by steps.
        """
        raise TypeError(f"{type(self).__name__} has no training step")

    def predict(
        self, images: Float[Tensor, "b 3 h w"], tags: Float[Tensor, "b k"] | None = None
    ) -> SegOutput:
        """Predict for images as they are, in evaluation mode, at a single scale.

        Args:
            images: RGB in [0, 1].
            tags: true tags, 0 or 1. Passed only by an evaluation that was asked to use them, which
                is noted in its report. A method whose maps need tags uses its own predictions where
                this is None.

        Returns:
            Raw outputs on the network's own grid. `wsss_lab.evaluate.inference` runs several scales
            and mirror images and joins them.

        Raises:
            TypeError: the method predicts nothing by itself.
        """
        raise TypeError(f"{type(self).__name__} has no prediction")

    def param_groups(self, lr: float, head_lr: float, weight_decay: float) -> list[ParamGroup]:
        """Sort the trained parameters into optimiser groups; by default all at `lr`.

        Args:
            lr: peak learning rate of the backbone.
            head_lr: peak learning rate of what is new on top of it.
            weight_decay: of matrices and filters; vectors have none unless a method states it.
        """
        return split_decay(self, lr, weight_decay)

    def start_from(self, state: Mapping[str, Tensor]) -> None:
        """Load the weights of a method of the same kind that was trained on tags, heads included.

        Args:
            state: its tensors by name.

        Raises:
            ValueError: a tensor is missing, left over, or of another shape.
        """
        load_strictly(self, state, what=f"start of {type(self).__name__}")

    def start_from_classifier(self, state: Mapping[str, Tensor]) -> None:
        """Load backbone and linear head of a plain tag classifier on the same backbone.

        The head goes into every tag head that reads the backbone's last map, that is, into those
        of its shape; heads of another shape, and those that no tag has trained, stay as they are.

        Args:
            state: tensors of a `TagClassifier` by name.

        Raises:
            ValueError: the backbone is another one.
        """
        inner = {k: v for k, v in state.items() if k.startswith("backbone.")}
        own = {k.removeprefix("backbone."): v for k, v in inner.items()}
        row = state["head.linear.weight"]
        for module in self.modules():
            if isinstance(module, Backbone):
                load_strictly(module, own, what="start: the tag classifier")
            elif isinstance(module, TagHead) and module.linear.weight.shape == row.shape:
                rest = {k: v for k, v in module.linear.state_dict().items() if k != "weight"}
                load_strictly(module.linear, {"weight": row, **rest}, what="start: the tag head")

    def after_step(self, step: int) -> None:
        """Update state that follows the weights, e.g. a momentum teacher; by default nothing.

        The loop calls this once after every update of the weights.

        Args:
            step: number of the step, as in `training_step`.
        """


def split_decay(module: nn.Module, lr: float, weight_decay: float) -> list[ParamGroup]:
    """Sort trained parameters into matrices and filters, which decay, and vectors, which do not.

    Args:
        module: any network; parameters without gradient are left out.
        lr: peak learning rate of both groups.
        weight_decay: of the first group.

    Returns:
        Those of the two groups that are not empty.
    """
    trained = [p for p in module.parameters() if p.requires_grad]
    matrices = [p for p in trained if p.ndim > 1]
    vectors = [p for p in trained if p.ndim <= 1]
    groups: list[ParamGroup] = [
        {"params": matrices, "lr": lr, "weight_decay": weight_decay},
        {"params": vectors, "lr": lr, "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]
