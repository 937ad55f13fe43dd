"""Objects of a scene, their sizes and places."""

from typing import NamedTuple

from wsss_lab.data.toy.backdrop import Land
from wsss_lab.data.toy.knobs import ToyKnobs
from wsss_lab.data.toy.rng import Stream


class Placed(NamedTuple):
    """One object: place of its feet, size and class."""

    base: float
    x: float
    scale: float
    half: float
    kind: str
    nth: int
    airborne: bool


# extent in object units: left, right, top (feet are at 0)
_EXTENT = {
    "cat": (-0.9, 0.95, 1.3),
    "dog": (-0.9, 0.95, 1.15),
    "horse": (-0.9, 1.0, 1.3),
    "cow": (-0.95, 1.0, 1.25),
    "bird": (-1.0, 1.1, 1.3),
    "car": (-0.95, 1.1, 0.9),
    "bus": (-0.95, 0.95, 1.1),
    "train": (-0.95, 1.05, 1.2),
    "boat": (-1.0, 1.0, 1.45),
    "plane": (-1.1, 1.05, 1.0),
}


def lay_out(
    table: list[float], windows: tuple[int, int], knobs: ToyKnobs, single: bool, size: int
) -> tuple[Land, list[Placed]]:
    """Draw horizon, shore and objects, farthest first."""
    rng = Stream(table, windows[0])
    horizon, shore = rng.between(0.26, 0.5), rng.between(0.62, 0.86)
    count = min(knobs.max_objects, rng.pick((1, 1, 1, 2, 2, 2, 3, 3, 4)))
    if single:
        count = 1
    objects: list[Placed] = []
    taken: list[tuple[float, float, float, float]] = []
    for nth in range(count):
        kind = rng.pick(knobs.classes)
        place = Stream(table, windows[1] + nth)
        placed = _place(place, kind, nth, (count, single), knobs, (horizon, shore), taken)
        if placed is not None:
            objects.append(placed)
            if kind == "boat":
                shore = max(shore, min(0.95, placed.base + 0.04))
    scaled = [o._replace(base=o.base * size, x=o.x * size, scale=o.scale * size) for o in objects]
    return Land(horizon * size, shore * size), sorted(scaled)


def _place(
    rng: Stream,
    kind: str,
    nth: int,
    crowd: tuple[int, bool],
    knobs: ToyKnobs,
    land: tuple[float, float],
    taken: list[tuple[float, float, float, float]],
) -> Placed | None:
    """Size and place of one object in image sides; None where there is no room."""
    left, right, top = _EXTENT[kind]
    wide = right - left
    low, high = knobs.min_side, knobs.max_side
    far, u = rng.unit() < 0.16 and nth > 0, rng.unit()
    high = low + (high - low) * (1.0, 0.95, 0.85, 0.75)[crowd[0] - 1]
    if not far:
        low = low + (high - low) * (0.42 if crowd[1] else 0.36)
    side = low + (high - low) * (u * u if far else u * (1.7 - 0.7 * u))
    scale = side / max(wide, top)
    w, h = wide * scale, top * scale
    airborne = rng.unit() < (0.6 if kind == "plane" else 0.35 if kind == "bird" else 0.0)
    best: tuple[float, float, float] | None = None
    for _ in range(8):
        x = rng.between(0.52 * w, 1 - 0.52 * w)
        if airborne:
            base = rng.between(h * 0.95, max(h * 0.95, 0.7))
        elif kind == "boat":
            base = rng.between(land[0] + 0.12, land[1])
        else:
            base = rng.between(max(land[0] + 0.16, 0.52), 0.98)
        base = min(1.02, max(base, h * 0.98))
        here = (x - w / 2, base - h, x + w / 2, base)
        overlap = max((_overlap(here, other) for other in taken), default=0.0)
        if best is None or overlap < best[0]:
            best = (overlap, x, base)
        if overlap < 0.12:
            break
    assert best is not None  # the loop ran
    if best[0] > 0.55:
        return None
    _, x, base = best
    taken.append((x - w / 2, base - h, x + w / 2, base))
    return Placed(base, x, scale, wide / 2, kind, nth, airborne)


def _overlap(a: tuple[float, float, float, float], b: tuple[float, float, float, float]) -> float:
    """Intersection of two boxes over the smaller of them."""
    wide, high = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    if wide <= 0 or high <= 0:
        return 0.0
    return wide * high / min((a[2] - a[0]) * (a[3] - a[1]), (b[2] - b[0]) * (b[3] - b[1]))
