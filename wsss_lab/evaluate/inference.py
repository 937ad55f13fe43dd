"""From a method to logits and maps of whole images: several scales, mirrored copies, one pass.

A method predicts for an image as it is (`Method.predict`); here its scaled and mirrored copies are
made, run and joined, by the rules of a `MultiScale`. Segmentation logits and class maps come from
the same forward passes, each joined by its own rule: a `wsss_lab.cam.Fusion`.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from wsss_lab.cam import FUSIONS, Fusion, Normalization, fuse_cams, normalize_cam
from wsss_lab.methods.common.base import SegOutput
from wsss_lab.ranges import MOST_PIXELS, MostPixels, Pixels, Range, Settings

PredictFn = Callable[[Float[Tensor, "v 3 h w"], Float[Tensor, "v k"] | None], SegOutput]
"""Type of `Method.predict`."""

LOGIT_FUSIONS: dict[str, Fusion] = {
    "single": Fusion(flip=False, relu="none"),
    "mean": Fusion(
        scales=(1.0, 0.5, 1.5), fuse_flip="mean", fuse_scale="mean", relu="none", source="ours"
    ),
    "deeplabv2": Fusion(
        scales=(1.0, 0.5, 0.75, 1.25, 1.5),
        fuse_flip="max",
        fuse_scale="max",
        relu="none",
        source="DeepLabV2: maximum over scales; the usual scales and flip of two-stage methods",
    ),
}
"""Rules for segmentation logits that belong to no single method of `wsss_lab.methods`, by name."""


@dataclass(frozen=True)
class MultiScale(Settings):
    """Multi-scale inference: scales and mirror images that are run, and how outputs are joined."""

    logits: Fusion = field(default_factory=lambda: LOGIT_FUSIONS["single"])
    """Rule for segmentation logits; its `relu` must be "none"."""
    cam: Fusion = field(default_factory=lambda: FUSIONS["single"])
    """Rule for class maps."""
    cam_norm: str | Normalization = "plain"
    """How joined maps are brought to 0..1: a key of `NORMALIZATIONS`, or a rule."""
    resize: Literal["none", "long", "squash"] = "none"
    """First step: nothing; the longer side becomes `side`; or both sides do."""
    side: Annotated[int, Range("[0, 65535]")] = 0
    """For `resize`, px."""
    join_at: Literal["image", "grid"] = "image"
    """Where logits of several scales meet: at image size, or on the grid of the first scale, which
    is cheaper (AFA)."""
    min_side: Pixels = 32
    """A view whose shorter side would fall below this is enlarged to it, in proportion, px: COCO
    has images that no network here could see at half size. The released codes have no such rule."""
    most_pixels: MostPixels = MOST_PIXELS
    """A photo with more pixels is shrunk to this number before anything else, see
    `wsss_lab.evaluate.large`. The released codes have no such rule."""

    def require(self) -> None:
        """Refuse rules that cut logits, and a side without `resize` or `resize` without a side."""
        if self.logits.relu != "none":
            raise ValueError(
                f'logits must be joined with relu="none", got {self.logits.relu!r}; negative '
                "logits mean something"
            )
        if (self.side > 0) != (self.resize != "none"):
            raise ValueError(
                f"side must be given in px together with resize, got resize={self.resize!r} and "
                f"side={self.side}"
            )

    @property
    def scales(self) -> tuple[float, ...]:
        """Every scale that is run, each once."""
        return tuple(dict.fromkeys((*self.logits.scales, *self.cam.scales)))

    def size_of(self, height: int, width: int) -> tuple[int, int]:
        """Size (h, w) that an image is resized to before anything else, px."""
        if self.resize == "squash":
            return self.side, self.side
        if self.resize == "long":
            longer = max(height, width)
            sides = (round(side * self.side / longer) for side in (height, width))
            height, width = (max(1, side) for side in sides)
        return height, width

    def computing_size(self, height: int, width: int) -> tuple[int, int]:
        """Size (h, w) at which an image is looked at: its own, but for `most_pixels`, px."""
        if height * width > self.most_pixels:
            factor = math.sqrt(self.most_pixels / (height * width))
            height, width = (max(1, int(side * factor)) for side in (height, width))
        short, long = sorted((height, width))
        if short < self.min_side and self.min_side**2 * long > self.most_pixels * short:
            short, long = self.min_side, self.most_pixels // self.min_side
            return (short, long) if height < width else (long, short)
        return height, width


VIEWS: dict[str, MultiScale] = {
    "single": MultiScale(),
    "deeplabv2": MultiScale(LOGIT_FUSIONS["deeplabv2"]),
}
"""Protocols that belong to no single method: one view; DeepLabV2's maximum over five scales and
flip. Those of a method come with its recipe, see `wsss_lab.runs.recipe.find_views`."""


def resize_bilinear(
    maps: Float[Tensor, "b c _ _"], size: tuple[int, int]
) -> Float[Tensor, "b c h w"]:
    """Bilinear resize as all released test codes do it (align_corners=False); float32."""
    maps = maps.float()
    if tuple(maps.shape[-2:]) == tuple(size):
        return maps
    return F.interpolate(maps, size, mode="bilinear", align_corners=False)


@torch.no_grad()
def multi_scale_predict(
    predict: PredictFn,
    images: Float[Tensor, "b 3 h w"],
    views: MultiScale,
    tags: Float[Tensor, "b k"] | None = None,
) -> SegOutput:
    """Predict logits, maps and tags of images, in one pass over the views.

    Args:
        predict: `Method.predict` of a method in eval mode.
        images: RGB in [0, 1], all of one size.
        views: scales, flips, rules.
        tags: the true tags, only if they may be used; passed on to `predict`.

    Returns:
        At the size of `images`, float32: joined logits, maps in 0..1, and tag logits averaged over
        all views; `None` for what the method does not have.

    Raises:
        ValueError: a scale makes an image vanish, or no view gives anything.
    """
    full = _size(images)
    images = resize_bilinear(images, views.size_of(*full))
    flip = views.logits.flip or views.cam.flip
    both = None if tags is None else torch.cat([tags, tags]) if flip else tags
    seen = {s: predict(scaled(images, s, flip, views.min_side), both) for s in views.scales}
    first = seen[views.scales[0]]
    output = SegOutput()
    if first.logits is not None:
        maps = _pick([seen[s].logits for s in views.logits.scales], flip, views.logits.flip)
        joined = fuse_cams(maps, _meeting_size(maps, images, views.join_at), views.logits)
        output = replace(output, logits=resize_bilinear(joined, full))
    if first.cam is not None:
        maps = _pick([seen[s].cam for s in views.cam.scales], flip, views.cam.flip)
        cam = fuse_cams(maps, _size(images), views.cam)
        output = replace(output, cam=resize_bilinear(normalize_cam(cam, views.cam_norm), full))
    if first.tag_logits is not None:
        rows = [o.tag_logits.float() for o in seen.values() if o.tag_logits is not None]
        stacked = torch.stack(rows).unflatten(1, (-1, len(images)))  # (scales, flips, b, k)
        output = replace(output, tag_logits=stacked.mean((0, 1)))
    return output


def class_probabilities(output: SegOutput, threshold: float) -> Float[Tensor, "b k1 h w"]:
    """Soft maps whose argmax is the label map.

    Args:
        output: at image size, of `multi_scale_predict`.
        threshold: background score of class maps; not used where there are logits.

    Returns:
        Softmax of the logits; else the background score beside the maps of the tags that the
        method itself predicts, divided by their sum.

    Raises:
        ValueError: the method gives neither logits nor maps.
    """
    if output.logits is not None:
        return output.logits.softmax(1)
    if output.cam is None:
        raise ValueError("the method gives neither segmentation logits nor class maps")
    cam = output.cam
    if output.tag_logits is not None:
        cam = cam * (output.tag_logits > 0)[:, :, None, None]
    scores = torch.cat([torch.full_like(cam[:, :1], threshold), cam], 1)
    return scores / scores.sum(1, keepdim=True).clamp(min=torch.finfo(scores.dtype).tiny)


def scaled(
    images: Float[Tensor, "b 3 h w"], scale: float, flip: bool, min_side: int = 1
) -> Float[Tensor, "v 3 sh sw"]:
    """One view: the images at a scale, followed by their mirrored copies if `flip` is on.

    Sides are rounded down, as in the released codes. If the shorter one would fall below `min_side`
    px, the view is made as much larger as it takes.

    Raises:
        ValueError: nothing would be left of an image.
    """
    h, w = images.shape[-2:]
    size = (int(h * scale), int(w * scale))
    if min(size) < min_side and min_side > 1:
        size = (math.ceil(h * min_side / min(h, w)), math.ceil(w * min_side / min(h, w)))
    if min(size) < 1:
        raise ValueError(f"scales must leave at least one pixel of a {h}x{w} image, got {scale}")
    view = resize_bilinear(images, size)
    return torch.cat([view, view.flip(-1)]) if flip else view


def _pick(maps: Sequence[Tensor | None], have: bool, want: bool) -> list[Tensor]:
    """Maps of some scales; without their mirrored half where a rule does not want it."""
    found = [m for m in maps if m is not None]
    if len(found) != len(maps):
        raise ValueError("predict must return the same kinds of output at every scale")
    return [m.chunk(2)[0] if have and not want else m for m in found]


def _meeting_size(
    maps: Sequence[Tensor], images: Tensor, size: tuple[int, int] | str
) -> tuple[int, int]:
    if isinstance(size, tuple):
        return size
    return _size(images if size == "image" else maps[0])


def _size(maps: Tensor) -> tuple[int, int]:
    return maps.shape[-2], maps.shape[-1]
