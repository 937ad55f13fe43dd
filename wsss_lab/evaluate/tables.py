"""Text of evaluations: tables of classes, their columns and their protocol explained once."""

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

from wsss_lab.metrics import Protocol
from wsss_lab.metrics.report import UNSTATED

if TYPE_CHECKING:
    from wsss_lab.evaluate.scores import Evaluation

WIDE = 80
"""Columns of a terminal."""
ORACLE_NOTE = "  (the true tags of each image were used: an oracle)"
COLUMNS = """\
All columns in %. IoU: overlap of predicted and true area / their union.
prec.: share of the predicted area that is right. recall: share of the true area
that is found. over: wrongly predicted area / true area, above 100 where it is
the larger one. under: missed area / true area. -: not defined. mIoU: mean IoU."""
"""Explanation of the columns of `Report.scores`."""


def tables(parts: Sequence[tuple[str, "Evaluation"]]) -> str:
    """Format all reports of some evaluations, then the columns and the protocol, once.

    Args:
        parts: heading and evaluation; an empty heading is left out.

    Returns:
        Text without line break at its end. What differs between the protocols has a line per
        table.
    """
    blocks: list[str] = []
    protocols: list[tuple[str, Protocol]] = []
    for heading, found in parts:
        if heading:
            blocks.append(f"{chr(10) if blocks else ''}{heading}")
        blocks += _blocks(found)
        several = len(parts) > 1 and heading
        protocols += [
            (f"{heading}, {kind}" if several else kind, report.protocol)
            for kind, report in found.reports.items()
        ]
    if protocols:
        blocks += ["", COLUMNS, protocol_text(protocols)]
    return "\n".join(blocks)


def _blocks(found: "Evaluation") -> list[str]:
    """Tables of one evaluation, each with what belongs to it alone."""
    from wsss_lab.evaluate.scores import ORACLE

    blocks = []
    for kind, report in found.reports.items():
        note = ORACLE_NOTE if kind.endswith(ORACLE) else ""
        blocks.append(f"== {kind}{note}\n{report.scores()}")
        if kind in found.sweeps:
            sweep = found.sweeps[kind]
            blocks.append(
                f"best of {len(sweep.thresholds)} thresholds, chosen on the truth: "
                f"{sweep.best_threshold:.2f} gives mIoU {100 * sweep.best_miou:.2f} %"
            )
        if kind in found.alarms:
            alarms = found.alarms[kind]
            blocks.append(
                f"false alarms: in {100 * alarms['share']:.2f} % of {alarms['images']} images "
                f"without any class, on {100 * alarms['pixel_share']:.2f} % of their pixels"
            )
    if found.tags:
        names = {"map": "mAP over classes", "map_samples": "mAP over images"}
        scores = [f"{names.get(n, n)} {100 * value:.2f} %" for n, value in found.tags.items()]
        blocks.append(f"tags that the network names: {', '.join(scores)}")
    return blocks


def protocol_text(protocols: Sequence[tuple[str, Protocol]]) -> str:
    """Format protocols of several tables: what they share once, then what differs by table.

    Args:
        protocols: name of the table and its protocol, at least one.
    """
    switches = [dict(line.split(": ", 1) for line in p.lines()) for _, p in protocols]
    first = switches[0]
    shared = [name for name in first if all(s[name] == first[name] for s in switches)]
    unstated = [name for name in shared if first[name] == UNSTATED]
    lines = ["protocol"]
    for name in shared:
        if name not in unstated:
            lines += _folded(f"{name}: {first[name]}", "  ", "    ")
    if unstated:
        lines += _folded(f"{UNSTATED}: {', '.join(unstated)}", "  ", "    ")
    for (table, _), own in zip(protocols, switches, strict=True):
        rest = [f"{name}: {own[name]}" for name in first if name not in shared]
        if rest:
            lines += _folded(f"{table or 'table'}: {'; '.join(rest)}", "  ", "    ")
    return "\n".join(lines)


def _folded(text: str, indent: str, further: str) -> list[str]:
    return textwrap.wrap(
        text, WIDE, initial_indent=indent, subsequent_indent=further, break_long_words=False
    )
