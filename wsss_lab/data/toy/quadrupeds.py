"""Quadrupeds of the toy world, all from one builder.

At `share=1` a cat and a dog differ in their ears alone, a horse in its mane, a cow in its horns.
"""

from dataclasses import dataclass

from wsss_lab.data.toy.canvas import Style
from wsss_lab.data.toy.knobs import ToyKnobs
from wsss_lab.data.toy.palette import DARK, FUR, blend, shade
from wsss_lab.data.toy.pen import Pen, Piece
from wsss_lab.data.toy.rng import Stream


@dataclass(frozen=True)
class Build:
    """Proportions of a quadruped in object units (the body is about two units long)."""

    length: float
    """Half length of the trunk."""
    girth: float
    """Half height of the trunk."""
    leg: float
    neck: float
    head: float
    """Radius of the skull."""
    muzzle: float
    """Length of the muzzle in skull radii."""
    fur: int
    """Own entry of `FUR` at share 0."""


OWN = {
    "cat": Build(0.50, 0.19, 0.40, 0.06, 0.29, 0.25, 0),
    "dog": Build(0.52, 0.21, 0.46, 0.12, 0.27, 0.55, 6),
    "horse": Build(0.56, 0.22, 0.66, 0.40, 0.22, 0.95, 7),
    "cow": Build(0.62, 0.29, 0.44, 0.14, 0.25, 0.75, 9),
}
COMMON = Build(0.55, 0.225, 0.48, 0.17, 0.265, 0.6, 0)


