"""Facts about data sets: class names, palettes, archives and checksums."""

import numpy as np

TOY_CLASSES = ("cat", "dog", "horse", "cow", "bird", "car", "bus", "train", "boat", "plane")
"""Foreground classes of the toy world; mask value of class `c` is `c + 1`."""


def voc_palette(size: int = 256) -> np.ndarray:
    """The colour map of PASCAL VOC: bit `7 - j` of a channel is bit `3 j + channel` of the index.

    Args:
        size: number of entries, 1..256.

    Returns:
        uint8 array (size, 3), RGB. Entry 255 is the near-white of ignored pixels.
    """
    index = np.arange(size, dtype=np.uint8)
    palette = np.zeros((size, 3), dtype=np.uint8)
    for j in range(8):
        for channel in range(3):
            palette[:, channel] |= ((index >> channel) & 1) << (7 - j)
        index = index >> 3
    return palette
