"""Boat and plane of the toy world, which share a hull.

At `share=1` a hull alone does not identify its class: a boat has a sail, a plane fin and wings.
"""

from wsss_lab.data.toy.fittings import draw_panes, draw_wheels
from wsss_lab.data.toy.knobs import ToyKnobs
from wsss_lab.data.toy.palette import STEEL, Livery, blend, shade
from wsss_lab.data.toy.pen import Pen, Piece, Point
from wsss_lab.data.toy.rng import Colour, Stream

# corners of the hull: a boat's own, a plane's own; at share 1 both take the mean
_HULL = {
    "boat": [(-0.98, -0.46), (0.0, -0.46), (1.06, -0.54), (0.86, -0.18), (0.66, 0.0), (-0.8, 0.0)],
    "plane": [
        (-1.06, -0.5),
        (0.0, -0.56),
        (0.8, -0.55),
        (1.08, -0.34),
        (0.8, -0.14),
        (-0.35, -0.12),
    ],
}


def _hull(pen: Pen, rng: Stream, kind: str, knobs: ToyKnobs, look: Livery, lift: float) -> None:
    """Draw hull, stripe, portholes and a small cabin."""
    other, w = "plane" if kind == "boat" else "boat", knobs.share * 0.5
    tall = 1.12 + 0.2 * rng.bell()
    points = [
        ((ax * (1 - w) + bx * w), (ay * (1 - w) + by * w) * tall - lift)
        for (ax, ay), (bx, by) in zip(_HULL[kind], _HULL[other], strict=True)
    ]
    count, cabin_x, cabin_w = 3 + rng.below(3), rng.between(0.3, 0.45), rng.between(0.34, 0.5)
    cabin_h = rng.between(0.16, 0.24)
    body, cabin = pen.part("body"), pen.part("cabin")
    deck = points[1][1]
    x0, x1 = cabin_x - cabin_w * 0.5, cabin_x + cabin_w * 0.5
    tone = blend(look.paint, (0.93, 0.92, 0.88), 0.7)
    pen.poly(
        [
            (x0, deck + 0.1),
            (x0 + 0.05, deck - cabin_h),
            (x1 - 0.12, deck - cabin_h),
            (x1 + 0.06, deck + 0.1),
        ],
        tone,
        cabin,
        rounding=0.08,
        texture="smooth",
        relief=0.3,
        depth=0.1,
    )
    draw_panes(
        pen, x0 + 0.06, deck - cabin_h * 0.8, x1 - 0.04, deck - cabin_h * 0.15, 2, look.glass
    )
    pen.poly(
        points, look.paint, body, rounding=0.14, texture="smooth", amp=0.1, relief=0.34, depth=0.16
    )
    top, low = deck, points[4][1]
    y = top + (low - top) * 0.62
    pen.rect(-0.72, y, 0.74, y + 0.07, look.second, outline=0.1)
    y = top + (low - top) * 0.34
    holes: list[Piece] = [
        (0, -0.55 + 1.15 * k / (count - 1), y, 0.078, 0.078) for k in range(count)
    ]
    pen.blob(holes, look.glass, outline=0.5, relief=0.3, depth=0.05)


def draw_boat(pen: Pen, rng: Stream, knobs: ToyKnobs) -> None:
    """Draw a hull under a mast with a sail and a pennant."""
    look = Livery(rng)
    mast, tall = rng.between(-0.55, -0.3), rng.between(0.62, 0.82)
    part = pen.part("sail", True)
    deck = -0.46
    wood: Colour = (0.42, 0.31, 0.22)
    pen.line([(mast, deck + 0.1), (mast, deck - tall - 0.12)], 0.035, 0.022, wood, part)
    cloth = blend(look.sign, (0.95, 0.93, 0.88), 0.5)
    sail: list[Point] = [
        (mast + 0.03, deck - tall),
        (mast + 0.42, deck - 0.2),
        (mast + 0.04, deck - 0.16),
    ]
    pen.poly(sail, cloth, part, rounding=0.03, texture="smooth", amp=0.15, relief=0.2, depth=0.12)
    pen.poly(
        [(mast, deck - tall - 0.14), (mast - 0.2, deck - tall - 0.07), (mast, deck - tall)],
        look.second,
        part,
        outline=0,
    )
    _hull(pen, rng, "boat", knobs, look, 0.0)


def draw_plane(pen: Pen, rng: Stream, knobs: ToyKnobs, airborne: bool) -> None:
    """Draw a hull with tail fin and wings; on wheels when it stands on the ground."""
    look = Livery(rng)
    lift = 0.0 if airborne else 0.16
    fin, wing = pen.part("fin", True), pen.part("wing", True)
    if not airborne:
        gear = pen.part("wheels")
        struts: list[Piece] = [(gear, x, -0.3, x, -0.1, 0.03, 0.03) for x in (-0.45, 0.5)]
        pen.blob(struts, STEEL)
        draw_wheels(pen, [-0.45, 0.5], 0.13, look.tyre, look.hub)
    y = -0.36 - lift
    pen.poly(
        [(-0.4, y - 0.1), (-0.72, y - 0.36), (-0.6, y - 0.36), (-0.16, y - 0.1)],
        shade(look.sign, 0.7),
        wing,
    )
    pen.poly(
        [(-1.0, y), (-1.08, y - 0.54), (-0.92, y - 0.56), (-0.68, y)],
        look.sign,
        fin,
        rounding=0.05,
        texture="smooth",
        relief=0.3,
        depth=0.1,
    )
    _hull(pen, rng, "plane", knobs, look, lift)
    pen.poly(
        [(-0.95, y - 0.01), (-1.16, y + 0.09), (-1.0, y + 0.11), (-0.74, y + 0.04)],
        shade(look.sign, 0.85),
        fin,
        rounding=0.03,
    )
    pen.poly(
        [(-0.3, y + 0.08), (-0.6, y + 0.36), (-0.46, y + 0.38), (-0.04, y + 0.11)],
        shade(look.sign, 0.95),
        wing,
        rounding=0.04,
        texture="smooth",
        relief=0.3,
        depth=0.1,
    )
