"""Sample that every data set of this library returns for one image."""

from typing import NotRequired, TypedDict

from jaxtyping import Float, Int, UInt8
from torch import Tensor


class Sample(TypedDict):
    """One image with its tags and, on demand, its mask.

    `tags[c] == 1` means that class `c` (mask value `c + 1`) occurs in the image. The mask is pixel
    truth: 0 background, 1..k classes, 255 ignored. It serves evaluation and fully supervised
    references; a weakly supervised training step never reads it.
    """

    image: UInt8[Tensor, "3 h w"]
    """RGB, 0..255."""
    tags: Float[Tensor, "k"]
    """Image-level tags, 0 or 1."""
    name: str
    """Identifier without extension, unique in its data set."""
    mask: NotRequired[Int[Tensor, "h w"]]
    """int64; only when the data set was made with `masks=True`."""
