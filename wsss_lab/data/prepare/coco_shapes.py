"""Shapes of COCO annotations, checked before pycocotools gets them: it trusts what it is given.

Its C code neither looks at the size of an RLE nor at the values of a polygon, and what does not fit
ends the whole process.
"""

import math
from collections.abc import Mapping
from typing import Any

FARTHEST = 100_000.0
"""Largest coordinate of a polygon, px; no image format has longer sides."""
VERTICES = 1_000_000
"""Most numbers in one polygon."""


def checked_shape(shape: Any, height: int, width: int) -> Any:
    """Return the `segmentation` of an annotation in a form that pycocotools can take.

    Args:
        shape: polygons, or an RLE with `size` and `counts` as list or text.
        height: height of the photo, px.
        width: width of the photo, px.

    Returns:
        Polygons of at least three points, or the RLE.

    Raises:
        ValueError: a coordinate that is no finite number or far away, an RLE of another size, or
            runs that do not add up to the photo.
    """
    if isinstance(shape, list):
        # two points have no area, and pycocotools takes four numbers for a box
        return [_checked_polygon(polygon) for polygon in shape if len(polygon) >= 6]
    if not isinstance(shape, Mapping):
        raise ValueError(f"segmentation: expected polygons or an RLE, got {type(shape).__name__}")
    if list(shape.get("size", ())) != [height, width]:
        raise ValueError(
            f"size: expected [{height}, {width}], the photo's, got {shape.get('size')!r}"[:200]
        )
    counts = shape.get("counts")
    runs = counts if isinstance(counts, list) else runs_of(counts)
    if not all(type(run) is int and run >= 0 for run in runs) or sum(runs) != height * width:
        raise ValueError(f"counts: expected runs that add up to {height} x {width} pixels")
    return {"size": [height, width], "counts": counts}


def _checked_polygon(polygon: Any) -> list[float]:
    if not isinstance(polygon, list) or len(polygon) % 2 or len(polygon) > VERTICES:
        raise ValueError("segmentation: expected a polygon as a list x, y, x, y, ...")
    for value in polygon:
        number = type(value) in (int, float)
        if not number or not math.isfinite(value) or abs(value) > FARTHEST:
            raise ValueError(
                f"segmentation: expected coordinates within {FARTHEST:.0f} px, got {value!r}"[:200]
            )
    return polygon


def runs_of(text: Any) -> list[int]:
    """Decode the run lengths of a compressed RLE.

    Five bits a character, the sixth marks that more follow; from the fourth run on, a number is the
    difference to the run before the last.

    Raises:
        ValueError: not such a text.
    """
    if isinstance(text, bytes):
        text = text.decode("latin-1")
    if not isinstance(text, str):
        raise ValueError(f"counts: expected a list or a text, got {type(text).__name__}")
    runs: list[int] = []
    value = shift = 0
    for letter in text:
        code = ord(letter) - 48
        if not 0 <= code < 64 or shift > 30:
            raise ValueError("counts: expected a compressed RLE")
        value |= (code & 31) << shift
        shift += 5
        if code & 32:
            continue
        if code & 16:
            value -= 1 << shift
        runs.append(value + runs[-2] if len(runs) > 2 else value)
        value = shift = 0
    if shift:
        raise ValueError("counts: the compressed RLE ends within a number")
    return runs