class Quadruped:
    """Measures, colours and pose of one animal; `draw` paints it on the canvas."""

    def __init__(self, pen: Pen, rng: Stream, kind: str, knobs: ToyKnobs) -> None:
        own, w = OWN[kind], knobs.share
        self.pen, self.rng, self.kind = pen, rng, kind

        def measure(name: str, spread: float) -> float:
            mean = getattr(own, name) * (1 - w) + getattr(COMMON, name) * w
            return mean * (1 + spread * rng.bell())

        self.length, self.girth = measure("length", 0.15), measure("girth", 0.2)
        self.leg, self.neck = measure("leg", 0.22), measure("neck", 0.5)
        self.head, self.muzzle = measure("head", 0.12), measure("muzzle", 0.4)
        shared, fur = rng.chance(w), rng.pick(FUR)
        self.fur = rng.tint(fur if shared else FUR[own.fur])
        self.dark = shade(self.fur, 0.66)
        self.light = blend(self.fur, (0.96, 0.93, 0.88), 0.55)
        other = rng.tint(rng.pick(FUR))
        spots = rng.unit() < (0.4 if shared else 0.9 if kind == "cow" else 0.1)
        level = rng.between(0.0, 0.35)
        self.coat = (other, 3.0, level) if spots else (self.light, 0.9, 0.45)
        self.trunk_y = -(self.leg + self.girth * 0.75)
        self.head_x = self.length * 0.92 + self.neck * rng.between(0.35, 0.6) + self.head * 0.35
        self.head_y = self.trunk_y - self.girth * 0.35 - self.neck - self.head * 0.55
        if rng.chance(0.15):  # grazing
            self.head_x += self.head * 0.35
            self.head_y += self.neck + self.head * 1.1
        self.stride = rng.between(-0.14, 0.14)
        self.wag = rng.between(-0.42, 0.3)
        self.style: Style = {"texture": "fur", "amp": 0.17, "relief": 0.3, "depth": 0.22}

    def draw(self) -> None:
        """Draw far legs, trunk, head and face."""
        self._far_legs()
        self._trunk()
        if self.kind == "horse":
            self._mane()
        if self.kind in ("cat", "cow"):
            self._crown()
        self._head()
        if self.kind == "dog":
            self._floppy_ears()
        self._face()

    def _leg_pieces(self, part: int, x: float, step: float, hind: bool) -> list[Piece]:
        """Thigh, shin and paw with a bent knee."""
        top, knee = self.trunk_y + self.girth * 0.3, -self.leg * 0.45
        bend = 0.07 if hind else -0.02
        foot = x + step - (0.03 if hind else 0.0)
        kx = x + step * 0.5 + bend
        thick = 0.14 if hind else 0.1
        return [
            (part, x, top, kx, knee, thick, 0.075),
            (part, kx, knee, foot, -0.06, 0.07, 0.052),
            (part, foot, -0.047, foot + 0.06, -0.047, 0.047, 0.047),
        ]

    def _far_legs(self) -> None:
        """Draw the two legs on the far side, in shadow, paws included."""
        part, hip, chest = self.pen.part("legs"), -self.length * 0.72, self.length * 0.68
        pieces = self._leg_pieces(part, hip + 0.15, -self.stride, True)[:2]
        pieces += self._leg_pieces(part, chest + 0.13, self.stride, False)[:2]
        self.pen.blob(pieces, self.dark, texture="fur", amp=0.15)

    def _trunk(self) -> None:
        """Tail, trunk, neck and the near legs in one coat."""
        pen, y, g, n = self.pen, self.trunk_y, self.girth, self.length
        body, legs, tail = pen.part("body"), pen.part("legs"), pen.part("tail")
        pieces: list[Piece] = [
            (body, -n * 0.72, y - g * 0.02, n * 0.62, y, g * 0.98, g * 1.04),
            (
                body,
                n * 0.6,
                y - g * 0.1,
                self.head_x - self.head * 0.25,
                self.head_y + self.head * 0.3,
                g * 0.78,
                self.head * 0.58,
            ),
            (
                tail,
                -n * 1.08,
                y - g * 0.4,
                -n * 1.08 - 0.16,
                y - g * 0.3 + self.wag * 0.5,
                0.062,
                0.05,
            ),
            (
                tail,
                -n * 1.08 - 0.16,
                y - g * 0.3 + self.wag * 0.5,
                -n * 1.08 - 0.2,
                y - g * 0.3 + self.wag,
                0.05,
                0.042,
            ),
        ]
        pieces += self._leg_pieces(legs, -n * 0.8, self.stride, True)
        pieces += self._leg_pieces(legs, n * 0.6, -self.stride, False)
        pen.blob(pieces, self.fur, 0.09, coat=self.coat, **self.style)

    def _head(self) -> None:
        """Skull and muzzle."""
        part, r = self.pen.part("head"), self.head
        x, y, reach = self.head_x, self.head_y, self.muzzle * r
        self.pen.blob(
            [
                (part, x, y, r, r * 0.9),
                (
                    part,
                    x + r * 0.45,
                    y + r * 0.3,
                    x + r * 0.6 + reach,
                    y + r * 0.42,
                    r * 0.48,
                    r * 0.36,
                ),
            ],
            self.fur,
            0.08,
            coat=self.coat,
            **self.style,
        )

    def _face(self) -> None:
        """Muzzle patch, nose, mouth and two eyes."""
        pen, r, x, y = self.pen, self.head, self.head_x, self.head_y
        tip = x + r * 0.6 + self.muzzle * r
        pen.oval(
            tip + r * 0.02, y + r * 0.45, r * 0.34, r * 0.3, self.light, texture="fur", outline=0
        )
        whites: list[Piece] = []
        darks: list[Piece] = [
            (0, tip + r * 0.24, y + r * 0.26, r * 0.16, r * 0.13),
            (0, tip - r * 0.1, y + r * 0.62, tip + r * 0.2, y + r * 0.6, 0.012, 0.012),
        ]
        for dx, size in ((0.06, 0.15), (0.62, 0.13)):
            ex, ey = x + dx * r, y - r * 0.2
            whites.append((0, ex, ey, r * size * 1.25, r * size * 1.4))
            darks.append((0, ex + r * 0.06, ey + r * 0.02, r * size * 0.85, r * size))
        pen.blob(whites, (0.96, 0.95, 0.9), outline=0)
        pen.blob(darks, DARK, outline=0)

    def _crown(self) -> None:
        """Pointed ears of a cat; ears and horns of a cow. Behind the head."""
        pen, r, x, y = self.pen, self.head, self.head_x, self.head_y
        if self.kind == "cat":
            part = pen.part("ears", True)
            for dx, tone in ((0.52, self.dark), (-0.58, self.fur)):
                ear = [
                    (x + (dx - 0.44) * r, y - 0.35 * r),
                    (x + (dx + dx * 0.5) * r, y - 1.85 * r),
                    (x + (dx + 0.44) * r, y - 0.4 * r),
                ]
                pen.poly(ear, tone, part, texture="fur", relief=0.2, depth=0.1)
                inner = [
                    (x + (dx - 0.2) * r, y - 0.6 * r),
                    (x + (dx + dx * 0.42) * r, y - 1.5 * r),
                    (x + (dx + 0.2) * r, y - 0.6 * r),
                ]
                pen.poly(inner, blend(self.fur, (0.85, 0.55, 0.5), 0.5), outline=0)
            return
        part, ivory = pen.part("horns", True), self.rng.tint(FUR[2], 0.04)
        pieces: list[Piece] = []
        for side in (1, -1):
            hx, hy = x + side * 0.5 * r, y - 0.6 * r
            mx, my = hx + side * 0.72 * r, hy - 0.2 * r
            pieces.append((part, hx, hy, mx, my, 0.36 * r, 0.24 * r))
            pieces.append((part, mx, my, hx + side * 0.95 * r, hy - 1.0 * r, 0.24 * r, 0.1 * r))
        pen.blob(pieces, ivory, relief=0.3, depth=0.06)
        self._round_ear()

    def _round_ear(self) -> None:
        """The small ear that a horse and a cow share."""
        r, x, y = self.head, self.head_x, self.head_y
        part = self.pen.part("head")
        self.pen.oval(x - r * 0.62, y - r * 0.55, r * 0.4, r * 0.24, self.dark, part, texture="fur")

    def _mane(self) -> None:
        """The mane of a horse, from the forehead down the neck."""
        pen, r, g = self.pen, self.head, self.girth
        hair = shade(self.rng.tint(self.rng.pick(FUR)), 0.7)
        part = pen.part("mane", True)
        # nape to withers, along the back of the neck
        x0, y0 = self.head_x - r * 0.55, self.head_y - r * 0.55
        x1, y1 = self.length * 0.3, self.trunk_y - g * 0.85
        pieces: list[Piece] = [
            (part, self.head_x + r * 0.25, self.head_y - r * 0.6, x0, y0 - r * 0.3, 0.07, 0.12)
        ]
        for k in range(5):
            w = k / 4
            x, y = x0 + (x1 - x0) * w, y0 + (y1 - y0) * w
            pieces.append((part, x + 0.05, y - 0.05, x - 0.06, y + 0.2, 0.12 - 0.03 * w, 0.05))
        pen.blob(pieces, hair, 0.03, texture="bark", amp=0.3, relief=0.2, depth=0.1)
        self._round_ear()

    def _floppy_ears(self) -> None:
        """The long hanging ears of a dog."""
        pen, r, x, y = self.pen, self.head, self.head_x, self.head_y
        part = pen.part("ears", True)
        pieces: list[Piece] = []
        for dx in (0.85, -0.6):
            top, middle = (x + dx * 0.8 * r, y - 0.72 * r), (x + dx * 1.15 * r, y - 0.2 * r)
            pieces.append((part, *top, *middle, 0.2 * r, 0.28 * r))
            pieces.append((part, *middle, x + dx * 1.1 * r, y + 0.75 * r, 0.28 * r, 0.36 * r))
        tone = shade(self.fur, 0.6)
        pen.blob(pieces, tone, texture="fur", relief=0.3, depth=0.1)


def draw_quadruped(pen: Pen, rng: Stream, kind: str, knobs: ToyKnobs) -> None:
    """Draw a cat, dog, horse or cow."""
    Quadruped(pen, rng, kind, knobs).draw()
