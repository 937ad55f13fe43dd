"""Colours of the toy world: palettes that objects and surroundings share, and their shades."""

from wsss_lab.data.toy.rng import Colour, Stream

FUR: tuple[Colour, ...] = (
    (0.77, 0.55, 0.33),
    (0.47, 0.33, 0.22),
    (0.87, 0.79, 0.67),
    (0.38, 0.37, 0.37),
    (0.62, 0.49, 0.39),
    (0.29, 0.23, 0.20),
    (0.83, 0.66, 0.46),
    (0.67, 0.39, 0.22),
    (0.60, 0.60, 0.62),
    (0.91, 0.89, 0.85),
)
"""Coats, beaks, manes and some clutter and grounds are all drawn from this palette."""

PAINT: tuple[Colour, ...] = (
    (0.74, 0.22, 0.19),
    (0.24, 0.40, 0.66),
    (0.88, 0.73, 0.28),
    (0.27, 0.54, 0.37),
    (0.86, 0.86, 0.83),
    (0.44, 0.46, 0.50),
    (0.84, 0.50, 0.24),
    (0.42, 0.32, 0.50),
    (0.36, 0.60, 0.62),
    (0.55, 0.40, 0.30),
)
"""Bodies, signs, sails, fins and some clutter are all drawn from this palette."""

DARK: Colour = (0.11, 0.09, 0.09)
GLASS: Colour = (0.44, 0.58, 0.66)
TYRE: Colour = (0.14, 0.14, 0.15)
STEEL: Colour = (0.66, 0.67, 0.70)
LAMP: Colour = (0.98, 0.94, 0.76)
DARK_GAP: Colour = (0.16, 0.16, 0.18)


def shade(colour: Colour, factor: float) -> Colour:
    """Return the colour, brighter or darker."""
    r, g, b = colour
    return (min(1.0, r * factor), min(1.0, g * factor), min(1.0, b * factor))


def blend(a: Colour, b: Colour, weight: float) -> Colour:
    """Return the colour `weight` of the way from a to b."""
    return (
        a[0] + (b[0] - a[0]) * weight,
        a[1] + (b[1] - a[1]) * weight,
        a[2] + (b[2] - a[2]) * weight,
    )


class Livery:
    """Colours and wheels shared by all vehicles."""

    def __init__(self, rng: Stream) -> None:
        self.paint = rng.tint(rng.pick(PAINT))
        self.second = rng.tint(rng.pick(PAINT))
        self.sign = rng.tint(rng.pick(PAINT))
        self.glass = rng.tint(GLASS, 0.07)
        self.tyre = rng.tint(TYRE, 0.03)
        self.hub = rng.tint(STEEL)
        self.stripe = rng.between(0.55, 0.75)
