"""Surroundings of the objects: sky, hills, walls, grounds, water, rails."""

import math
from dataclasses import dataclass

import numpy as np

from wsss_lab.data.toy.canvas import Canvas, Part
from wsss_lab.data.toy.palette import FUR, PAINT, STEEL, blend
from wsss_lab.data.toy.rng import Colour, Stream

WATER, RAILS = 1, 2
"""Values of `Scene.context`."""

SKY: tuple[Colour, ...] = (
    (0.36, 0.58, 0.84),
    (0.55, 0.68, 0.80),
    (0.88, 0.68, 0.54),
    (0.47, 0.52, 0.60),
    (0.62, 0.60, 0.74),
    (0.40, 0.62, 0.70),
)
HILL: tuple[Colour, ...] = (
    (0.36, 0.48, 0.36),
    (0.46, 0.50, 0.56),
    (0.58, 0.54, 0.42),
    (0.44, 0.40, 0.48),
)
WALL: tuple[Colour, ...] = (
    (0.74, 0.68, 0.58),
    (0.58, 0.65, 0.68),
    (0.72, 0.50, 0.42),
    (0.64, 0.68, 0.56),
    (0.52, 0.56, 0.66),
)
GROUND: tuple[tuple[Colour, str, float], ...] = (
    ((0.33, 0.50, 0.24), "grass", 0.28),
    ((0.44, 0.56, 0.30), "grass", 0.24),
    ((0.44, 0.45, 0.46), "gravel", 0.16),
    ((0.80, 0.71, 0.54), "sand", 0.20),
    ((0.53, 0.41, 0.30), "gravel", 0.24),
    ((0.88, 0.90, 0.92), "sand", 0.10),
    ((0.64, 0.48, 0.33), "plank", 0.25),
    ((0.40, 0.47, 0.54), "sand", 0.20),
    ((0.34, 0.46, 0.50), "gravel", 0.20),
    ((0.26, 0.38, 0.50), "plank", 0.25),
)
"""Colour, texture and its strength; the bluish ones keep water from being the only blue ground."""
LAKE: tuple[Colour, ...] = (
    (0.22, 0.44, 0.58),
    (0.30, 0.46, 0.46),
    (0.46, 0.54, 0.60),
    (0.36, 0.42, 0.40),
    (0.52, 0.52, 0.58),
    (0.28, 0.36, 0.48),
    (0.44, 0.44, 0.38),
    (0.62, 0.58, 0.56),
)


@dataclass(frozen=True)
class Land:
    """Heights in px shared by the whole scene."""

    horizon: float
    shore: float
    """Lower edge of water, if there is water."""


def _ramp(array: np.ndarray) -> np.ndarray:
    """Clip to 0..1 in place."""
    np.maximum(array, 0, out=array)
    np.minimum(array, 1, out=array)
    return array


def _column(colour: Colour) -> np.ndarray:
    return np.array(colour, dtype=np.float32).reshape(3, 1, 1)


def _floor_rows(
    canvas: Canvas, name: str, top: int, bottom: int, at: tuple[int, int]
) -> np.ndarray:
    """A texture laid flat: rows are closer together towards the horizon."""
    t = (np.arange(1, bottom - top + 1, dtype=np.float32)) * np.float32(1 / (canvas.size - top))
    rows = (t * np.float32(1.5) / (t + np.float32(0.5)) * np.float32(0.95 * canvas.size)).astype(
        np.int64
    )
    tile = canvas.textures[name][:, at[0] : at[0] + canvas.size]
    return tile[rows + at[1]]


