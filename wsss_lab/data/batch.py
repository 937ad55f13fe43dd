"""Training samples and the batches that they become."""

from collections.abc import Callable, Sequence
from typing import NotRequired, Protocol, TypedDict, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from wsss_lab.data.sample import Sample


class TrainingSample(Sample):
    """Sample as a transform returns it: images of one size, and the box of real pixels."""

    box: NotRequired[tuple[int, int, int, int]]
    """y0, y1, x0, x1 in px; outside is padding."""
    strong: NotRequired[Tensor]
    """uint8 (3, h, w): the same pixels in other colours."""
    squashed: NotRequired[Tensor]
    """uint8 (3, h, w): the whole image, neither cut nor mirrored, at the size of the crop."""


@runtime_checkable
class Samples(Protocol):
    """Map-style data set, e.g. from `wsss_lab.data.config.build_dataset`."""

    def __len__(self) -> int:
        """Number of images."""
        ...  # pragma: no cover

    def __getitem__(self, i: int, /) -> Sample:
        """Return one image."""
        ...  # pragma: no cover


@runtime_checkable
class Transform(Protocol):
    """Picklable callable that makes a training sample: `wsss_lab.data.transform.TrainingTransform`.

    An attribute `fill`, RGB in [0, 1], is the colour of the padding outside `box`; without it the
    padding is left as the transform filled it.
    """

    def __call__(
        self, sample: Sample, rng: np.random.Generator, step_rng: np.random.Generator
    ) -> TrainingSample:
        """Return one training sample.

        Args:
            sample: image, tags, name.
            rng: the image's own random numbers.
            step_rng: the same numbers for every image of the step.
        """
        ...  # pragma: no cover


class Stacked(TypedDict):
    """Samples of one step as a worker hands them over: uint8, on the CPU."""

    images: UInt8[Tensor, "b 3 h w"]
    tags: Float[Tensor, "b k"]
    names: list[str]
    max_tags: int
    boxes: NotRequired[Int[Tensor, "b 4"]]
    masks: NotRequired[Int[Tensor, "b h w"]]
    strong: NotRequired[UInt8[Tensor, "b 3 h w"]]
    squashed: NotRequired[UInt8[Tensor, "b 3 h w"]]


class LoadedBatch(TypedDict):
    """Batch of one training step; fits `wsss_lab.methods.common.base.Batch`."""

    images: Float[Tensor, "b 3 h w"]
    """RGB in [0, 1], channels last in memory."""
    tags: Float[Tensor, "b k"]
    masks: NotRequired[Int[Tensor, "b h w"]]
    """int64; 255 also where there is no image."""
    strong: NotRequired[Float[Tensor, "b 3 h w"]]
    """RGB in [0, 1]: the same crops in other colours."""
    squashed: NotRequired[Float[Tensor, "b 3 h w"]]
    """RGB in [0, 1]: the whole images at the crops' size."""
    boxes: NotRequired[Int[Tensor, "b 4"]]
    """int64 y0, y1, x0, x1 of the real pixels in each image; the rest is padding."""
    valid: NotRequired[Bool[Tensor, "b h w"]]
    """bool: True inside `boxes`."""
    names: NotRequired[list[str]]
    max_tags: NotRequired[int]
    """Largest number of tags of an image, at least 1; counted on the CPU, so no GPU must wait."""


def stack_samples(samples: Sequence[TrainingSample]) -> Stacked:
    """Stack samples; images are laid out channels last, as decoders write them."""
    stacked: Stacked = {
        "images": _stack_images(samples, lambda sample: sample["image"]),
        "tags": torch.stack([sample["tags"] for sample in samples]),
        "names": [sample["name"] for sample in samples],
        "max_tags": max([1, *(int((sample["tags"] > 0).sum()) for sample in samples)]),
    }
    whole = (0, stacked["images"].shape[-2], 0, stacked["images"].shape[-1])
    stacked["boxes"] = torch.tensor([sample.get("box", whole) for sample in samples])
    if "mask" in samples[0]:
        stacked["masks"] = torch.stack([sample["mask"] for sample in samples])
    if "strong" in samples[0]:
        stacked["strong"] = _stack_images(samples, lambda sample: sample["strong"])
    if "squashed" in samples[0]:
        stacked["squashed"] = _stack_images(samples, lambda sample: sample["squashed"])
    return stacked


def _stack_images(
    samples: Sequence[TrainingSample], get: Callable[[TrainingSample], Tensor]
) -> Tensor:
    shapes = {tuple(get(sample).shape): sample["name"] for sample in samples}
    if len(shapes) > 1:
        (one, a), (other, b) = list(shapes.items())[:2]
        raise ValueError(
            f"images of a batch must have one size, got {one} ({a!r}) and {other} ({b!r}); "
            "pass a transform that crops"
        )
    # stacked as (h, w, 3): `stack` of channels-last images would copy them to channels first
    return torch.stack([get(sample).permute(1, 2, 0) for sample in samples]).permute(0, 3, 1, 2)
