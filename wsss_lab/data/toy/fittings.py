"""Windows and wheels, which the vehicles of the toy world have in common."""

import numpy as np

from wsss_lab.data.toy.pen import Pen
from wsss_lab.data.toy.rng import Colour


def draw_panes(
    pen: Pen,
    x0: float,
    y0: float,
    x1: float,
    y1: float,
    count: int,
    glass: Colour,
    corner: float = 0.03,
) -> None:
    """Draw a row of windows with a slanted glint, painted at once."""
    found = pen.frame(x0, y0, x1, y1)
    if found is None:
        return
    box, u, v = found
    pitch = (x1 - x0) / count
    phase = (u - x0) * (1 / pitch)
    cell = np.floor(phase)
    np.minimum(cell, count - 1, out=cell)
    np.maximum(cell, 0, out=cell)
    phase -= cell
    across = phase - 0.5
    np.abs(across, out=across)
    across *= pitch
    across -= 0.4 * pitch - corner
    down = v - (y0 + y1) / 2
    glint = phase + (down + (y1 - y0) / 2) * (0.6 / (y1 - y0))
    glint -= 0.62
    np.abs(glint, out=glint)
    glint *= -9
    glint += 1.8
    np.maximum(glint, 0, out=glint)
    np.minimum(glint, 0.75, out=glint)
    np.abs(down, out=down)
    down -= (y1 - y0) / 2 - corner
    np.maximum(across, 0, out=across)
    np.maximum(down, 0, out=down)
    across *= across
    down *= down
    across += down
    np.sqrt(across, out=across)
    across -= corner
    across *= pen.scale
    pen.canvas.paint(
        box,
        across,
        glass,
        second=(0.93, 0.96, 0.98),
        pattern=glint,
        outline=0.25,
        texture="smooth",
        offset=pen.offset,
        amp=0.2,
    )


def draw_wheels(pen: Pen, centres: list[float], radius: float, tyre: Colour, hub: Colour) -> None:
    """Draw wheels that stand on the ground, tyre and hub painted at once."""
    part, r = pen.part("wheels"), radius * pen.scale
    found = pen.frame(min(centres) - radius, -2 * radius, max(centres) + radius, 0.0)
    if found is None:
        return
    box, u, v = found
    v += radius
    v *= v
    near = np.abs(u - centres[0])
    for x in centres[1:]:
        np.minimum(near, np.abs(u - x), out=near)
    near *= near
    field = near + v
    np.sqrt(field, out=field)
    field *= pen.scale
    ring = field - 0.28 * r  # a hub with a dark axle
    np.abs(ring, out=ring)
    ring *= -1
    ring += 0.24 * r + 0.5
    np.maximum(ring, 0, out=ring)
    np.minimum(ring, 1, out=ring)
    field -= r
    pen.canvas.paint(
        box, field, tyre, part, second=hub, pattern=ring, relief=0.25, depth=max(1.0, r)
    )
