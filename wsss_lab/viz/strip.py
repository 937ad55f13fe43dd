"""Sweeps with a slider: plain HTML for every reader, live widgets for a running kernel."""

import base64
import html
import io
import os
from collections.abc import Callable, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike
from PIL import Image

from wsss_lab.viz.arrays import rgb
from wsss_lab.viz.figures import png_bytes

_STYLE = """<style>
.frame-strip{max-width:100%;margin:1rem 0;padding:.75rem .9rem .6rem;border-radius:10px;
border:1px solid color-mix(in srgb,currentColor 22%,transparent);box-sizing:border-box}
.frame-strip img{display:block;max-width:100%;height:auto;margin:0 auto .5rem;background:#fff;
border-radius:6px}
.frame-strip img[hidden]{display:none!important}
.frame-strip .frame-strip-pixels{image-rendering:pixelated}
.frame-strip label{display:flex;flex-wrap:wrap;gap:.25rem .75rem;align-items:center;margin:0}
.frame-strip input{flex:1 1 12rem;min-width:0;accent-color:#0072B2;height:1.6rem;cursor:pointer}
.frame-strip output{flex:0 0 auto;min-width:6em;font-variant-numeric:tabular-nums;font-weight:600}
@media print{.frame-strip input{display:none}}
</style>"""

_MOVE = (
    "const s=this.closest('.frame-strip'),f=s.querySelectorAll('img'),i=+this.value;"
    "f.forEach((m,j)=>{m.hidden=j!==i});const t=f[i].dataset.label;"
    "this.setAttribute('aria-valuetext',t);s.querySelector('output').textContent=t"
)


class FrameStrip:
    """Pictures with one slider, in plain HTML for static pages, print and keyboard.

    Without scripts the starting frame is shown. The slider belongs to its own strip by position, so
    the page needs no identifiers and the same frames always give the same HTML.
    """

    def __init__(
        self, uris: list[str], alts: list[str], labels: list[str], name: str, shape: tuple[int, int]
    ) -> None:
        self.uris, self.alts, self.labels, self.name = uris, alts, labels, name
        self.shape = shape  # displayed (height, width) in CSS pixels
        self.pixelated = False
        self.start = 0

    def __len__(self) -> int:
        return len(self.uris)

    def __repr__(self) -> str:
        return f"FrameStrip({len(self)} frames, {self.name}: {self.labels[0]} to {self.labels[-1]})"

    def _image(self, i: int) -> str:
        height, width = self.shape
        kind = ' class="frame-strip-pixels"' if self.pixelated else ""
        return (
            f'<img{kind} src="{self.uris[i]}" alt="{html.escape(self.alts[i])}" '
            f'width="{width}" height="{height}" data-label="{html.escape(self.labels[i])}"'
            f"{' hidden' if i != self.start else ''}>"
        )

    def _repr_html_(self) -> str:
        name, first = html.escape(self.name), html.escape(self.labels[self.start])
        images = "\n".join(self._image(i) for i in range(len(self)))
        return (
            f'{_STYLE}\n<div class="frame-strip" role="group" aria-label="{name}: '
            f'{len(self)} pictures, one at a time">\n{images}\n'
            f'<label><span>{name}</span><input type="range" min="0" max="{len(self) - 1}" '
            f'value="{self.start}" step="1" autocomplete="off" aria-label="{name}" '
            f'aria-valuetext="{first}" '
            f'oninput="{html.escape(_MOVE)}"><output aria-live="polite">{first}</output></label>'
            "\n</div>"
        )


def _frame(frame: ArrayLike | Figure) -> np.ndarray:
    if isinstance(frame, Figure):
        return np.asarray(Image.open(io.BytesIO(png_bytes(frame))).convert("RGB"))
    return rgb(frame)


