"""Pictures of a training run: curves of its log, and a gallery of its maps and predictions."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import UInt8
from matplotlib.axes import Axes

from wsss_lab.viz.arrays import array_of, overlay, rgb
from wsss_lab.viz.figures import COLOURS, MAX_WIDTH, Sheet, label_legend, without_markup

NOT_LOSSES = ("step", "lr_factor", "images_per_s")
LINES = ("-", "--", ":")
"""Line styles, one for each round of the colours."""
LABELS = ("pseudo_label", "prediction", "truth")
HEADINGS = {
    "image": "image",
    "cam": "class maps",
    "pseudo_label": "pseudo-label",
    "prediction": "prediction",
    "truth": "truth",
}


def training_curves(logs: Mapping[str, Sequence[Mapping[str, float]]]) -> Sheet:
    """Plot loss with its parts, learning rate and speed of each training stage.

    Args:
        logs: name of the stage -> its entries, as `wsss_lab.train.log.read_log` returns them.

    Returns:
        A figure with a row per stage: losses left, learning rate in the middle, images/s right.

    Raises:
        ValueError: no stage, or one without entries.
    """
    if not logs or not all(logs.values()):
        raise ValueError("logs: expected at least one stage, each with at least one entry")
    sheet = Sheet(
        figsize=(MAX_WIDTH, 2.2 * len(logs)),
        layout="constrained",
        facecolor="white",
    )
    axes = sheet.subplots(len(logs), 3, squeeze=False, width_ratios=(2, 1, 1))
    for row, (name, entries) in zip(axes, logs.items(), strict=True):
        for ax, (title, columns) in zip(row, _panels(name, entries).items(), strict=True):
            _draw_curves(ax, title, columns, entries)
    return sheet


def curve_sheets(name: str, entries: Sequence[Mapping[str, float]]) -> dict[str, Sheet]:
    """Plot what `training_curves` shows of one stage as figures of their own, for narrow pages.

    Args:
        name: of the stage.
        entries: of its log.

    Returns:
        Title -> figure: losses, learning rate, images/s.

    Raises:
        ValueError: no entry.
    """
    if not entries:
        raise ValueError("entries: expected at least one, got none")
    sheets = {}
    for number, (title, columns) in enumerate(_panels(name, entries).items()):
        width = MAX_WIDTH * (0.32 if number else 0.64)
        lines = -(-len(columns) // _names_in_a_row(columns)) if len(columns) > 1 else 0
        height = 2.4 + 0.18 * lines
        sheet = Sheet(figsize=(width, height), layout="constrained", facecolor="white")
        _draw_curves(sheet.subplots(), title, columns, entries, below=True)
        sheets[title] = sheet
    return sheets


def _panels(name: str, entries: Sequence[Mapping[str, float]]) -> dict[str, list[str]]:
    """Title of each panel of a stage -> columns of the log in it."""
    terms = list(dict.fromkeys(key for e in entries for key in e if key not in NOT_LOSSES))
    alone = len(terms) == 2  # one part, which is the loss itself
    return {
        f"{name}: loss": terms[:1] if alone else terms,
        "learning rate / peak": ["lr_factor"],
        "images/s": ["images_per_s"],
    }


def _draw_curves(
    ax: Axes,
    title: str,
    columns: Sequence[str],
    entries: Sequence[Mapping[str, float]],
    below: bool = False,
) -> None:
    """Draw columns of a log; their names in the panel, or below it."""
    for place, column in enumerate(columns):
        colour, line = COLOURS[place % len(COLOURS)], LINES[place // len(COLOURS) % len(LINES)]
        steps = [e["step"] + 1 for e in entries if column in e]
        values = [e[column] for e in entries if column in e]
        few = "." * (len(steps) < 3)
        ax.plot(steps, values, line, color=colour, label=column, marker=few)
    ax.set_title(title, fontsize=9, loc="left", parse_math=False)
    ax.set_xlabel("step", fontsize=8)
    ax.tick_params(labelsize=8)
    ax.grid(visible=True, color="#DDDDDD", linewidth=0.6)
    ax.spines[["top", "right"]].set_visible(False)
    if min(ax.get_ylim()) > 0:
        ax.set_ylim(0, 1.04 * max(ax.get_ylim()))
    if len(columns) > 1 and not below:
        without_markup(ax.legend(fontsize=8, frameon=False))
    elif len(columns) > 1:
        look: Any = {"fontsize": 8, "frameon": False, "handlelength": 1.4, "columnspacing": 1.2}
        look |= {"loc": "outside lower center", "ncols": _names_in_a_row(columns)}
        without_markup(ax.figure.legend(**look))  # type: ignore[call-arg]


def _names_in_a_row(columns: Sequence[str]) -> int:
    """How many names of this length fit below the panel of the losses."""
    return max(1, 60 // (max(map(len, columns), default=0) + 6))


def gallery(
    examples: Sequence[Mapping[str, Any]],
    columns: Sequence[str] | None = None,
    *,
    classes: Sequence[str] | None = None,
) -> Sheet:
    """Show images in rows: photo, class maps, pseudo-label, prediction, truth.

    Args:
        examples: as `wsss_lab.runs.examples.examples` returns them.
        columns: keys to show; None takes all keys of any example.
        classes: names, background first; those that occur are named below with their colours.

    Returns:
        A figure; a place stays empty where an image lacks the key.

    Raises:
        ValueError: no example, or an unknown column.
    """
    if columns is None:
        columns = [c for c in HEADINGS if any(e.get(c) is not None for e in examples)]
    if not examples or not columns or set(columns) - set(HEADINGS):
        raise ValueError(
            f"gallery: expected at least one example and columns of {list(HEADINGS)}, got "
            f"{len(examples)} examples and {list(columns)}"
        )
    cell = MAX_WIDTH / max(len(columns), 3)
    heights = []
    for example in examples:
        height, width = rgb(example["image"]).shape[:2]
        heights.append(height / width)
    sheet = Sheet(
        figsize=(cell * len(columns), cell * sum(heights) + 0.1 * len(examples) + 0.25),
        layout="constrained",
        facecolor="white",
    )
    axes = sheet.subplots(len(examples), len(columns), squeeze=False, height_ratios=heights)
    for i, (row, example) in enumerate(zip(axes, examples, strict=True)):
        for ax, column in zip(row, columns, strict=True):
            ax.set_axis_off()
            if i == 0:
                ax.set_title(HEADINGS[column], fontsize=9, loc="center")
            if example.get(column) is not None:
                ax.imshow(example_picture(example, column), interpolation="nearest")
    if classes is not None and (named := shown_classes(examples, columns, classes)):
        label_legend(sheet, named)
    return sheet


def shown_classes(
    examples: Sequence[Mapping[str, Any]], columns: Sequence[str], classes: Sequence[str]
) -> dict[int, str]:
    """Name the values in the label maps of examples, but for the background.

    Args:
        examples: see `gallery`.
        columns: keys of those that are shown.
        classes: names, background first.
    """
    maps = [e[c] for e in examples for c in columns if c in LABELS and e.get(c) is not None]
    seen = sorted({int(v) for label in maps for v in np.unique(array_of(label))} - {0})
    return {v: "ignored" if v == 255 else classes[v] for v in seen}


def example_picture(example: Mapping[str, Any], column: str) -> UInt8[np.ndarray, "h w 3"]:
    """Draw one picture of a gallery: the photo, or a map or label laid over it.

    Args:
        example: see `gallery`.
        column: a key of `HEADINGS` that it has.
    """
    if column == "image":
        return rgb(example["image"])
    value = array_of(example[column])
    if column == "cam":
        return overlay(example["image"], value.astype(np.float32))
    return overlay(example["image"], value.astype(np.int64), alpha=0.75)
