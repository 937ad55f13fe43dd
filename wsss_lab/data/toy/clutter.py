"""Trees, crates, stones, lamps, bushes, firs and fences between the objects."""

import numpy as np

from wsss_lab.data.toy.canvas import Canvas, Part
from wsss_lab.data.toy.palette import FUR, PAINT, blend, shade
from wsss_lab.data.toy.rng import Colour, Stream

LEAF: tuple[Colour, ...] = (
    (0.28, 0.44, 0.22),
    (0.38, 0.50, 0.24),
    (0.62, 0.46, 0.22),
    (0.30, 0.42, 0.34),
)


def draw_clutter(canvas: Canvas, rng: Stream, x: float, y: float, z: float) -> None:
    """Draw one tree, crate, stone, lamp, bush, fir, barrel or fence at (x, y), z high."""
    kind, s = rng.below(8), canvas.size
    offset = (rng.below(s), rng.below(s))
    paint, leaf = rng.tint(rng.pick(FUR + PAINT)), rng.tint(rng.pick(LEAF))
    wood, stone = rng.tint((0.41, 0.31, 0.22)), rng.tint((0.50, 0.49, 0.47))
    lean, wide = rng.between(-0.06, 0.06), rng.between(0.85, 1.2)
    box = canvas.box(x - z * 0.8, y - z * 0.08, x + z * 0.8, y + z * 0.12)
    if box is not None:
        field = canvas.ellipse(
            box, x - canvas.sun * z * 0.12, y, (z * 0.42 * wide, 0.0), (0.0, z * 0.07 + 0.5)
        )
        canvas.paint(box, field, (0.06, 0.07, 0.1), opacity=0.4, soft=1.0 + z * 0.06)
    brush = _Brush(canvas, x, y, z, offset)
    if kind in (0, 1):
        brush.tree(wood, leaf, lean, wide)
    elif kind == 2:
        brush.crate(paint, wide)
    elif kind == 3:
        brush.stone(stone, wide)
    elif kind == 4:
        brush.lamp(paint)
    elif kind == 5:
        brush.bush(leaf, wide)
    elif kind == 6:
        brush.fir(wood, leaf)
    else:
        brush.fence(paint, wide)