def draw_backdrop(canvas: Canvas, rng: Stream, land: Land, ground: Colour | None) -> None:
    """Draw sky with clouds and hills, or a wall; then the ground, in `ground` if that is given."""
    s, h = canvas.size, math.floor(land.horizon)
    at = rng.below(s), rng.below(s)
    wall = rng.chance(0.27)
    if wall:
        colour, name = rng.tint(rng.pick(WALL), 0.08), rng.pick(("brick", "smooth", "plank"))
        tile = canvas.textures[name][at[1] : at[1] + h, at[0] : at[0] + s]
        light = tile * 0.2 + (1.08 - canvas.ys[:h] * (0.2 / h))
        np.multiply(_column(colour), light, out=canvas.rgb[:, :h])
    else:
        _draw_sky(canvas, rng, h, at)
        for k in range(rng.below(3)):
            _draw_hills(canvas, rng, h, k)
    colour, name, amp = rng.pick(GROUND)
    colour = rng.tint(colour, 0.08)
    if ground is not None:
        colour = ground
    floor = _floor_rows(canvas, name, h, s, (rng.below(s), rng.below(s))) * amp
    floor += (canvas.ys[h:] - h) * (0.24 / s) + 0.86
    np.multiply(_column(colour), floor, out=canvas.rgb[:, h:])
    if wall:
        canvas.rgb[:, h : h + max(1, s // 40)] *= np.float32(0.62)


def _draw_sky(canvas: Canvas, rng: Stream, h: int, at: tuple[int, int]) -> None:
    """A gradient towards a pale horizon and clouds lit from above."""
    s = canvas.size
    zenith = rng.tint(rng.pick(SKY), 0.08)
    haze = blend(zenith, (0.95, 0.92, 0.86), rng.between(0.35, 0.7))
    cloud = rng.tint((0.93, 0.93, 0.93), 0.05)
    puff = canvas.textures["cloud"][at[1] : at[1] + h, at[0] : at[0] + s]
    sky = _column(zenith) + (_column(haze) - _column(zenith)) * (canvas.ys[:h] * (1 / h))
    weight = _ramp(puff * 2.2 + (rng.between(-0.75, 0.55) + 0.4) - canvas.ys[:h] * (0.5 / h))
    lit = _column(cloud) * (1.0 - _ramp(puff * 0.5) * 0.35)
    lit -= sky
    lit *= weight
    lit += sky
    canvas.rgb[:, :h] = lit


def _draw_hills(canvas: Canvas, rng: Stream, h: int, nth: int) -> None:
    """A ridge in front of the sky, paler when farther away."""
    s = canvas.size
    colour = blend(rng.tint(rng.pick(HILL)), (0.74, 0.79, 0.84), 0.45 - 0.3 * nth)
    height, row, shift = rng.between(0.06, 0.2) * s * (1 - 0.35 * nth), rng.below(s), rng.below(s)
    name = rng.pick(("hill", "hill", "cloud"))
    ridge = canvas.textures[name][row, shift : shift + s] * height
    ridge = h - height * 0.75 - ridge
    top = max(0, math.floor(h - 2.1 * height))
    field = (ridge[None, :] - canvas.ys[top:h]).astype(np.float32)
    offset = (rng.below(s), rng.below(s))
    canvas.paint(
        (0, top, s, h), field, colour, texture="leaf", offset=offset, amp=0.14, outline=0.1
    )


def draw_water(canvas: Canvas, rng: Stream, land: Land) -> None:
    """Draw a lake from the horizon to the shore, marked as context."""
    s, h = canvas.size, math.floor(land.horizon)
    part = canvas.register(Part(context=WATER))
    colour = rng.tint(rng.pick(LAKE), 0.08)
    bottom = min(s, math.floor(land.shore + 0.05 * s) + 2)
    edge = canvas.textures["hill"][rng.below(s), rng.below(s) :][:s] * (0.03 * s)
    field = canvas.ys[h:bottom] - (edge[None, :] + land.shore)
    ripples = _floor_rows(canvas, "water", h, bottom, (rng.below(s), rng.below(s)))
    glitter = _ramp(ripples * 1.8 - 0.25)
    glitter *= 0.75
    mirror = blend(colour, rng.tint((0.9, 0.91, 0.92), 0.08), 0.65)
    sand = blend(rng.tint((0.72, 0.65, 0.52)), colour, 0.25)
    box = (0, h, s, bottom)
    canvas.paint(box, field - 0.022 * s, sand, part=0, opacity=0.75, soft=0.03 * s)
    canvas.paint(box, field, colour, part, second=mirror, pattern=glitter, outline=-0.3)


def draw_wake(canvas: Canvas, rng: Stream, x: float, y: float, half: float) -> None:
    """Draw mirror image and foam of a hull; under the hull, so the boat's mask stays whole."""
    box = canvas.box(x - half * 1.1, y - half * 0.1, x + half * 1.1, y + half * 0.35)
    dark, foam = rng.between(0.3, 0.5), rng.tint((0.86, 0.9, 0.92), 0.04)
    if box is None:
        return
    field = canvas.ellipse(box, x, y + half * 0.04, (half * 0.95, 0.0), (0.0, half * 0.28))
    canvas.paint(box, field, (0.1, 0.15, 0.2), opacity=dark, soft=max(1.0, half * 0.2))
    field = canvas.ellipse(box, x, y, (half * 0.9, 0.0), (0.0, half * 0.05))
    canvas.paint(box, field, foam, texture="water", amp=0.3, opacity=0.55)


def draw_rails(canvas: Canvas, rng: Stream, y: float, gauge: float) -> None:
    """Draw ballast, sleepers and two rails across the image; the rails are `gauge` apart."""
    s = canvas.size
    part = canvas.register(Part(context=RAILS))
    top, bottom = y - gauge * 0.75, y + gauge * 2.0
    box = canvas.box(0, top, s, bottom)
    stone = blend(rng.tint((0.47, 0.44, 0.41), 0.1), rng.pick(GROUND)[0], rng.between(0.2, 0.8))
    wood = rng.tint(rng.pick((FUR[1], FUR[4], FUR[7], PAINT[5])), 0.05)
    offset, steel, start = (rng.below(s), rng.below(s)), rng.tint(STEEL), rng.unit()
    if box is None:
        return
    middle, half = (top + bottom) / 2, (bottom - top) / 2
    ys = canvas.ys[box[1] : box[3]]
    wavy = canvas.textures["gravel"][offset[1], offset[0] : offset[0] + s] * (0.012 * s)
    field = np.abs(ys - middle) - (half + wavy[None, :])
    pitch = max(3.0, gauge * 0.8)
    phase = (canvas.xs + (ys - middle) * 0.2) * (1 / pitch) + start
    phase -= np.floor(phase)
    tie = np.maximum(
        np.abs(phase - 0.5) * pitch - pitch * 0.24, np.abs(ys - y - gauge * 0.5) - gauge * 0.98
    )
    canvas.paint(
        box,
        field,
        stone,
        part,
        texture="gravel",
        offset=offset,
        amp=0.34,
        second=wood,
        pattern=_ramp(0.5 - tie),
    )
    bar = max(0.6, gauge * 0.1)
    line = np.minimum(np.abs(ys - y), np.abs(ys - y - gauge)) - bar
    shadow = np.minimum(np.abs(ys - y - 2 * bar), np.abs(ys - y - gauge - 2 * bar)) - bar
    field = np.repeat(shadow, s, axis=1)
    canvas.paint(box, field, (0.12, 0.1, 0.1), opacity=0.6)
    canvas.paint(box, np.repeat(line, s, axis=1), steel)
