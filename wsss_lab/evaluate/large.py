"""Photos of any size in bounded memory: one rule for labels, scores and predictions.

Network, refinement and CRF look at no more than `MultiScale.most_pixels` pixels. A larger photo is
shrunk for them, every pixel of the smaller one the mean of the area it covers. What they find,
class scores at the smaller size, is enlarged again to the photo's own size a band of rows at a
time, and every band is labelled before the next one is made. So masks have the size of their photo,
truth is compared at its own size, and classes times megapixels are never in memory at once. All
other photos take none of these steps.

A photo so thin that its enlargement to `MultiScale.min_side` would have more pixels than that is
stretched to that side and `most_pixels` in all: only there the sides lose their proportion.
"""

from collections.abc import Callable, Iterator

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, UInt8
from PIL import Image
from torch import Tensor

from wsss_lab.evaluate.inference import MultiScale, PredictFn, multi_scale_predict
from wsss_lab.methods.common.base import SegOutput

BAND = 1 << 22
"""Scores of a band, over all its rows and classes."""
SEPARATE = 1 << 16
"""Pixels from which photos go one by one on a CPU, whose caches several would not fit into."""


def look(
    predict: PredictFn,
    images: UInt8[Tensor, "b 3 _h _w"],
    views: MultiScale,
    tags: Float[Tensor, "b k"] | None = None,
    device: torch.device | str = "cpu",
) -> tuple[UInt8[Tensor, "b 3 h w"], SegOutput]:
    """Shrink photos if they are too large, and predict.

    Args:
        predict: `Method.predict` of a method in eval mode.
        images: RGB, all of one size; on the CPU.
        views: scales, flips, rules; the size.
        tags: see `multi_scale_predict`.
        device: where the network is.

    Returns:
        The photos as they were looked at, on the device, and all outputs at their size.
    """
    seen = shrunk(images, views.computing_size(*images.shape[-2:])).to(device)
    return seen, multi_scale_predict(predict, seen.float() / 255, views, tags)


def shrunk(images: UInt8[Tensor, "b 3 _h _w"], size: tuple[int, int]) -> UInt8[Tensor, "b 3 h w"]:
    """Resize photos by the mean over the area of every new pixel; themselves at their own size.

    Args:
        images: RGB, on the CPU.
        size: (h, w), px. A side that grows is filled by copies.
    """
    if tuple(images.shape[-2:]) == tuple(size):
        return images
    made = []
    for image in images.permute(0, 2, 3, 1).numpy():
        photo = Image.fromarray(np.ascontiguousarray(image))
        made.append(np.array(photo.resize(size[::-1], Image.Resampling.BOX)))
    return torch.from_numpy(np.stack(made)).permute(0, 3, 1, 2).contiguous()


def bands(scores: Float[Tensor, "b c h w"], size: tuple[int, int]) -> Iterator[slice]:
    """Yield the rows of each band at the full size; all at once where scores have it already.

    Args:
        scores: at the size at which they were computed.
        size: full (h, w), px.
    """
    if tuple(scores.shape[-2:]) == tuple(size):
        yield slice(0, size[0])
        return
    step = max(1, BAND // (scores.shape[0] * scores.shape[1] * size[1]))
    for top in range(0, size[0], step):
        yield slice(top, min(top + step, size[0]))


def at_rows(
    scores: Float[Tensor, "b c h w"], size: tuple[int, int], rows: slice
) -> Float[Tensor, "b c _rows _w"]:
    """Resize scores to some rows of the full size, bilinear (align_corners=False).

    Args:
        scores: at the size at which they were computed.
        size: full (h, w), px.
        rows: of the full size, without a step.

    Returns:
        What `resize_bilinear` would give for these rows, up to rounding; the scores themselves if
        all rows of their own size are wanted.
    """
    height, width = scores.shape[-2:]
    if (height, width) == tuple(size):
        return scores[..., rows, :]
    row = torch.arange(rows.start, rows.stop, device=scores.device, dtype=torch.float64)
    at = ((row + 0.5) * (height / size[0]) - 0.5).clamp_(0, height - 1)
    above = at.long()
    below = (above + 1).clamp_(max=height - 1)
    share = (at - above).to(scores.dtype)[:, None]
    lines = torch.lerp(scores[..., above, :], scores[..., below, :], share)
    return F.interpolate(lines, (len(row), size[1]), mode="bilinear", align_corners=False)


def label_by_band(
    scores: Float[Tensor, "b c _h _w"],
    size: tuple[int, int],
    label: Callable[[Float[Tensor, "b c _rows w"]], Int[Tensor, "b _rows w"]],
) -> Int[Tensor, "b h w"]:
    """Label photos at their own size from scores at the size at which they were looked at.

    Args:
        scores: logits, probabilities or maps.
        size: (h, w) of the photos, px.
        label: scores at full resolution -> labels 0..255; called for each band.

    Returns:
        Labels; of the type that `label` gives where there is one band, else uint8, on the CPU.
    """
    if tuple(scores.shape[-2:]) == tuple(size):
        return label(scores)
    made = torch.empty((len(scores), *size), dtype=torch.uint8)
    for rows in bands(scores, size):
        made[:, rows] = label(at_rows(scores, size, rows)).to(torch.uint8).cpu()
    return made


def enlarged_label(label: Int[Tensor, "b _h _w"], size: tuple[int, int]) -> Int[Tensor, "b h w"]:
    """Bring labels to the size of their photo by copies of the nearest one.

    For rules that end in labels, not in scores.

    Args:
        label: at the size at which the photo was looked at.
        size: (h, w) of the photo, px.
    """
    if tuple(label.shape[-2:]) == tuple(size):
        return label
    small = label.to(torch.uint8).cpu()[:, None]
    return F.interpolate(small, size, mode="nearest-exact")[:, 0]


def group_size(
    batch: int, views: MultiScale, device: torch.device
) -> Callable[[tuple[int, int]], int]:
    """Return how many photos of a size go together, for `by_shape`.

    Args:
        batch: most.
        views: photos that these shrink go alone, since a few of them fill the memory.
        device: on a CPU, photos of `SEPARATE` pixels or more go alone too: a pass over several
            takes up to twice as long per photo, because their maps leave the caches.
    """

    def most(size: tuple[int, int]) -> int:
        height, width = size
        alone = device.type == "cpu" and height * width >= SEPARATE
        return 1 if alone or views.computing_size(height, width) != (height, width) else batch

    return most
