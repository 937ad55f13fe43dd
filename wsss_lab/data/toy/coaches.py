"""Car, bus and train of the toy world, which share a coach.

At `share=1` a coach alone does not identify its class: a car has a bonnet, a bus a door and a route
sign, a train a snow plough and a current collector.
"""

from wsss_lab.data.toy.canvas import Style
from wsss_lab.data.toy.fittings import draw_panes, draw_wheels
from wsss_lab.data.toy.knobs import ToyKnobs
from wsss_lab.data.toy.palette import DARK_GAP, LAMP, STEEL, TYRE, Livery, shade
from wsss_lab.data.toy.pen import Pen, Piece, Point
from wsss_lab.data.toy.rng import Stream

# own proportions: half length of the coach, its height, wheels and their radius
_COACH = {
    "car": (0.62, 0.58, (-0.6, 0.62), 0.21),
    "bus": (1.0, 0.86, (-0.58, 0.55), 0.17),
    "train": (1.0, 0.72, (-0.76, -0.46, 0.42, 0.72), 0.13),
}
_COMMON_HALF, _COMMON_HEIGHT = 0.86, 0.72


def _coach(
    pen: Pen, rng: Stream, kind: str, knobs: ToyKnobs, look: Livery
) -> tuple[float, float, float]:
    """Draw box, stripe, windows and wheels; return right end, roof and floor."""
    half, height, wheels, radius = _COACH[kind]
    w, wheelbase = knobs.share, rng.between(0.5, 0.66)
    half = (half * (1 - w) + _COMMON_HALF * w) * (1 + 0.12 * rng.bell())
    height = (height * (1 - w) + _COMMON_HEIGHT * w) * (1 + 0.16 * rng.bell())
    any_wheels = rng.pick((_COACH["car"], _COACH["bus"], _COACH["train"]))
    if rng.chance(w):
        wheels, radius = any_wheels[2], any_wheels[3]
    panes, corner, roof_tone = 3 + rng.below(3), rng.between(0.1, 0.2), rng.between(0.75, 1.2)
    left, right = -0.95, -0.95 + 2 * half
    floor, roof = -radius * 0.75, -radius * 0.75 - height
    body = pen.part("body")
    style: Style = {"texture": "smooth", "amp": 0.08, "relief": 0.34, "depth": 0.12}
    pen.rect(left + 0.06, floor - 0.1, right - 0.06, floor + 0.06, TYRE, body, rounding=0.04)
    pen.rect(left, roof, right, floor, look.paint, body, rounding=corner, **style)
    pen.rect(
        left + 0.05,
        roof - 0.035,
        right - 0.08,
        roof + 0.07,
        shade(look.paint, roof_tone * 0.8),
        body,
        rounding=0.07,
        outline=0.15,
    )
    y = roof + height * look.stripe
    pen.rect(left + 0.02, y, right - 0.02, y + height * 0.11, look.second, outline=0.1)
    draw_panes(
        pen, left + 0.06, roof + height * 0.17, right - 0.3, roof + height * 0.5, panes, look.glass
    )
    middle, spread = (left + right) / 2, (right - left) / 2 / 0.95
    centres = [middle + x * spread * wheelbase * 1.6 for x in wheels]
    draw_wheels(pen, centres, radius, look.tyre, look.hub)
    return right, roof, floor


def draw_car(pen: Pen, rng: Stream, knobs: ToyKnobs) -> None:
    """Draw a box with windows behind a bonnet with lamp, grille and bumper."""
    look = Livery(rng)
    right, roof, floor = _coach(pen, rng, "car", knobs, look)
    part, top = pen.part("bonnet", True), floor - (floor - roof) * 0.5
    end, y = right + 0.36, floor
    draw_panes(
        pen,
        right - 0.27,
        roof + (y - roof) * 0.15,
        right - 0.02,
        roof + (y - roof) * 0.5,
        1,
        look.glass,
    )
    shape: list[Point] = [
        (right - 0.12, top - 0.03),
        (end - 0.1, top + 0.05),
        (end, top + 0.16),
        (end, y),
        (right - 0.12, y),
    ]
    pen.poly(shape, look.paint, part, rounding=0.07, texture="smooth", relief=0.34, depth=0.1)
    pen.rect(end - 0.1, y - 0.1, end + 0.06, y + 0.01, STEEL, part, rounding=0.03, outline=0.2)
    slots = [right + 0.03 + 0.06 * k for k in range(3)]
    pen.blob([(0, x, top + 0.13, x, y - 0.12, 0.013, 0.013) for x in slots], DARK_GAP, outline=0)
    pen.oval(end - 0.06, top + 0.15, 0.085, 0.085, LAMP, part, outline=0.35, relief=0.2, depth=0.05)


