"""One toy scene: layout, painting in depth order, light, and pixel truth."""

import operator

import numpy as np

from wsss_lab.data.catalog import TOY_CLASSES
from wsss_lab.data.toy.backdrop import (
    Land,
    draw_backdrop,
    draw_rails,
    draw_wake,
    draw_water,
)
from wsss_lab.data.toy.bird import draw_bird
from wsss_lab.data.toy.boat_plane import draw_boat, draw_plane
from wsss_lab.data.toy.canvas import Canvas
from wsss_lab.data.toy.clutter import draw_clutter
from wsss_lab.data.toy.coaches import draw_bus, draw_car, draw_train
from wsss_lab.data.toy.knobs import ToyKnobs
from wsss_lab.data.toy.layout import Placed, lay_out
from wsss_lab.data.toy.palette import FUR, PAINT
from wsss_lab.data.toy.pen import PART_KINDS, Pen
from wsss_lab.data.toy.quadrupeds import draw_quadruped
from wsss_lab.data.toy.rng import WINDOW, Colour, Stream, uniform
from wsss_lab.data.toy.truth import TAG_SHARE, Scene, truth

SPLITS = ("train", "val", "pretrain")
"""Splits draw from disjoint seed streams; `pretrain` has one object a scene."""
CONTEXTS = {"water": "boat", "rails": "train"}
"""Planted context -> the class it goes with. The truth of both is background."""

# windows of the random table; objects have two each, places four, clutter eight
_LAYOUT, _PLACE, _OBJECT, _BACKDROP, _CONTEXT, _WATER, _RAILS = 0, 1, 5, 13, 14, 15, 16
_WAKE, _LIGHT, _CROWD, _CLUTTER, _WINDOWS = 17, 18, 19, 20, 28
_LARGEST = 2**63 - 1


def scene(
    seed: int,
    index: int,
    knobs: ToyKnobs | None = None,
    *,
    size: int = 128,
    split: str = "train",
    context: bool | tuple[str, ...] | None = None,
) -> Scene:
    """Draw a scene; the same arguments give the same scene everywhere.

    Args:
        seed: seed of the world, 0 .. 2^63 - 1.
        index: number of the scene in its split, 0 .. 2^63 - 1.
        knobs: settings of the scene; `pretrain` always has `single=True`.
        size: image side in pixels, at least 16.
        split: one of `SPLITS`.
        context: None draws the planted contexts by the knobs; True gives every boat water and
            every train rails; False leaves both out; a tuple of names of `CONTEXTS` draws exactly
            those. Objects, their placement, backdrop, clutter and light stay the same.

    Returns:
        The scene.

    Raises:
        ValueError: an argument is out of range.
    """
    _check(seed, index, size, split, context)
    knobs = knobs or ToyKnobs()
    single = knobs.single or split == "pretrain"
    table = uniform((0x70F, seed, SPLITS.index(split), index), _WINDOWS * WINDOW).tolist()
    canvas = Canvas(size)
    land, objects = lay_out(table, (_LAYOUT, _PLACE), knobs, single, size)
    canvas.sun = int(table[_LIGHT * WINDOW] * 3) - 1
    backdrop = Stream(table, _BACKDROP)
    camouflage = backdrop.unit() < 0.35 * (1 - knobs.contrast)
    fur = backdrop.tint(backdrop.pick(FUR + PAINT))
    draw_backdrop(canvas, backdrop, land, fur if camouflage else None)
    drawn = _draw_contexts(canvas, table, knobs, land, objects, context)
    _draw_things(canvas, table, knobs, land, objects, "water" in drawn)
    image = _light(canvas, Stream(table, _LIGHT))
    return truth(canvas, image)


def _check(seed: int, index: int, size: int, split: str, context: object) -> None:
    """Raise ValueError for an argument that is out of range."""
    for name, value in (("seed", seed), ("index", index)):
        if not 0 <= operator.index(value) <= _LARGEST:
            raise ValueError(f"{name}: expected an integer in 0..2^63-1, got {value!r}")
    if operator.index(size) < 16:
        raise ValueError(f"size: expected at least 16 pixels, got {size!r}")
    if split not in SPLITS:
        raise ValueError(f"split: expected one of {SPLITS}, got {split!r}")
    if isinstance(context, tuple) and all(name in CONTEXTS for name in context):
        return
    if context not in (None, True, False):
        raise ValueError(
            f"context: expected None, True, False or a tuple of {tuple(CONTEXTS)}, got {context!r}"
        )


def _draw_contexts(
    canvas: Canvas,
    table: list[float],
    knobs: ToyKnobs,
    land: Land,
    objects: list[Placed],
    wish: bool | tuple[str, ...] | None,
) -> set[str]:
    """Draw water and rails; return the names of those that were drawn."""
    rng, drawn = Stream(table, _CONTEXT), set[str]()
    for name, kind in CONTEXTS.items():
        there, chance = any(o.kind == kind for o in objects), rng.unit()
        planted = chance < (knobs.context_given_class if there else knobs.context_given_other)
        if isinstance(wish, tuple):
            planted = name in wish
        elif wish is not None:
            planted = wish and there
        if planted:
            drawn.add(name)
    if "water" in drawn:
        draw_water(canvas, Stream(table, _WATER), land)
    if "rails" in drawn:
        tracks = [(o.base - 0.03 * o.scale, o.scale * 0.17) for o in objects if o.kind == "train"]
        s = canvas.size
        elsewhere = [(rng.between(0.6, 0.9) * s, rng.between(0.035, 0.075) * s)]
        for y, gauge in tracks or elsewhere:
            draw_rails(canvas, Stream(table, _RAILS), y, gauge)
    return drawn


