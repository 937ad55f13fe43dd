"""Bounds of lists and real pixels, read from a batch by all methods alike."""

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from wsss_lab.cam import box_to_valid
from wsss_lab.methods.common.base import Batch


def tag_bound(batch: Batch) -> int | None:
    """Return how long a list of an image's tags must be, without waiting for an accelerator.

    Counting the tags on an accelerator would stop the program until all work queued there is done.
    A bound that is too high costs memory and changes no result: see
    `wsss_lab.cam.present_classes`, whose `max_present` this is.

    Returns:
        `max_tags` of the batch. Without it None on a CPU, where counting is cheap; elsewhere the
        number of classes.
    """
    tags = batch["tags"]
    if "max_tags" in batch:
        return batch["max_tags"]
    return None if tags.device.type == "cpu" else tags.shape[1]


def real_boxes(batch: Batch) -> Int[Tensor, "b 4"]:
    """Return the boxes of real pixels, `boxes` of the batch; without them the whole crops.

    Returns:
        [y0, y1, x0, x1] per image, px, ends excluded.
    """
    if "boxes" in batch:
        return batch["boxes"].long()
    images = batch["images"]
    whole = torch.tensor([[0, images.shape[2], 0, images.shape[3]]], device=images.device)
    return whole.expand(len(images), 4)


def valid_pixels(batch: Batch) -> Bool[Tensor, "b h w"]:
    """Return the real pixels: `valid` of the batch, else those inside `boxes`, else all.

    Returns:
        True at real pixels, False in the padding of a crop.
    """
    if "valid" in batch:
        return batch["valid"]
    images = batch["images"]
    return box_to_valid(real_boxes(batch), (images.shape[2], images.shape[3]))
