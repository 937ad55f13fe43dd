"""Tables of a run's scores beside published ones of the same list, protocol next to number."""

from collections.abc import Sequence

from wsss_lab.methods.common import published
from wsss_lab.methods.common.published import Published
from wsss_lab.runs.recipe import RECIPES


def published_results() -> list[Published]:
    """List the published results of all registered methods and of work without a folder here."""
    own = [row for recipe in RECIPES.values() for row in recipe.published]
    return sorted([*published.PUBLISHED, *own], key=lambda row: row.miou)


def beside(
    miou: float,
    protocol: str,
    data: str,
    split: str,
    what: str = "segmentation",
    name: str = "here",
) -> str:
    """Format a table of a result and the published ones of the same data, split and kind.

    Args:
        miou: mIoU of the run, 0..1.
        protocol: the run's protocol, in a few words.
        data: name of the data set.
        split: name of the list.
        what: "segmentation" or "labels".
        name: name of the run in the table.
    """
    return rows_beside([(miou, name, protocol)], data, split, what)


def rows_beside(
    own: Sequence[tuple[float, str, str]], data: str, split: str, what: str = "segmentation"
) -> str:
    """Format a table of several results of a run and the published ones of the same kind.

    Args:
        own: mIoU in 0..1, name and protocol in a few words, of each result.
        data: name of the data set.
        split: name of the list.
        what: "segmentation" or "labels".
    """
    same = [p for p in published_results() if (p.data, p.split, p.what) == (data, split, what)]
    rows: list[Sequence[str]] = [("mIoU %", "method", "network", "protocol", "source")]
    for miou, name, protocol in own:
        rows.append((f"{100 * miou:.1f}", name, "", protocol, "this run"))
    rows += [(f"{p.miou:.1f}", p.method, p.network, p.protocol, p.source) for p in same]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [f"{what}, {data} {split}"]
    for row in rows:
        cells = (text.ljust(width) for text, width in zip(row, widths, strict=True))
        lines.append("  ".join(cells).rstrip())
    if not same:
        lines.append("no published number for this data, list and kind is known to us")
    return "\n".join(lines)


def protocol_in_words(protocol: dict[str, object]) -> str:
    """Format in one line the switches of a `metrics.json` protocol that move the number most."""
    scales = protocol["scales"]
    many = isinstance(scales, list | tuple) and len(scales) > 1
    flip = protocol["flip"] is True
    views = ["multi-scale"] * many + ["flip"] * flip or ["single scale"]
    crf = "no CRF" if protocol["crf"] == "none" else f"CRF {protocol['crf']}"
    tags = "TRUE TAGS" if protocol["tags_at_test"] is True else "no true tags"
    threshold = [] if protocol["thresholds"] == "none" else [f"threshold {protocol['thresholds']}"]
    return ", ".join([*views, crf, tags, *threshold])
