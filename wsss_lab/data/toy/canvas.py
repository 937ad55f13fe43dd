"""Raster primitives: distance fields in clipped boxes, painted on planar float32 images.

A shape is a distance field in pixels, negative inside. Anti-aliasing is `clip(0.5 - d)`, outline
and relief come from the same field. Only `+ - * / sqrt floor min max` and comparisons are used:
they round the same way everywhere, so a scene does not depend on the machine or the library.
"""

import math
from typing import NamedTuple, TypedDict

import numpy as np

from wsss_lab.data.toy.rng import Colour
from wsss_lab.data.toy.texture import texture_bank

Box = tuple[int, int, int, int]
"""x0, y0, x1, y1 in pixels; x1 and y1 are excluded."""


class Style(TypedDict, total=False):
    """Arguments of `Canvas.paint` that change how a shape looks, not where it is."""

    second: Colour | None
    pattern: np.ndarray | None
    texture: str | None
    offset: tuple[int, int]
    amp: float
    relief: float
    depth: float
    outline: float
    opacity: float
    soft: float


class Part(NamedTuple):
    """Entry of the table of parts: meaning of one value in the part map."""

    kind: int = 0
    label: int = 0
    """Mask value of the object, 0 for background."""
    instance: int = 0
    distinctive: bool = False
    context: int = 0
    """0 none, 1 water, 2 rails."""


