"""Behaviour that only the released code has, and its checkpoints.

The switches are the fields of `TSCDQuirks` in ``config``; the presets `-released` set them.

Nothing here is needed to understand or to train TSCD as this library does by default.
"""

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from wsss_lab import IGNORE
from wsss_lab.config import IMAGENET_MEAN, IMAGENET_STD
from wsss_lab.methods.common.checkpoints import (
    CheckpointKind,
    Contents,
    State,
    fit_parts,
    mit_name,
    rows_of,
)
from wsss_lab.methods.tscd.keymap import KEYMAP
from wsss_lab.models.backbones import build_backbone
from wsss_lab.models.heads import SegFormerHead, TagHead
from wsss_lab.models.keymaps import split_checkpoint
from wsss_lab.models.weights import load_strictly


def load_released(network: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Load a released checkpoint of TSCD or AFA, strictly, in place.

    Args:
        network: a `TSCDNetwork`.
        state: released names, with or without `module.` in front.

    Raises:
        ValueError: a tensor is missing, left over, or of another shape.
    """
    parts = split_checkpoint(state, KEYMAP)
    flat = {f"{part}.{key}": value for part, some in parts.items() for key, value in some.items()}
    load_strictly(network, flat, what="the TSCD checkpoint")


def _examine(state: State) -> Contents:
    name = mit_name(state, "encoder.")
    parts = split_checkpoint(state, KEYMAP)
    classes = rows_of(parts, "tag_head", "linear.weight")
    heads = parts["affinity_head"]["weight"].shape[1] if "affinity_head" in parts else 16
    with torch.device("meta"):
        backbone = build_backbone(name)
        hidden = rows_of(parts, "seg_head", "fuse.weight")
        modules = {
            "backbone": backbone,
            "seg_head": SegFormerHead(backbone.widths, classes + 1, hidden),
            "tag_head": TagHead(backbone.width, classes, pool="gmp"),
            "affinity_head": nn.Conv2d(heads, 1, 1),
        }
    fit_parts(modules, parts, "TSCD or AFA")
    return Contents("TSCD or AFA (one network, the same keys)", name, classes)


CHECKPOINT = CheckpointKind(("encoder.patch_embed1.", "decoder.linear_c1."), _examine)
"""Checkpoints of TSCD and AFA; names with or without `module.` in front."""


@torch.no_grad()
def update_statistics(norm: nn.Module, x: Float[Tensor, "b d h w"]) -> None:
    """Update the running statistics of a batch norm by a batch, without computing its output."""
    if type(norm) is not nn.BatchNorm2d or norm.momentum is None:
        norm(x)  # a synchronised one needs the other processes' batches
        return
    torch.batch_norm_update_stats(x, norm.running_mean, norm.running_var, norm.momentum)
    if norm.num_batches_tracked is not None:
        norm.num_batches_tracked += 1


def truncate_colours(
    images: Float[Tensor, "b 3 h w"],
    mean: Sequence[float] = IMAGENET_MEAN,
    std: Sequence[float] = IMAGENET_STD,
) -> Float[Tensor, "b 3 h w"]:
    """Return images in [0, 1] as the released code passes them to the refinement of labels.

    There, images are normalised, normalised back in float32, and cut off to whole grey levels. The
    way back makes some values a little smaller than they were, and these lose a level: about 1 %.

    Args:
        images: RGB in [0, 1]; whole grey levels, as crops of 8-bit images are.
        mean: `input_mean` of the backbone that they are normalised for; released: ImageNet's.
        std: its `input_std`.
    """
    # multiplied in double precision: 255 x 0.485 then rounds to the released 123.675
    middle, scale = (
        images.new_tensor([255 * value for value in values], dtype=torch.float32)[:, None, None]
        for values in (mean, std)
    )
    grey = (255 * images.float()).round()
    return ((grey - middle) / scale * scale + middle).clamp(0, 255).floor() / 255


def nan_when_missing(labels: Int[Tensor, "b h w"]) -> Float[Tensor, ""]:
    """Return 0, or NaN where the batch has no foreground or no background pixels.

    Added to the segmentation loss it restores the released mean over an empty set.
    """
    front, back = ((labels != 0) & (labels != IGNORE)).sum(), (labels == 0).sum()
    return 0 * (front / front + back / back)


def er_loss(
    cam: Float[Tensor, "b k h w"], cam_view: Float[Tensor, "b k vh vw"]
) -> Float[Tensor, ""]:
    """Compute the mean absolute difference of the two views' maps, first class left out.

    *In the released code* it is part of the sum with weight 0.1, but both sides are computed
    without gradient: a constant, which trains nothing. The first class (aeroplane in VOC) is
    dropped as if it were background, which maps do not have.
    """
    size = (cam_view.shape[2], cam_view.shape[3])
    small = F.interpolate(cam.detach(), size, mode="bilinear", align_corners=True)
    return (small[:, 1:] - cam_view.detach()[:, 1:]).abs().mean()
