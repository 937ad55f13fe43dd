"""The bird of the toy world, on its legs or in the air."""

from wsss_lab.data.toy.canvas import Style
from wsss_lab.data.toy.knobs import ToyKnobs
from wsss_lab.data.toy.palette import DARK, FUR, blend, shade
from wsss_lab.data.toy.pen import Pen, Piece
from wsss_lab.data.toy.rng import Colour, Stream


def draw_bird(pen: Pen, rng: Stream, knobs: ToyKnobs, airborne: bool) -> None:
    """Draw a bird with a large beak; wings raised when it is in the air."""
    fur = rng.tint(rng.pick(FUR))
    coat_level, other = rng.between(0.0, 0.4), rng.tint(rng.pick(FUR))
    spots = rng.chance(0.4 * knobs.share)
    bill = shade(rng.tint(rng.pick(FUR)), rng.between(0.85, 1.25))
    plump, lift = 1 + 0.15 * rng.bell(), rng.between(-0.06, 0.08)
    dark, light = shade(fur, 0.68), blend(fur, (0.96, 0.93, 0.88), 0.5)
    body, head, beak = pen.part("body"), pen.part("head"), pen.part("beak", True)
    coat = (other, 3.0, coat_level) if spots else (light, 0.9, 0.45)
    style: Style = {"texture": "fur", "amp": 0.17, "relief": 0.3, "depth": 0.22}
    if airborne:
        wing: list[Piece] = [
            (pen.part("wing"), 0.1, -0.6, -0.15, -1.1, 0.2, 0.14),
            (pen.part("wing"), -0.15, -1.1, -0.45, -1.35, 0.14, 0.04),
        ]
        pen.blob(wing, dark, 0.05, texture="bark", amp=0.3)
    else:
        legs: list[Piece] = []
        for x in (-0.02, 0.2):
            legs += [
                (pen.part("legs"), x - 0.03, -0.32, x, -0.16, 0.05, 0.035),
                (pen.part("legs"), x, -0.16, x - 0.02, -0.03, 0.035, 0.03),
                (pen.part("legs"), x - 0.06, -0.025, x + 0.1, -0.025, 0.028, 0.028),
            ]
        pen.blob(legs, bill, 0.01)
    hx, hy = 0.5, -0.92 - lift
    crest: list[Piece] = [
        (beak, hx - 0.1, hy - 0.15, hx - 0.3, hy - 0.4, 0.09, 0.04),
        (beak, hx, hy - 0.17, hx - 0.12, hy - 0.46, 0.09, 0.04),
    ]
    pen.blob(crest, bill, 0.03, relief=0.2, depth=0.1)
    pen.blob(
        [
            (body, -0.05, -0.52, 0.52, 0.3 * plump),
            (pen.part("tail"), -0.4, -0.55, -1.0, -0.5 - lift, 0.16, 0.1),
            (body, 0.2, -0.6, hx - 0.05, hy + 0.08, 0.26, 0.2),
            (head, hx, hy, 0.25, 0.23),
        ],
        fur,
        0.1,
        coat=coat,
        **style,
    )
    _wing_and_face(pen, (hx, hy), (dark, bill), airborne)


def _wing_and_face(
    pen: Pen, head: tuple[float, float], tones: tuple[Colour, Colour], airborne: bool
) -> None:
    """Near wing with flight feathers, beak and eye."""
    (hx, hy), (dark, bill) = head, tones
    wing, beak = pen.part("wing"), pen.part("beak", True)
    tips = (
        ((-0.35, -1.38), (-0.52, -1.2), (-0.6, -1.02))
        if airborne
        else ((-0.62, -0.5), (-0.56, -0.4), (-0.42, -0.34))
    )
    pieces: list[Piece] = [(wing, 0.05, -0.58, x, y, 0.17, 0.05) for x, y in tips]
    pen.blob(pieces, dark, 0.02, texture="bark", amp=0.3, relief=0.25, depth=0.12)
    pen.poly(
        [
            (hx + 0.14, hy - 0.14),
            (hx + 0.4, hy - 0.1),
            (hx + 0.62, hy + 0.12),
            (hx + 0.16, hy + 0.14),
        ],
        bill,
        beak,
        rounding=0.06,
        relief=0.3,
        depth=0.1,
    )
    pen.oval(hx + 0.07, hy - 0.06, 0.07, 0.075, (0.96, 0.95, 0.9), outline=0)
    darks: list[Piece] = [
        (0, hx + 0.085, hy - 0.05, 0.047, 0.052),
        (0, hx + 0.2, hy + 0.05, hx + 0.52, hy + 0.1, 0.012, 0.012),
    ]
    pen.blob(darks, DARK, outline=0)
