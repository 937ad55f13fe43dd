"""Pixel truth of a painted canvas: mask, tags, parts, contexts and boxes."""

from dataclasses import dataclass

import numpy as np

from wsss_lab import IGNORE
from wsss_lab.data.catalog import TOY_CLASSES
from wsss_lab.data.toy.canvas import Canvas

TAG_SHARE = 0.004
"""A class is tagged if and only if it covers at least this share of the mask."""


@dataclass(frozen=True, eq=False)
class Scene:
    """Rendered scene with its ground truth."""

    image: np.ndarray
    """uint8 (h, w, 3), RGB."""
    mask: np.ndarray
    """uint8 (h, w): 0 background, 1..10 classes, 255 along borders and on untagged slivers."""
    tags: np.ndarray
    """uint8 (10,): 1 where the class covers at least `TAG_SHARE` of the mask."""
    distinctive: np.ndarray
    """bool (h, w): visible pixels of distinctive parts (borders included)."""
    context: np.ndarray
    """uint8 (h, w): 0 none, 1 water, 2 rails."""
    instance: np.ndarray
    """uint8 (h, w): 0 no object, 1..4 objects (borders included)."""
    part: np.ndarray
    """uint8 (h, w): index into `PART_KINDS`; 0 no object."""
    boxes: np.ndarray
    """int64 (n, 5): x0, y0, x1, y1 (excluded), mask value; visible part of each tagged object."""


def truth(canvas: Canvas, image: np.ndarray) -> Scene:
    """Derive mask, tags, parts, contexts and boxes from the map of parts."""
    columns = np.array(canvas.parts, dtype=np.uint8)
    tables = np.zeros((5, 256), dtype=np.uint8)
    tables[:, : len(columns)] = columns.T
    kind, label, instance, distinctive, context = (t.take(canvas.part) for t in tables)
    mask = label.copy()
    # 1 px below 112 px, 2 px up to 239 px, then 2 px more for every 160 px, as in VOC
    half = int(canvas.size / 160 + 0.5) if canvas.size >= 112 else 0
    band = _border(instance, half)
    np.copyto(mask, IGNORE, where=band)
    seen = np.bincount(mask.ravel(), minlength=256)[1 : len(TOY_CLASSES) + 1]
    tags = (seen >= TAG_SHARE * mask.size).astype(np.uint8)
    for value in {part.label for part in canvas.parts} - {0}:
        if not tags[value - 1]:
            np.copyto(mask, IGNORE, where=label == value)
    boxes = _boxes(instance, columns, tags)
    return Scene(image, mask, tags, distinctive.astype(bool), context, instance, kind, boxes)


def _border(instance: np.ndarray, half: int) -> np.ndarray:
    """Mark `half` pixels on both sides of every change of instance; 0: one pixel outside."""
    band = np.zeros(instance.shape, dtype=bool)
    across, down = instance[:, 1:] != instance[:, :-1], instance[1:] != instance[:-1]
    if half == 0:
        first, second = instance[:, 1:] < instance[:, :-1], instance[1:] < instance[:-1]
        band[:, 1:] |= across & first
        band[:, :-1] |= across & ~first
        band[1:] |= down & second
        band[:-1] |= down & ~second
        return band
    band[:, 1:] |= across
    band[:, :-1] |= across
    band[1:] |= down
    band[:-1] |= down
    for _ in range(half - 1):
        wider = band.copy()
        wider[:, 1:] |= band[:, :-1]
        wider[:, :-1] |= band[:, 1:]
        wider[1:] |= band[:-1]
        wider[:-1] |= band[1:]
        band = wider
    return band


def _boxes(instance: np.ndarray, columns: np.ndarray, tags: np.ndarray) -> np.ndarray:
    """Return the visible boxes (n, 5) of the objects whose class is tagged."""
    rows = []
    labels = dict(columns[:, 2:0:-1].tolist())  # instance -> mask value
    for value, label in sorted(labels.items()):
        if value == 0 or not tags[label - 1]:
            continue
        there = instance == value
        if not there.any():
            continue
        ys, xs = np.flatnonzero(there.any(1)), np.flatnonzero(there.any(0))
        rows.append((int(xs[0]), int(ys[0]), int(xs[-1]) + 1, int(ys[-1]) + 1, label))
    return np.array(rows, dtype=np.int64).reshape(-1, 5)
