"""Drawing in the frame of one object: unit lengths, feet on y = 0, facing right."""

import math
from typing import Unpack

import numpy as np

from wsss_lab.data.toy.canvas import Canvas, Part, Style, smooth_min_into
from wsss_lab.data.toy.rng import Colour

PART_KINDS = (
    "none",
    "body",
    "legs",
    "tail",
    "head",
    "wing",
    "wheels",
    "cabin",
    "ears",
    "mane",
    "horns",
    "beak",
    "bonnet",
    "door",
    "sign",
    "nose",
    "sail",
    "fin",
)
"""Names of the values of `Scene.part`; 0 is everything that is not an object."""

Piece = tuple[float, ...]
"""(part, x, y, rx, ry): an ellipse; (part, x0, y0, x1, y1, r0, r1): a thick line."""
Point = tuple[float, float]


class Pen:
    """Pen from object frame to image: mirror, small rotation, scale; registers its parts."""

    def __init__(
        self,
        canvas: Canvas,
        at: Point,
        scale: float,
        *,
        flip: bool,
        turn: float,
        offset: tuple[int, int],
        outline: float,
        label: int,
        instance: int,
    ) -> None:
        # rational parametrisation of the unit circle: cosine and sine without a library call
        cos, sin = (1 - turn * turn) / (1 + turn * turn), 2 * turn / (1 + turn * turn)
        side = -1.0 if flip else 1.0
        self.canvas, self.scale = canvas, scale
        self._x, self._y = at
        self._a, self._b = cos * scale * side, -sin * scale
        self._c, self._d = sin * scale * side, cos * scale
        self.offset, self.outline = offset, outline
        self._label, self._instance = label, instance
        self._known: dict[str, int] = {}

    def part(self, kind: str, distinctive: bool = False) -> int:
        """Return the number of a part of this object in the canvas's table."""
        if kind not in self._known:
            entry = Part(PART_KINDS.index(kind), self._label, self._instance, distinctive)
            self._known[kind] = self.canvas.register(entry)
        return self._known[kind]

    def at(self, x: float, y: float) -> Point:
        """Return the image coordinates of a point of the object."""
        return self._x + self._a * x + self._b * y, self._y + self._c * x + self._d * y

    def _style(self, style: Style) -> Style:
        style.setdefault("outline", self.outline)
        style.setdefault("offset", self.offset)
        if "depth" in style:
            style["depth"] = max(1.0, style["depth"] * self.scale)
        return style

    def blob(
        self,
        pieces: list[Piece],
        colour: Colour,
        blend: float = 0.0,
        coat: tuple[Colour, float, float] | None = None,
        **style: Unpack[Style],
    ) -> None:
        """Draw ellipses and thick lines blended into one body.

        Args:
            pieces: see `Piece`; part 0 leaves the part map unchanged.
            colour: fill.
            blend: radius within which pieces blend, object units.
            coat: (second colour, sharpness, level) of patches of noise.
            style: further arguments of `Canvas.paint`; `depth` in object units.
        """
        canvas, s = self.canvas, self.scale
        melt = blend * s
        placed = []
        for piece in pieces:
            if len(piece) == 5:
                x, y = self.at(piece[1], piece[2])
                rx, ry = piece[3], piece[4]
                a, b = (self._a * rx, self._c * rx), (self._b * ry, self._d * ry)
                hx = math.sqrt(a[0] * a[0] + b[0] * b[0]) + melt
                hy = math.sqrt(a[1] * a[1] + b[1] * b[1]) + melt
                box = canvas.box(x - hx, y - hy, x + hx, y + hy)
            else:
                p, q = self.at(piece[1], piece[2]), self.at(piece[3], piece[4])
                r = max(piece[5], piece[6]) * s + melt
                box = canvas.box(
                    min(p[0], q[0]) - r,
                    min(p[1], q[1]) - r,
                    max(p[0], q[0]) + r,
                    max(p[1], q[1]) + r,
                )
                x, y, a, b = 0.0, 0.0, p, q
            if box is not None:
                placed.append((piece, box, x, y, a, b))
        if not placed:
            return
        x0, y0 = min(p[1][0] for p in placed), min(p[1][1] for p in placed)
        x1, y1 = max(p[1][2] for p in placed), max(p[1][3] for p in placed)
        field = np.full((y1 - y0, x1 - x0), 1000, dtype=np.float32)
        first = int(placed[0][0][0])
        several = any(piece[0] != first for piece, *_ in placed)
        owner = np.zeros(field.shape, dtype=np.uint8) if several else None
        for piece, box, x, y, a, b in placed:
            window = (slice(box[1] - y0, box[3] - y0), slice(box[0] - x0, box[2] - x0))
            if len(piece) == 5:
                near = canvas.ellipse(box, x, y, a, b)
            else:
                near = canvas.capsule(box, a, b, piece[5] * s, piece[6] * s)
            if owner is not None:
                np.copyto(owner[window], int(piece[0]), where=near < field[window])
            smooth_min_into(field[window], near, melt)
        whole = (x0, y0, x1, y1)
        if coat is not None:
            style["second"], sharp, level = coat
            style["pattern"] = self._patches(whole, sharp, level)
        canvas.paint(whole, field, colour, first if owner is None else owner, **self._style(style))

    def _patches(self, box: tuple[int, int, int, int], sharp: float, level: float) -> np.ndarray:
        """Weights 0..1 of a patchy coat."""
        ox, oy = self.offset
        noise = self.canvas.textures["patch"][oy + box[1] : oy + box[3], ox + box[0] : ox + box[2]]
        weight = noise * sharp
        weight += 0.5 - sharp * level
        np.maximum(weight, 0, out=weight)
        np.minimum(weight, 1, out=weight)
        return weight

    def oval(
        self,
        x: float,
        y: float,
        rx: float,
        ry: float,
        colour: Colour,
        part: int = 0,
        **style: Unpack[Style],
    ) -> None:
        """Draw one ellipse."""
        self.blob([(part, x, y, rx, ry)], colour, **style)

    def line(
        self,
        points: list[Point],
        r0: float,
        r1: float,
        colour: Colour,
        part: int = 0,
        **style: Unpack[Style],
    ) -> None:
        """Draw a thick line through points, tapering from r0 to r1."""
        steps = len(points) - 1
        pieces: list[Piece] = []
        for k in range(steps):
            ra, rb = r0 + (r1 - r0) * k / steps, r0 + (r1 - r0) * (k + 1) / steps
            pieces.append((part, *points[k], *points[k + 1], ra, rb))
        self.blob(pieces, colour, **style)

    def poly(
        self,
        points: list[Point],
        colour: Colour,
        part: int = 0,
        rounding: float = 0.0,
        **style: Unpack[Style],
    ) -> None:
        """Draw a convex polygon; `rounding` of its corners in object units."""
        placed = [self.at(x, y) for x, y in points]
        xs, ys = [p[0] for p in placed], [p[1] for p in placed]
        box = self.canvas.box(min(xs), min(ys), max(xs), max(ys))
        if box is not None:
            field = self.canvas.polygon(box, placed, rounding * self.scale)
            self.canvas.paint(box, field, colour, part, **self._style(style))

    def rect(
        self,
        x0: float,
        y0: float,
        x1: float,
        y1: float,
        colour: Colour,
        part: int = 0,
        rounding: float = 0.0,
        **style: Unpack[Style],
    ) -> None:
        """Draw an axis-aligned rectangle of the object frame; `rounding` in object units."""
        found = self.frame(x0, y0, x1, y1)
        if found is None:
            return
        box, u, v = found
        rounding = min(rounding, (x1 - x0) / 2, (y1 - y0) / 2)
        u -= (x0 + x1) / 2
        v -= (y0 + y1) / 2
        np.abs(u, out=u)
        np.abs(v, out=v)
        u -= (x1 - x0) / 2 - rounding
        v -= (y1 - y0) / 2 - rounding
        field = np.maximum(u, v)
        if rounding:  # beyond a corner's centre the distance is round
            np.minimum(field, 0, out=field)
            np.maximum(u, 0, out=u)
            np.maximum(v, 0, out=v)
            u *= u
            v *= v
            u += v
            np.sqrt(u, out=u)
            field += u
            field -= rounding
        field *= self.scale
        self.canvas.paint(box, field, colour, part, **self._style(style))

    def frame(
        self, x0: float, y0: float, x1: float, y1: float
    ) -> tuple[tuple[int, int, int, int], np.ndarray, np.ndarray] | None:
        """Return the box of a rectangle, and its pixels' object coordinates u, v (object units)."""
        corners = [self.at(*p) for p in ((x0, y0), (x1, y0), (x1, y1), (x0, y1))]
        xs, ys = [p[0] for p in corners], [p[1] for p in corners]
        box = self.canvas.box(min(xs), min(ys), max(xs), max(ys))
        if box is None:
            return None
        dx = self.canvas.xs[:, box[0] : box[2]] - self._x
        dy = self.canvas.ys[box[1] : box[3]] - self._y
        k = 1 / (self.scale * self.scale)
        return box, dx * (self._a * k) + dy * (self._c * k), dx * (self._b * k) + dy * (self._d * k)