class Canvas:
    """RGB image (3, size, size) in 0..1 and the map of the part visible at each pixel."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.unit = size / 128
        self.rgb = np.zeros((3, size, size), dtype=np.float32)
        self.part = np.zeros((size, size), dtype=np.uint8)
        self.parts: list[Part] = [Part()]
        self.xs = (np.arange(size, dtype=np.float32) + np.float32(0.5))[None, :]
        self.ys = (np.arange(size, dtype=np.float32) + np.float32(0.5))[:, None]
        self.textures = texture_bank(size)
        self.sun = 0
        """Side of the light: -1 left, 0 above, 1 right."""

    def register(self, part: Part) -> int:
        """Add an entry to the table of parts; return its number in the part map."""
        self.parts.append(part)
        return len(self.parts) - 1

    def box(self, x0: float, y0: float, x1: float, y1: float) -> Box | None:
        """Return the pixel box of a rectangle with a margin of one; None outside the image."""
        size = self.size
        left, top = max(0, math.floor(x0 - 1)), max(0, math.floor(y0 - 1))
        right, bottom = min(size, math.floor(x1 + 2)), min(size, math.floor(y1 + 2))
        return (left, top, right, bottom) if left < right and top < bottom else None

    def paint(
        self,
        box: Box,
        field: np.ndarray,
        colour: Colour,
        part: int | np.ndarray = 0,
        *,
        second: Colour | None = None,
        pattern: np.ndarray | None = None,
        texture: str | None = None,
        offset: tuple[int, int] = (0, 0),
        amp: float = 0.12,
        relief: float = 0.0,
        depth: float = 6.0,
        outline: float = 0.0,
        opacity: float = 1.0,
        soft: float = 1.0,
    ) -> None:
        """Paint a shape over the image.

        Args:
            box: position of the field.
            field: (h, w) float32 distance in pixels.
            colour: fill.
            part: number of the part, or a map (h, w) of them; 0 leaves the part map unchanged.
            second: colour where `pattern` (h, w), 0..1, is 1.
            pattern: mixing weight of `second`.
            texture: name of a tile that modulates brightness by `amp`.
            offset: start of the image in the tile, (x, y) below the image side.
            amp: strength of the texture.
            relief: strength of the light on the rounded rim.
            depth: width of that rim in pixels.
            outline: darkening along the border.
            opacity: 0..1.
            soft: width of the border ramp in pixels.
        """
        x0, y0, x1, y1 = box
        shade = self._shade(field, relief, depth, outline)
        if texture is not None:
            ox, oy = offset
            grain = self.textures[texture][oy + y0 : oy + y1, ox + x0 : ox + x1] * amp
            if shade is None:
                grain += 1
                shade = grain
            else:
                shade += grain
        alpha = field * (-1.0 / soft)
        alpha += 0.5
        np.maximum(alpha, 0, out=alpha)
        np.minimum(alpha, 1, out=alpha)
        if isinstance(part, np.ndarray) or part:
            np.copyto(self.part[y0:y1, x0:x1], part, where=alpha > 0.5)
        if opacity < 1:
            alpha *= opacity
        fill = np.array(colour, dtype=np.float32).reshape(3, 1, 1)
        if second is not None and pattern is not None:
            fill = fill + (np.array(second, dtype=np.float32).reshape(3, 1, 1) - fill) * pattern
        if shade is not None:
            fill = fill * shade
        target = self.rgb[:, y0:y1, x0:x1]
        change = fill - target
        change *= alpha
        target += change

    def _shade(
        self, field: np.ndarray, relief: float, depth: float, outline: float
    ) -> np.ndarray | None:
        """Brightness factor from the rim light and the outline; None where there is neither."""
        shade = None
        if relief:
            shade = np.zeros_like(field)
            # slope of the distance towards the light: positive on the side that faces it
            if self.sun < 0:
                np.subtract(field[:-1, :-1], field[1:, 1:], out=shade[1:, 1:])
            elif self.sun > 0:
                np.subtract(field[:-1, 1:], field[1:, :-1], out=shade[1:, :-1])
            else:
                np.subtract(field[:-1], field[1:], out=shade[1:])
            rim = field * (1 / depth)
            rim += 1
            np.maximum(rim, 0, out=rim)
            np.minimum(rim, 1, out=rim)
            rim *= relief
            shade *= rim
            shade += 1
        if outline:
            edge = field * (0.55 / self.unit)
            edge += 1.15
            np.maximum(edge, 0, out=edge)
            np.minimum(edge, 1, out=edge)
            edge *= -outline
            if shade is None:
                edge += 1
                return edge
            shade += edge
        return shade

    # distance fields, image coordinates

    def ellipse(
        self, box: Box, x: float, y: float, a: tuple[float, float], b: tuple[float, float]
    ) -> np.ndarray:
        """Return the distance (exact only at the border) to an ellipse with half axes a and b."""
        x0, y0, x1, y1 = box
        dx, dy = self.xs[:, x0:x1] - x, self.ys[y0:y1] - y
        aa, bb = a[0] * a[0] + a[1] * a[1] + 1e-6, b[0] * b[0] + b[1] * b[1] + 1e-6
        u = dx * (a[0] / aa) + dy * (a[1] / aa)
        v = dx * (b[0] / bb) + dy * (b[1] / bb)
        u *= u
        v *= v
        u += v
        np.sqrt(u, out=u)
        u -= 1
        u *= math.sqrt(min(aa, bb))
        return u

    def capsule(
        self, box: Box, p: tuple[float, float], q: tuple[float, float], r0: float, r1: float
    ) -> np.ndarray:
        """Return the distance to the thick line from p (radius r0) to q (radius r1)."""
        x0, y0, x1, y1 = box
        dx, dy = self.xs[:, x0:x1] - p[0], self.ys[y0:y1] - p[1]
        ex, ey = q[0] - p[0], q[1] - p[1]
        length = ex * ex + ey * ey + 1e-6
        along = dx * (ex / length) + dy * (ey / length)
        np.maximum(along, 0, out=along)
        np.minimum(along, 1, out=along)
        u = dx - along * ex
        v = dy - along * ey
        u *= u
        v *= v
        u += v
        np.sqrt(u, out=u)
        if r0 != r1:
            along *= r1 - r0
            u -= along
        u -= r0
        return u

    def polygon(
        self, box: Box, points: list[tuple[float, float]], rounding: float = 0.0
    ) -> np.ndarray:
        """Return the distance to a convex polygon; `rounding` in pixels smooths its corners."""
        x0, y0, x1, y1 = box
        xs, ys = self.xs[:, x0:x1], self.ys[y0:y1]
        pairs = list(zip(points, points[1:] + points[:1], strict=True))
        area = 0.0
        for (ax, ay), (bx, by) in pairs:
            area += ax * by - bx * ay
        sign = 1.0 if area > 0 else -1.0
        field: np.ndarray | None = None
        for (ax, ay), (bx, by) in pairs:
            ex, ey = bx - ax, by - ay
            length = math.sqrt(ex * ex + ey * ey) + 1e-6
            nx, ny = sign * ey / length, -sign * ex / length
            side = xs * nx + (ys * ny - (nx * ax + ny * ay))
            if field is None:
                field = side
            elif rounding:
                field = smooth_max(field, side, rounding)
            else:
                np.maximum(field, side, out=field)
        assert field is not None  # a polygon has sides
        return field


def smooth_max(field: np.ndarray, other: np.ndarray, radius: float) -> np.ndarray:
    """Return the maximum of two fields with a rounded corner."""
    blend = field - other
    np.abs(blend, out=blend)
    np.minimum(blend, radius, out=blend)
    blend -= radius
    blend *= blend
    blend *= 0.25 / radius
    np.maximum(field, other, out=field)
    field += blend
    return field


def smooth_min_into(field: np.ndarray, other: np.ndarray, radius: float) -> None:
    """Replace a field by its minimum with another, rounded within `radius` pixels."""
    if radius > 0:
        blend = field - other
        np.abs(blend, out=blend)
        np.minimum(blend, radius, out=blend)
        blend -= radius
        blend *= blend
        blend *= 0.25 / radius
        np.minimum(field, other, out=field)
        field -= blend
    else:
        np.minimum(field, other, out=field)
