"""Scores of `metrics.json` as tables, their protocol once for all kinds that share it."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from wsss_lab.evaluate.scores import ORACLE
from wsss_lab.metrics.report import ABSENT_POLICIES
from wsss_lab.report.markup import Markup, cell, details, element, facts, joined, note, table

Group = Mapping[str, Mapping[str, Any]]
"""Kind of score -> its report, as `wsss_lab.metrics.Report.to_json` writes it."""

TITLES = {
    "val": "Validation images",
    "train_maps": "Class maps of training images",
    "train_labels": "Pseudo-labels of training images",
    "pseudo_labels": "Class maps of training images",
}
DETAILS = {
    "precision": "precision",
    "recall": "recall",
    "over_activation": "over",
    "under_activation": "under",
}
"""Entry of a report -> column of the per-class table."""
_KINDS: dict[str, Any] = {
    "protocol": dict,
    "miou": float | int | None,
    "iou": list,
    "class_names": list,
}
"""Entries by which a report is known, and their types."""
WORDS = (
    "IoU: intersection over union of a class. Over: wrongly named area / true area. Under: missed "
    "area / true area. A dash: undefined, because the class does not occur."
)


def groups(results: Mapping[str, Any]) -> dict[str, Group]:
    """Find the reports in the results of a run, by the images that they are of."""
    found: dict[str, Group] = {}
    for name, kinds in sorted(results.items(), key=lambda item: item[0] != "val"):
        if isinstance(kinds, dict):
            reports = {kind: r for kind, r in kinds.items() if _is_report(r, f"{name}.{kind}")}
            if reports:
                found[name] = dict(sorted(reports.items(), key=_order))
    return found


def _order(item: tuple[str, Any]) -> tuple[bool, bool]:
    """Segmentations before maps, and oracles last."""
    return item[0].endswith(ORACLE), not item[0].startswith("seg")


def _is_report(value: Any, name: str) -> bool:
    """Whether this is the report of a score.

    Raises:
        ValueError: it is one, but its entries are of other types.
    """
    if not isinstance(value, dict) or not _KINDS.keys() <= value.keys():
        return False
    if wrong := [key for key, kind in _KINDS.items() if not isinstance(value[key], kind)]:
        raise ValueError(f"metrics.json: results.{name} is damaged ({', '.join(wrong)})")
    return True


def headline(results: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]] | None:
    """Choose the score that a run is named by: the segmentation of its validation list, or maps.

    Returns:
        Its kind and its report; None without any score on the validation list. No oracle.

    Raises:
        ValueError: a report is damaged.
    """
    kinds = groups(results).get("val", {})
    return next(((k, r) for k, r in kinds.items() if not k.endswith(ORACLE)), None)


def score_tables(name: str, reports: Group) -> Iterator[Markup]:
    """Make the tables of one group of scores.

    Args:
        name: of the group.
        reports: by kind.
    """
    same, own = split_protocols(reports)
    yield element("h3", TITLES.get(name, name))
    head = ["kind", "mIoU %", "pixel acc. %", "mean acc. %", *(_spoken(key) for key in own)]
    rows = []
    for kind, report in reports.items():
        numbers = (report.get(key) for key in ("miou", "pixel_accuracy", "mean_accuracy"))
        protocol = report["protocol"]
        rows.append([kind, *map(percent, numbers), *(_shown(k, protocol.get(k)) for k in own)])
    yield table("Means, and in what their protocols differ", head, rows)
    if remarks := list(_remarks(reports)):
        yield element("ul", *(element("li", line) for line in remarks))
    yield element("h4", "Protocol of all of them")
    yield facts({_spoken(key): _shown(key, value) for key, value in same.items()})
    yield from _per_class(reports)


def split_protocols(reports: Group) -> tuple[dict[str, Any], list[str]]:
    """Separate what all protocols of a group share from the names of what differs."""
    protocols = [report["protocol"] for report in reports.values()]
    names = list(dict.fromkeys(key for protocol in protocols for key in protocol))
    first = protocols[0]
    same = {n: first[n] for n in names if all(n in p and p[n] == first[n] for p in protocols)}
    return same, [name for name in names if name not in same]


def _remarks(reports: Group) -> Iterator[str]:
    for kind, report in reports.items():
        if kind.endswith(ORACLE):
            yield f"{kind}: the true tags of each image were used: an oracle, no result."
        if "best_miou_on_truth" in report:
            at = report.get("best_threshold_on_truth")
            yield (
                f"{kind}: the best threshold of this list, {at:.2f}, gives "
                f"{percent(report['best_miou_on_truth'])} %; it is chosen on the truth, so it is "
                "an upper bound."
            )
        if alarms := report.get("false_alarms"):
            yield (
                f"{kind}: false alarms in {percent(alarms['share'])} % of {alarms['images']} "
                f"images without any class, on {percent(alarms['pixel_share'])} % of their pixels."
            )


def _per_class(reports: Group) -> Iterator[Markup]:
    """IoU of every kind by class; the first kind in detail."""
    first = next(iter(reports))
    names = reports[first]["class_names"]
    alike = {k: r for k, r in reports.items() if r["class_names"] == names}
    head = ["class", *(f"IoU, {kind}" for kind in alike)]
    head += [f"{word}, {first}" for word in DETAILS.values()]
    rows = []
    for place, name in enumerate(names):
        row: list[object] = [name]
        row += [_bar(_at(report["iou"], place)) for report in alike.values()]
        row += [percent(_at(reports[first].get(key), place)) for key in DETAILS]
        rows.append(row)
    yield table("Per class, in percent", head, rows)
    if len(alike) < len(reports):
        yield note("Kinds with another list of classes are left out of this table.")
    yield element("p", WORDS, class_="small")


def _at(values: Any, place: int) -> Any:
    return values[place] if isinstance(values, Sequence) and place < len(values) else None


def _bar(value: Any) -> Markup:
    share = max(0.0, min(1.0, value)) if _is_number(value) else 0.0
    return cell(percent(value), class_="bar", style=f"--share:{100 * share:.1f}%")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def percent(value: Any) -> str:
    """Format a share in percent; a dash where there is none."""
    return f"{100 * value:.2f}" if _is_number(value) else "–"


def _spoken(key: str) -> str:
    return str(key).replace("_", " ")


def _shown(key: str, value: Any) -> str:
    """An entry of a protocol in words."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if key == "absent_classes" and value in ABSENT_POLICIES:
        return f"{value}: {ABSENT_POLICIES[value]}"
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return "not stated" if value is None else str(value)


def other_results(results: Mapping[str, Any]) -> Markup | None:
    """Make a list of the numbers that belong to no report, on demand; None without any."""
    reported = groups(results)
    rest: dict[str, str] = {}

    def walk(value: Any, name: str) -> None:
        if isinstance(value, dict):
            for key, inner in value.items():
                if name in reported and key in reported[name]:
                    continue
                walk(inner, f"{name}.{key}" if name else str(key))
        elif name not in ("no_score",):
            rest[name] = f"{value:.4g}" if isinstance(value, float) else str(value)

    walk(results, "")
    if not rest:
        return None
    return details("Other results", table("Other results", ("name", "value"), rest.items()))


def all_scores(results: Mapping[str, Any]) -> Markup:
    """Make the tables of all groups of scores, and the other numbers."""
    found = groups(results)
    blocks = [block for name, reports in found.items() for block in score_tables(name, reports)]
    if not found and "no_score" not in results:
        blocks.append(note("metrics.json has no scores."))
    if "no_score" in results:
        blocks.insert(0, note("No score: ", str(results["no_score"])))
    if rest := other_results(results):
        blocks.append(rest)
    return joined(blocks)
