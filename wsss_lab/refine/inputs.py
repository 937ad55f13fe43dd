"""Checks of images and probabilities for the CRF and the energy.

Shapes, types and devices are always checked. Values are checked on the CPU only, where that needs
no synchronisation.
"""

import torch
from torch import Tensor


def check_images(images: Tensor, name: str = "images") -> None:
    """Check that images are RGB in 0..255: (b, 3, h, w), `uint8` or float, not normalised."""
    if images.ndim != 4 or images.shape[1] != 3 or 0 in images.shape:
        raise ValueError(
            f"{name}: expected (batch, 3, height, width) with no empty axis, got "
            f"{tuple(images.shape)}; permute channels first and add a batch axis"
        )
    if images.dtype == torch.uint8:
        return
    if not images.is_floating_point():
        raise ValueError(
            f"{name}: expected uint8 or float in 0..255, got {images.dtype}; convert with .float()"
        )
    if images.device.type != "cpu":
        return
    low, high = (float(v) for v in images.detach().aminmax())
    if not (low > -1 and high < 256):  # also catches NaN
        raise ValueError(
            f"{name}: expected RGB in 0..255, got values from {low:.4g} to {high:.4g}; undo the "
            "normalisation (times standard deviation, plus mean)"
        )
    if 0 < high <= 1:
        raise ValueError(
            f"{name}: expected RGB in 0..255, got values up to {high:.4g}; multiply by 255 (the "
            "kernel widths are on that scale)"
        )


def check_probs(probs: Tensor, *, normalised: bool = True, name: str = "probs") -> None:
    """Check probabilities: (b, classes, h, w), in [0, 1], with sum 1 per pixel if `normalised`."""
    if probs.ndim != 4 or 0 in probs.shape:
        raise ValueError(
            f"{name}: expected (batch, classes, height, width) with no empty axis, got "
            f"{tuple(probs.shape)}; add a batch axis with {name}[None]"
        )
    if not probs.is_floating_point():
        raise ValueError(
            f"{name}: expected floating point, got {probs.dtype}; for hard labels use "
            "unary_from_labels"
        )
    if probs.device.type != "cpu":
        return
    low, high = (float(v) for v in probs.detach().aminmax())
    if not (low >= 0 and high <= 1 + 1e-3):  # also catches NaN
        raise ValueError(
            f"{name}: expected values in [0, 1], got {low:.4g} to {high:.4g}; apply softmax over "
            "classes first"
        )
    if normalised:
        total = probs.detach().float().sum(1)
        worst = float((total - 1).abs().max())
        if worst > 0.02:
            raise ValueError(
                f"{name}: expected a sum of 1 over classes at every pixel, got a sum off by "
                f"{worst:.4g}; apply softmax, or say normalised=False if scores in [0, 1] are meant"
            )


def check_match(one: Tensor, other: Tensor, names: tuple[str, str]) -> None:
    """Check that batch, height, width and device are equal."""
    sizes = [(t.shape[0], *t.shape[-2:]) for t in (one, other)]
    if sizes[0] != sizes[1]:
        raise ValueError(
            f"{names[1]}: expected batch, height and width {sizes[0]} as of {names[0]}, got "
            f"{sizes[1]}; resize one to the other (F.interpolate)"
        )
    if one.device != other.device:
        raise ValueError(
            f"{names[1]}: expected device {one.device} as of {names[0]}, got {other.device}; "
            "move both to one device"
        )