def draw_bus(pen: Pen, rng: Stream, knobs: ToyKnobs) -> None:
    """Draw a coach with a folding door and a route sign over the front."""
    look = Livery(rng)
    right, roof, floor = _coach(pen, rng, "bus", knobs, look)
    sign, door = pen.part("sign", True), pen.part("door", True)
    height = floor - roof
    pen.rect(right - 0.52, roof - 0.2, right - 0.02, roof + 0.02, DARK_GAP, sign, rounding=0.03)
    pen.rect(right - 0.48, roof - 0.16, right - 0.06, roof - 0.025, look.sign, sign, outline=0)
    y = roof - 0.092
    words = ((right - 0.43, 0.04), (right - 0.31, 0.08), (right - 0.15, 0.03))
    pen.blob([(0, x, y, x + wide, y, 0.028, 0.028) for x, wide in words], DARK_GAP, outline=0)
    frame = shade(look.paint, 0.5)
    pen.rect(right - 0.29, roof + height * 0.12, right - 0.03, floor, frame, door, outline=0)
    draw_panes(
        pen,
        right - 0.28,
        roof + height * 0.16,
        right - 0.04,
        floor - height * 0.06,
        2,
        shade(look.glass, 0.8),
        0.015,
    )
    mirror: list[Piece] = [
        (door, right - 0.02, roof + 0.1, right + 0.1, roof + 0.12, 0.02, 0.02),
        (door, right + 0.1, roof + 0.14, right + 0.1, roof + 0.3, 0.045, 0.045),
    ]
    pen.blob(mirror, DARK_GAP)


def draw_train(pen: Pen, rng: Stream, knobs: ToyKnobs) -> None:
    """Draw a coach with a sloping nose, a snow plough and a current collector."""
    look = Livery(rng)
    right, roof, floor = _coach(pen, rng, "train", knobs, look)
    nose, height = pen.part("nose", True), floor - roof
    x = right - 0.34
    collector: list[Piece] = [
        (nose, x - 0.16, roof, x + 0.12, roof - 0.17, 0.032, 0.032),
        (nose, x + 0.12, roof - 0.17, x - 0.14, roof - 0.33, 0.032, 0.032),
        (nose, x - 0.34, roof - 0.35, x + 0.1, roof - 0.35, 0.036, 0.036),
    ]
    pen.blob(collector, DARK_GAP, outline=0)
    front: list[Point] = [
        (right - 0.2, roof + 0.05),
        (right - 0.04, roof + 0.08),
        (right + 0.13, roof + height * 0.55),
        (right + 0.13, floor),
        (right - 0.2, floor),
    ]
    pen.poly(front, look.second, nose, rounding=0.08, texture="smooth", relief=0.34, depth=0.1)
    pen.poly(
        [
            (right - 0.12, roof + height * 0.16),
            (right - 0.03, roof + height * 0.18),
            (right + 0.07, roof + height * 0.48),
            (right - 0.12, roof + height * 0.48),
        ],
        look.glass,
        outline=0.25,
        rounding=0.03,
    )
    pen.poly(
        [
            (right - 0.05, floor - 0.08),
            (right + 0.16, floor - 0.08),
            (right + 0.27, -0.02),
            (right - 0.05, -0.02),
        ],
        look.sign,
        nose,
        relief=0.2,
        depth=0.1,
    )
    pen.oval(right + 0.05, roof + height * 0.68, 0.065, 0.065, LAMP, outline=0.35)