def data_uri(array: np.ndarray, kind: str, quality: int) -> str:
    """Encode an image as a data URI, ``webp`` or ``jpeg`` at a quality of 1..100."""
    buffer = io.BytesIO()
    options = {"method": 6} if kind == "webp" else {"optimize": True}
    Image.fromarray(array).save(buffer, format=kind, quality=quality, **options)
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def frame_strip(
    frames: Sequence[ArrayLike | Figure],
    alts: Sequence[str],
    labels: Sequence[str],
    *,
    name: str,
    width: int | None = None,
    kind: str = "webp",
    quality: int = 82,
    start: int = 0,
) -> FrameStrip:
    """Make a slider over the pictures of a sweep, e.g. a threshold or steps of a refinement.

    Args:
        frames: images as in `rgb`, or matplotlib figures; all of one size.
        alts: for each frame a sentence of five words or more that describes it, for readers who
            cannot see it.
        labels: for each frame the value shown beside the slider, e.g. `"0.45"`.
        name: what the slider changes, e.g. `"background threshold"`.
        width: displayed width in CSS pixels; the frame's own width if None. Frames smaller than
            this are enlarged without smoothing, so that pixels stay visible.
        kind: `"webp"` (smallest) or `"jpeg"`.
        quality: quality of the compression, 1..100.
        start: number of the frame that is shown first.

    Returns:
        A `FrameStrip`, which notebooks display.

    Raises:
        ValueError: fewer than two frames, lengths that differ, sizes that differ, an `alt` that is
            no sentence, an unknown `kind`, a `start` that is no frame.
    """
    if len(frames) < 2 or not len(frames) == len(alts) == len(labels):
        raise ValueError(
            "frames: expected two or more, with as many alts and labels, got "
            f"{len(frames)} frames, {len(alts)} alts, {len(labels)} labels"
        )
    if poor := [alt for alt in alts if len(alt.split()) < 5]:
        raise ValueError(f"alts: expected sentences of five words or more, got {poor[0]!r}")
    if not 0 <= start < len(frames):
        raise ValueError(f"start: expected a frame 0..{len(frames) - 1}, got {start}")
    if kind not in ("webp", "jpeg"):
        raise ValueError(f"kind: expected 'webp' or 'jpeg', got {kind!r}")
    arrays = [_frame(frame) for frame in frames]
    if len({array.shape for array in arrays}) > 1:
        raise ValueError(
            f"frames: expected one size, got {sorted({array.shape[:2] for array in arrays})}; "
            "resize them first"
        )
    tall, wide = arrays[0].shape[:2]
    width = width or wide
    uris = [data_uri(array, kind, quality) for array in arrays]
    strip = FrameStrip(
        uris, list(alts), [str(x) for x in labels], name, (round(tall * width / wide), width)
    )
    strip.pixelated = width > wide
    strip.start = start
    return strip


def _ends(control: Any) -> list[Any]:
    """The extreme values of a slider, the options of a choice, both states of a box."""
    if hasattr(control, "max"):
        return [control.min, control.max]
    if hasattr(control, "options"):
        return [option[-1] if isinstance(option, tuple) else option for option in control.options]
    return [False, True] if isinstance(control.value, bool) else []


def explorer(draw: Callable[..., Any], **sliders: Any) -> Any:
    """Show live sliders for a running kernel; use it only in cells tagged `remove-output`.

    A page without a kernel cannot redraw, so pictures for every reader belong in a `frame_strip`;
    this is an extra for those who run the notebook.

    The picture is an image widget, not captured output: capturing makes headless runs of the
    notebook wait for messages that may never come.

    Where the environment variable `WSSS_LAB_EXPLORER_ENDS` is set, as `make execute` does, the
    figure is also drawn once with each slider at either end, so that a value for which `draw` fails
    stops the run of the chapter and not its reader.

    Args:
        draw: called with one value per slider; returns a figure.
        sliders: `name=(low, high, step)`, or any other abbreviation of `ipywidgets.interact`.

    Returns:
        The widget: the sliders, and the picture below them.

    Raises:
        ImportError: ipywidgets is not installed.
        ValueError: a slider cannot be made from its value.
        TypeError: `draw` returned something other than a figure.
    """
    try:
        import ipywidgets
    except ImportError as error:
        raise ImportError('explorer needs ipywidgets: pip install "wsss-lab[book]"') from error

    controls = {}
    for name, given in sliders.items():
        controls[name] = ipywidgets.interactive.widget_from_abbrev(given)
        if controls[name] is None:
            raise ValueError(f"{name}: expected (low, high, step) or a value, got {given!r}")
        controls[name].description = name
    picture = ipywidgets.Image(format="png")

    def redraw(_: object = None, **ends: Any) -> None:
        figure = draw(**{name: control.value for name, control in controls.items()} | ends)
        if not isinstance(figure, Figure):
            raise TypeError(f"draw must return a matplotlib figure, got {type(figure).__name__}")
        picture.value = png_bytes(figure)
        plt.close(figure)

    for control in controls.values():
        control.observe(redraw, names="value")
    if os.environ.get("WSSS_LAB_EXPLORER_ENDS"):
        for name, control in controls.items():
            for value in _ends(control):
                redraw(**{name: value})
    redraw()
    return ipywidgets.VBox([*controls.values(), picture])
