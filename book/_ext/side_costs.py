"""What methods cost, on the page `side_by_side`: a step on the toy world, a run on photographs."""

from side_photos import NAMES, PRESET, backbone_of, methods, number
from side_rows import NONE
from side_toy import NOT_RUN, table

from wsss_lab.records import RECORDS, load_record
from wsss_lab.runs.recipe import find_preset
from wsss_lab.studies.photos.preset_runs import load_records

RECORD = "step_costs"


def steps() -> str:
    """Table of the kinds of training steps of the presets `toy`, for an image of a batch."""
    head = ["method", "network", "kind of step", "steps of it", "passes with gradients"]
    head += ["passes without", "processor ms", "MiB, whole process"]
    known = load_record(RECORD)["methods"] if (RECORDS / f"{RECORD}.json").is_file() else {}
    rows = []
    for method, name in NAMES.items():
        backbone = f"`{backbone_of(find_preset(method, 'toy'))}`"
        if method not in known:
            rows.append([name, backbone, "not measured", *[NONE] * (len(head) - 3)])
            continue
        for kind, found in known[method]["kinds"].items():
            rows.append([
                name,
                backbone if kind in ("tags", "fit") or kind.startswith("fit,") else NONE,
                kind,
                str(found["steps"]),
                f"{found['with_gradients']:.1f}",
                f"{found['without']:.1f}",
                f"{1000 * found['processor_s']:.0f}",
                str(known[method]["peak_mib"]),
            ])  # fmt: skip
    return table(head, rows)


def photographs() -> str:
    """Table of minutes and memory of the presets' runs on photographs."""
    rows = []
    for method in methods():
        records = [record for record in load_records() if record["method"] == method]
        for record in records:
            stages = record["minutes"]
            parts = ", ".join(f"{stage} {_minutes(value)}" for stage, value in stages.items())
            total = None if None in stages.values() else sum(stages.values())
            rows.append([
                NAMES[method], f"`{record['backbone']}`", _minutes(total), parts,
                str(record["threads"]), number(record["memory_gb"]),
            ])  # fmt: skip
        if not records:
            preset = find_preset(method, PRESET)
            rows.append([NAMES[method], f"`{backbone_of(preset)}`", NOT_RUN, *[NONE] * 3])
    head = ["method", "network", "minutes", "of these", "threads", "GB"]
    notes = [
        f"- {NAMES[record['method']]}: {record['cpu']}; {record['note']}\n"
        for record in load_records()
        if record["note"]
    ]
    return table(head, rows) + ("\n" + "".join(notes) if notes else "")


def _minutes(value: float | None) -> str:
    return NONE if value is None else f"{value:.0f}" if value >= 1 else f"{value:.1f}"