class _Brush:
    """Clutter in its own frame: x right, y up from the foot, in units of its height."""

    def __init__(
        self, canvas: Canvas, x: float, y: float, z: float, offset: tuple[int, int]
    ) -> None:
        self.canvas, self.x, self.y, self.z, self.offset = canvas, x, y, z, offset
        self.part = canvas.register(Part())

    def _poly(
        self,
        points: list[tuple[float, float]],
        colour: Colour,
        texture: str,
        amp: float = 0.2,
        round_: float = 0.0,
    ) -> None:
        placed = [(self.x + px * self.z, self.y - py * self.z) for px, py in points]
        xs, ys = [p[0] for p in placed], [p[1] for p in placed]
        box = self.canvas.box(min(xs), min(ys), max(xs), max(ys))
        if box is not None:
            field = self.canvas.polygon(box, placed, round_ * self.z)
            self.canvas.paint(
                box,
                field,
                colour,
                self.part,
                texture=texture,
                offset=self.offset,
                amp=amp,
                relief=0.25,
                depth=max(1.0, 0.1 * self.z),
                outline=0.25,
            )

    def _ovals(
        self,
        rounds: tuple[tuple[float, float, float, float], ...],
        colour: Colour,
        texture: str,
        amp: float,
    ) -> None:
        """Draw textured ellipses (x, y, rx, ry) as one body."""
        canvas, z = self.canvas, self.z
        x0, x1 = min(c[0] - c[2] for c in rounds), max(c[0] + c[2] for c in rounds)
        y0, y1 = min(c[1] - c[3] for c in rounds), max(c[1] + c[3] for c in rounds)
        box = canvas.box(self.x + x0 * z, self.y - y1 * z, self.x + x1 * z, self.y - y0 * z)
        if box is None:
            return
        field = np.full((box[3] - box[1], box[2] - box[0]), 1000, dtype=np.float32)
        for cx, cy, rx, ry in rounds:
            near = canvas.ellipse(
                box, self.x + cx * z, self.y - cy * z, (rx * z, 0.0), (0.0, ry * z)
            )
            np.minimum(field, near, out=field)
        ox, oy = self.offset
        rough = canvas.textures["leaf"][oy + box[1] : oy + box[3], ox + box[0] : ox + box[2]]
        field += rough * (0.06 * z)
        canvas.paint(
            box,
            field,
            colour,
            self.part,
            texture=texture,
            offset=self.offset,
            amp=amp,
            relief=0.3,
            depth=max(1.0, 0.2 * z),
            outline=0.2,
        )

    def tree(self, wood: Colour, leaf: Colour, lean: float, wide: float) -> None:
        """A broad-leaved tree."""
        self._poly([(-0.07, 0), (lean - 0.05, 0.6), (lean + 0.05, 0.6), (0.08, 0)], wood, "bark")
        crown = ((-0.16, 0.62, 0.22), (0.17, 0.64, 0.21), (0.02, 0.8, 0.25))
        rounds = tuple((lean + cx * wide, cy, r * wide, r * 0.9) for cx, cy, r in crown)
        self._ovals(rounds, leaf, "leaf", 0.45)

    def fir(self, wood: Colour, leaf: Colour) -> None:
        """A fir of three skirts."""
        self._poly([(-0.05, 0), (-0.04, 0.3), (0.04, 0.3), (0.05, 0)], wood, "bark")
        for low, high, half in ((0.14, 0.55, 0.32), (0.38, 0.78, 0.25), (0.6, 1.0, 0.18)):
            self._poly([(-half, low), (0, high), (half, low)], shade(leaf, 0.8), "leaf", 0.4)

    def crate(self, paint: Colour, wide: float) -> None:
        """A box of boards."""
        w = 0.34 * wide
        self._poly([(-w, 0), (-w, 0.55), (w, 0.55), (w, 0)], paint, "plank", 0.25)
        self._poly([(-w, 0.46), (-w, 0.56), (w, 0.56), (w, 0.46)], shade(paint, 0.75), "bark")
        self._poly([(-w, 0), (-w, 0.1), (w, 0.1), (w, 0)], shade(paint, 0.75), "bark")

    def stone(self, stone: Colour, wide: float) -> None:
        """Two boulders."""
        rounds = ((0.0, 0.13, 0.36 * wide, 0.2), (0.26 * wide, 0.07, 0.17, 0.11))
        self._ovals(rounds, stone, "gravel", 0.22)

    def lamp(self, paint: Colour) -> None:
        """A street lamp or a painted post."""
        self._poly(
            [(-0.035, 0), (-0.028, 0.92), (0.028, 0.92), (0.035, 0)], (0.27, 0.27, 0.29), "smooth"
        )
        globe = blend(paint, (1.0, 0.97, 0.86), 0.45)
        self._ovals(((0.0, 0.95, 0.1, 0.1),), globe, "smooth", 0.05)

    def bush(self, leaf: Colour, wide: float) -> None:
        """A bush of two rounds."""
        rounds = ((-0.12 * wide, 0.18, 0.26, 0.24), (0.15 * wide, 0.15, 0.24, 0.2))
        self._ovals(rounds, leaf, "leaf", 0.45)

    def fence(self, paint: Colour, wide: float) -> None:
        """Pickets on two rails."""
        canvas, z, half = self.canvas, self.z, 0.5 * wide
        box = canvas.box(self.x - half * z, self.y - 0.5 * z, self.x + half * z, self.y)
        if box is None:
            return
        u = (canvas.xs[:, box[0] : box[2]] - self.x) * (1 / z)
        v = (self.y - canvas.ys[box[1] : box[3]]) * (1 / z)
        phase = u * (1 / 0.25) + 0.5
        phase -= np.floor(phase)
        picket = np.abs(phase - 0.5) * 0.25
        picket = np.maximum(picket - 0.065, picket * 0.8 + (v - 0.48))
        bars = np.minimum(np.abs(v - 0.16), np.abs(v - 0.34)) - 0.03
        field = np.maximum(np.minimum(picket, bars), np.abs(u) - half)
        np.maximum(field, -v, out=field)
        field *= z
        canvas.paint(
            box,
            field,
            paint,
            self.part,
            texture="bark",
            offset=self.offset,
            relief=0.2,
            depth=max(1.0, 0.06 * z),
            outline=0.2,
        )
