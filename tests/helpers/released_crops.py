"""Random numbers of crops in the order in which the released codes draw them."""

import random

import numpy as np

from wsss_lab.data.crops import Window, scaled_size


def tscd_offsets(
    height: int, width: int, side: int, python: random.Random, legacy: np.random.RandomState
) -> tuple[int, int]:
    """Draw `top` and `left` in the order of TSCD's and CoSA's released crops.

    NumPy draws the padding above and left of the image, then Python the start of the window on the
    padded canvas, rows before columns. A number is drawn even where there is only one choice.
    """
    canvas = max(height, side), max(width, side)
    pad_top = int(legacy.randint(canvas[0] - height + 1))
    pad_left = int(legacy.randint(canvas[1] - width + 1))
    top, left = python.randrange(canvas[0] - side + 1), python.randrange(canvas[1] - side + 1)
    return top - pad_top, left - pad_left


def asdt_offsets(height: int, width: int, side: int, python: random.Random) -> tuple[int, int]:
    """Draw `top` and `left` as ASDT's released crop: columns before rows, from Python."""
    left, top = python.randrange(abs(width - side) + 1), python.randrange(abs(height - side) + 1)
    return top if height > side else -top, left if width > side else -left


def cosa_window(
    height: int,
    width: int,
    side: int,
    python: random.Random,
    legacy: np.random.RandomState,
    scale: tuple[float, float] = (0.5, 2.0),
) -> Window:
    """Draw a window in the order of CoSA's released code: scale and mirror, then `tscd_offsets`."""
    size = scaled_size(height, width, python.uniform(*scale))
    flip = python.random() > 0.5
    return Window(*size, *tscd_offsets(*size, side, python, legacy), side, flip)


def tscd_box(window: Window) -> tuple[int, int, int, int]:
    """`Window.box` as in TSCD's released code: the ends count from the padded image.

    The ends lie beyond the window where the image is larger. Slicing clips them and so gives
    the same pixels as with `Window.box`.
    """
    y0, _, x0, _ = window.box
    y1, x1 = (
        min(max(start, 0) + window.side, max(-start, 0) + length)
        for start, length in ((window.top, window.height), (window.left, window.width))
    )
    return y0, y1, x0, x1
