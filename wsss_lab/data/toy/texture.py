"""Tiles of value noise that give the toy world its surfaces."""

from functools import lru_cache

import numpy as np

from wsss_lab.data.toy.rng import uniform

_OCTAVES: dict[str, list[tuple[float, int, int]]] = {
    # amplitude, cells across, cells down; a tile is two image sides wide and high
    "cloud": [(0.6, 5, 8), (0.3, 10, 16), (0.16, 22, 30), (0.08, 50, 60)],
    "fur": [(0.3, 20, 40), (0.5, 56, 120), (0.2, 8, 8)],
    "smooth": [(0.5, 5, 5), (0.2, 14, 14)],
    "patch": [(0.75, 15, 15), (0.25, 40, 40)],
    "grass": [(0.3, 8, 8), (0.4, 90, 34), (0.4, 128, 70)],
    "leaf": [(0.4, 30, 30), (0.6, 70, 70), (0.3, 128, 128)],
    "water": [(0.3, 5, 14), (0.5, 16, 70), (0.35, 34, 128)],
    "gravel": [(0.6, 128, 128), (0.35, 64, 64), (0.2, 10, 10)],
    "sand": [(0.3, 8, 12), (0.25, 110, 110)],
    "bark": [(0.6, 64, 12), (0.3, 128, 40)],
    "hill": [(0.7, 6, 6), (0.25, 18, 18), (0.08, 60, 60)],
    "brick": [(0.25, 100, 100), (0.2, 8, 8)],
    "plank": [(0.3, 30, 6), (0.18, 90, 20)],
}


def _noise(key: int, side: int, across: int, down: int) -> np.ndarray:
    """Tileable value noise (side, side) in -1..1 with the given number of cells."""
    grid = uniform((0x70F, key, across, down), across * down).astype(np.float32)
    grid = grid.reshape(down, across)
    for axis in (0, 1):
        cells = grid.shape[axis]
        position = (np.arange(side) * cells / side).astype(np.float32)
        first = np.floor(position).astype(np.int64)
        weight = position - first.astype(np.float32)
        weight = weight * weight * (3 - 2 * weight)
        weight = weight.reshape((-1, 1) if axis == 0 else (1, -1))
        low, high = np.take(grid, first, axis), np.take(grid, (first + 1) % cells, axis)
        grid = low * (1 - weight) + high * weight
    return grid * 2 - 1


@lru_cache(maxsize=4)
def texture_bank(size: int) -> dict[str, np.ndarray]:
    """Return all textures for images of one size.

    Args:
        size: image side in pixels.

    Returns:
        name -> float32 array (2 size, 2 size), about -1..1, mean near 0. A window of one image
        side fits at every offset below `size`.
    """
    side = 2 * size
    bank = {}
    for key, (name, octaves) in enumerate(_OCTAVES.items()):
        tile = np.zeros((side, side), dtype=np.float32)
        for amplitude, across, down in octaves:
            tile += np.float32(amplitude) * _noise(key, side, across, down)
        bank[name] = tile
    # joints, in units of 1/256 tile so that they keep their share of the image at every size
    at = np.arange(side) * 256 // side
    rows, columns = at[:, None], at[None, :]
    shift = 8 * ((rows // 12) % 2)
    joint = (rows % 12 < 2) | ((columns + shift) % 24 < 2)
    bank["brick"] += np.where(joint, np.float32(0.7), np.float32(-0.12))
    bank["plank"] += np.where(columns % 22 < 2, np.float32(-0.8), np.float32(0.08))
    return {name: np.ascontiguousarray(tile) for name, tile in bank.items()}