def _draw_things(
    canvas: Canvas,
    table: list[float],
    knobs: ToyKnobs,
    land: Land,
    objects: list[Placed],
    water: bool,
) -> None:
    """Draw objects and clutter, farthest first."""
    s = canvas.size
    things: list[tuple[float, int, Placed | None]] = [(o.base, -1, o) for o in objects]
    pieces = int(table[_CROWD * WINDOW] * (knobs.clutter + 1))
    for k in range(pieces):
        roll = table[(_CLUTTER + k) * WINDOW + 40]
        if roll < 0.55:  # along the horizon
            base = land.horizon + (0.01 + 0.05 * roll) * s
        else:  # on the near side
            base = land.shore + (roll - 0.55) * 2.2 * (1.02 * s - land.shore)
        things.append((base, k, None))
    for base, k, thing in sorted(things, key=lambda t: t[:2]):
        if thing is not None:
            _draw_object(canvas, table, knobs, thing, water)
        else:
            rng = Stream(table, _CLUTTER + k)
            far = base < land.horizon + 0.06 * s
            z = rng.between(0.1, 0.34) if far else rng.between(0.12, 0.26)
            draw_clutter(canvas, rng, rng.between(0, s), base, z * s)


def _draw_object(
    canvas: Canvas, table: list[float], knobs: ToyKnobs, o: Placed, water: bool
) -> None:
    """Draw shadow or wake, then the object."""
    rng = Stream(table, _OBJECT + 2 * o.nth, 2)
    flip, turn = rng.unit() < 0.5, rng.between(-1.0, 1.0)
    s = canvas.size
    offset = (rng.below(s), rng.below(s))
    outline = knobs.contrast * rng.between(0.2, 0.75)
    dark, boat = rng.between(0.35, 0.55), o.kind == "boat"
    if boat and water:
        draw_wake(canvas, Stream(table, _WAKE), o.x, o.base, o.half * o.scale)
    elif not o.airborne:
        _draw_shadow(canvas, o, dark)
    pen = Pen(
        canvas,
        (o.x, o.base),
        o.scale,
        flip=flip,
        turn=turn * (0.09 if o.airborne else 0.012),
        offset=offset,
        outline=outline,
        label=TOY_CLASSES.index(o.kind) + 1,
        instance=o.nth + 1,
    )
    if o.kind == "bird":
        draw_bird(pen, rng, knobs, o.airborne)
    elif o.kind == "plane":
        draw_plane(pen, rng, knobs, o.airborne)
    elif o.kind in _VEHICLES:
        _VEHICLES[o.kind](pen, rng, knobs)
    else:
        draw_quadruped(pen, rng, o.kind, knobs)


_VEHICLES = {"car": draw_car, "bus": draw_bus, "train": draw_train, "boat": draw_boat}


def _draw_shadow(canvas: Canvas, o: Placed, dark: float) -> None:
    """Draw a soft shadow on the ground, on the side away from the sun."""
    half = o.half * o.scale
    x, y, flat = o.x - canvas.sun * 0.16 * half, o.base - 0.01 * half, 0.13 * half + 0.5
    box = canvas.box(x - half * 1.1, y - flat * 1.4, x + half * 1.1, y + flat * 1.4)
    if box is not None:
        field = canvas.ellipse(box, x, y, (half * 0.95, 0.0), (0.0, flat))
        canvas.paint(box, field, (0.05, 0.06, 0.1), opacity=dark, soft=1.0 + half * 0.12)


def _light(canvas: Canvas, rng: Stream) -> np.ndarray:
    """Brightness, tint, a cloud's shadow, vignette and grain; uint8 (h, w, 3)."""
    s, rgb = canvas.size, canvas.rgb
    rng.unit()  # the side of the sun
    level = 1.02 + 0.24 * rng.bell()
    across, down = rng.between(-0.22, 0.22), rng.between(-0.08, 0.08)
    xs, ys = canvas.xs * (1 / s) - 0.5, canvas.ys * (1 / s) - 0.5
    light = xs * across + (ys * down + level)
    light -= xs * xs * 0.34 + ys * ys * 0.34
    tint: Colour = (1 + 0.14 * rng.bell(), 1 + 0.04 * rng.bell(), 1 + 0.14 * rng.bell())
    shadow, at, wide = rng.unit(), rng.between(-0.5, 0.5), rng.between(0.06, 0.2)
    slope, dark = rng.between(-0.5, 0.5), rng.between(0.18, 0.34)
    if shadow < 0.35:
        band = np.abs(xs + (ys * slope - at)) - wide
        band *= -16
        band += 0.5
        np.maximum(band, 0, out=band)
        np.minimum(band, 1, out=band)
        light *= 1 - band * dark
    rgb *= np.array(tint, dtype=np.float32).reshape(3, 1, 1)
    rgb *= light
    ox, oy = rng.below(s), rng.below(s)
    rgb += canvas.textures["gravel"][oy : oy + s, ox : ox + s] * 0.025
    rgb *= 255
    rgb += 0.5
    np.maximum(rgb, 0, out=rgb)
    np.minimum(rgb, 255, out=rgb)
    return np.ascontiguousarray(rgb.astype(np.uint8).transpose(1, 2, 0))


__all__ = ["CONTEXTS", "PART_KINDS", "SPLITS", "TAG_SHARE", "Scene", "scene"]
