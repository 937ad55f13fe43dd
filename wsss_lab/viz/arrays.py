"""Conversion of images, label maps and class maps to RGB arrays."""

import matplotlib as mpl
import numpy as np
from jaxtyping import UInt8
from numpy.typing import ArrayLike
from PIL import Image

from wsss_lab.data.catalog import voc_palette

HEAT = "inferno"
"""Colour map of activation maps; its lightness rises evenly, so it remains readable in grey
print."""


def array_of(value: ArrayLike) -> np.ndarray:
    """Return a NumPy array from an array or a tensor on any device, with or without gradient."""
    if hasattr(value, "detach"):
        value = value.detach().cpu().numpy()
    return np.asarray(value)


def rgb(image: ArrayLike) -> UInt8[np.ndarray, "h w 3"]:
    """Convert an image to `uint8` (h, w, 3).

    Args:
        image: (h, w, 3), (3, h, w) or grey (h, w); `uint8`, or float in [0, 1]. Where both layouts
            are possible, a last axis of 3 is taken as channels.

    Raises:
        ValueError: another shape, another type, or floats outside [0, 1].
    """
    array = array_of(image)
    if array.ndim == 2:
        array = np.repeat(array[..., None], 3, axis=-1)
    if array.ndim != 3 or 3 not in (array.shape[0], array.shape[-1]):
        raise ValueError(
            f"image: expected (h, w, 3), (3, h, w) or (h, w), got shape {array.shape}; "
            "for a batch, pass one image at a time"
        )
    if array.shape[-1] != 3:
        array = np.moveaxis(array, 0, -1)
    if array.dtype == np.uint8:
        return np.ascontiguousarray(array)
    if not np.issubdtype(array.dtype, np.floating):
        raise ValueError(f"image: expected uint8 or float, got {array.dtype}; cast it to uint8")
    _check_unit(array, "image", "undo the normalisation first")
    return np.ascontiguousarray(np.rint(array * 255).astype(np.uint8))


def _check_unit(array: np.ndarray, name: str, remedy: str) -> None:
    if array.size == 0 or not np.isfinite(array).all() or array.min() < 0 or array.max() > 1 + 1e-6:
        span = f"{array.min():.3g}..{array.max():.3g}" if array.size else "no values"
        raise ValueError(f"{name}: expected finite values in [0, 1], got {span}; {remedy}")


def _map(cam: ArrayLike, name: str = "cam") -> np.ndarray:
    array = array_of(cam)
    if array.ndim != 2:
        raise ValueError(
            f"{name}: expected (h, w), got shape {array.shape}; pass the map of one class"
        )
    array = array.astype(np.float32)
    _check_unit(array, name, "normalise it, e.g. divide by its maximum")
    return np.clip(array, 0, 1)


def _label(label: ArrayLike) -> np.ndarray:
    array = array_of(label)
    if array.ndim != 2 or not np.issubdtype(array.dtype, np.integer):
        raise ValueError(
            f"label: expected integer (h, w), got {array.dtype} {array.shape}; "
            "take the argmax over classes first"
        )
    if array.size and (array.min() < 0 or array.max() > 255):
        raise ValueError(
            f"label: expected values 0..255, got {array.min()}..{array.max()}; 255 means ignored"
        )
    return array


def palette_image(label: ArrayLike) -> UInt8[np.ndarray, "h w 3"]:
    """Colour a label map with the palette of PASCAL VOC.

    Args:
        label: integer (h, w), values 0..255; 255 (ignored) becomes near-white.

    Returns:
        `uint8` (h, w, 3).

    Raises:
        ValueError: not an integer map, or values outside 0..255.
    """
    return voc_palette()[_label(label)]


def heat(cam: ArrayLike, cmap: str = HEAT) -> UInt8[np.ndarray, "h w 3"]:
    """Colour a map in [0, 1]: 0 is the darkest entry of the colour map, 1 the brightest.

    Args:
        cam: float (h, w) in [0, 1]. It is not rescaled, so maps stay comparable.
        cmap: name of a matplotlib colour map.

    Returns:
        `uint8` (h, w, 3).

    Raises:
        ValueError: another shape, or values outside [0, 1].
    """
    return np.rint(mpl.colormaps[cmap](_map(cam))[..., :3] * 255).astype(np.uint8)


def _resize(array: np.ndarray, shape: tuple[int, int], smooth: bool) -> np.ndarray:
    """Resize a (h, w) map to the pixel grid of `shape`: bilinear for maps, nearest for labels."""
    if array.shape == shape:
        return array
    method = Image.Resampling.BILINEAR if smooth else Image.Resampling.NEAREST
    mode = np.float32 if smooth else np.uint8
    return np.asarray(Image.fromarray(array.astype(mode)).resize(shape[::-1], method))


def overlay(
    image: ArrayLike, label_or_cam: ArrayLike, *, alpha: float = 0.6, cmap: str = HEAT
) -> UInt8[np.ndarray, "h w 3"]:
    """Draw a label map or an activation map over an image.

    An integer map is a label: background keeps the photo, every class covers it with its palette
    colour, ignored pixels turn near-white. A float map is an activation: the photo, in grey, shows
    through where the map is low. A coarser map is resized to the image first.

    Args:
        image: see `rgb`.
        label_or_cam: integer label (h, w) or float map (h, w) in [0, 1].
        alpha: largest opacity of the colour over the photo, in [0, 1].
        cmap: colour map for float maps.

    Returns:
        `uint8` (h, w, 3), the size of the image.

    Raises:
        ValueError: `alpha` outside [0, 1], or a map that is neither of the two kinds.
    """
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha: expected a number in [0, 1], got {alpha}")
    photo = rgb(image).astype(np.float32)
    array = array_of(label_or_cam)
    if np.issubdtype(array.dtype, np.integer):
        label = _resize(_label(array), photo.shape[:2], smooth=False)
        weight = alpha * (label != 0)[..., None]
        colour = voc_palette()[label]
    else:
        cam = np.clip(_resize(_map(array), photo.shape[:2], smooth=True), 0, 1)
        photo = np.repeat(photo.mean(axis=-1, keepdims=True), 3, axis=-1)
        weight = np.float32(alpha)
        colour = heat(cam, cmap)
    return np.rint((1 - weight) * photo + weight * colour).astype(np.uint8)
