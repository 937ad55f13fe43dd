"""Picture of a study: difference of each arm to its baseline."""

from collections.abc import Sequence
from typing import NamedTuple

from wsss_lab.viz.figures import COLOURS, MAX_WIDTH, Sheet


class DifferenceRow(NamedTuple):
    """One arm of a study, as `difference_plot` draws it; numbers in the unit of the axis."""

    name: str
    per_seed: Sequence[float]
    """Arm minus baseline."""
    mean: float
    low: float | None
    """Interval of the mean; None where there is none."""
    high: float | None


def difference_plot(
    rows: Sequence[DifferenceRow], margin: float = 0.0, unit: str = "points of mIoU"
) -> Sheet:
    """Plot differences of paired runs: a dot per seed, the mean, and its interval.

    Args:
        rows: from top to bottom.
        margin: half width of the shaded band of negligible differences. 0: no band.
        unit: unit of the axis.

    Returns:
        A figure as high as it has rows.

    Raises:
        ValueError: no row.
    """
    if not rows:
        raise ValueError("rows: expected at least one arm that is compared with another, got none")
    sheet = Sheet(figsize=(MAX_WIDTH, 0.9 + 0.32 * len(rows)), layout="constrained")
    ax = sheet.subplots()
    if margin:
        ax.axvspan(-margin, margin, color="#E8E8E8", zorder=0)
    ax.axvline(0, color="#555555", linewidth=1, zorder=1)
    for place, row in enumerate(rows):
        if row.low is not None and row.high is not None:
            ax.plot([row.low, row.high], [place, place], color=COLOURS[0], linewidth=2, zorder=2)
        ax.plot(row.per_seed, [place] * len(row.per_seed), "o", color=COLOURS[1], ms=4, zorder=3)
        ax.plot([row.mean], [place], "|", color=COLOURS[6], ms=14, mew=2, zorder=4)
    ax.set_yticks(range(len(rows)), [row.name for row in rows], fontsize=8)
    ax.set_ylim(len(rows) - 0.5, -0.5)
    ax.set_xlabel(f"difference, {unit}", fontsize=9)
    ax.tick_params(axis="x", labelsize=8)
    ax.grid(visible=True, axis="x", color="#DDDDDD", linewidth=0.6)
    ax.spines[["top", "right", "left"]].set_visible(False)
    ax.tick_params(axis="y", length=0)
    return sheet
