"""Records of finished runs of the presets `voc-mini`, and the table of them.

    python -m wsss_lab.studies.photos.preset_runs runs/photos --note "quiet machine"

takes minutes, memory and scores out of the folder of a run into `presets/voc-mini` of
`wsss_lab.records`. The table stands in the book's page on full scale, which
`book/_ext/preset_table.py` writes anew from the records.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

from wsss_lab.config import cpu_model, write_json
from wsss_lab.records import RECORDS, load_record
from wsss_lab.report.gather import RunFacts, gather
from wsss_lab.report.times import parts
from wsss_lab.runs.recipe import RECIPES, find_preset
from wsss_lab.runs.settings import differences, plain

PRESET = "voc-mini"
FOLDER = f"presets/{PRESET}"
"""Folder of the records."""
MAY_DIFFER = ("run.seed", "backbone", "method.backbone")
"""Settings in which a run may differ from its preset; the record lists them."""
HEAD = ("method", "backbone", "minutes", "threads", "GB", "tags", "maps", "labels", "masks")
"""Columns: time, threads and largest memory; scores in percent. `tags`: mean average precision on
`val`. `maps`: mean IoU of class maps on `val`, with true tags. `labels`: the same of the maps that
training labels come from, on photos of `train`. `masks`: mean IoU of the segmentation on `val`,
without tags."""
MISSING = "–"


@dataclass(frozen=True)
class Keep:
    """Keep the numbers of one finished run."""

    folder: tyro.conf.Positional[Path]
    """Folder of the run."""
    note: str = ""
    """Note on the machine: other work beside the run."""
    out: Path = RECORDS / FOLDER
    """Folder of the records."""


def record_of(folder: Path, note: str = "") -> dict[str, Any]:
    """Take the numbers of a finished run.

    Args:
        folder: of the run.
        note: on the machine, for example other work beside the run.

    Raises:
        ValueError: the run is not finished, is damaged, or has other settings than the preset.
        FileNotFoundError: there is no run.
    """
    found = gather(folder)
    if found.problems:
        raise ValueError(found.problems[0])
    if found.metrics is None:
        raise ValueError(f"{folder}: the run is not finished; go on with it by --resume")
    changes = _changes(found)
    results = found.metrics["results"]
    val = results.get("val", {})
    labels = results.get("pseudo_labels") or results.get("train_maps") or {}
    # where maps have no threshold of their own, the labels cut from them have
    of_labels = labels.get("cam+true tags", {}).get("miou")
    of_labels = results.get("train_labels", {}).get("maps", {}).get("miou", of_labels)
    stages = {part.name: _known(part.took / 60) for part in parts(found)}
    memory = [r["peak_memory_gb"] for r in found.records.values() if "peak_memory_gb" in r]
    threads = found.metrics["used"]["scores"][0]["threads"]
    return {
        "method": found.method,
        "preset": PRESET,
        "backbone": backbone_of(found.config),
        "changes": changes,
        "seed": found.config.run.seed,
        "minutes": stages,
        "threads": threads,
        "memory_gb": max(memory, default=None),
        "scores": {
            "tags": _percent(val.get("tags", {}).get("map")),
            "maps": _percent(val.get("cam+true tags", {}).get("miou")),
            "labels": _percent(of_labels),
            "masks": _percent(val.get("seg", {}).get("miou")),
        },
        "note": note,
        "cpu": cpu_model(),
        **{key: found.metrics.get(key) for key in ("git", "versions", "device", "weights")},
    }


def _changes(found: RunFacts) -> list[str]:
    """Settings in which a run differs from the preset.

    Raises:
        ValueError: they are others than `MAY_DIFFER`.
    """
    there = plain(find_preset(found.method, PRESET))
    lines = differences(plain(found.config), there)
    others = [line for line in lines if line.partition(" is ")[0] not in MAY_DIFFER]
    if others:
        raise ValueError(f"{found.folder}: no run of the preset {PRESET}: {'; '.join(others[:3])}")
    return [line.partition(" is ")[0] for line in lines]


def backbone_of(config: Any) -> str:
    """Name of the backbone that settings of a run name."""
    method = getattr(config, "method", None)
    return str(getattr(config, "backbone", None) or getattr(method, "backbone", MISSING))


def _known(value: float) -> float | None:
    return None if math.isnan(value) else round(value, 2)


def _percent(value: float | None) -> float | None:
    return None if value is None or math.isnan(value) else round(100 * value, 1)


def keep(folder: Path, out: Path, note: str = "") -> Path:
    """Write the record of a run, `METHOD-BACKBONE-seedN.json`; return its path."""
    record = record_of(folder, note)
    path = out / f"{record['method']}-{record['backbone']}-seed{record['seed']}.json"
    write_json(path, record)
    return path


def load_records() -> list[Mapping[str, Any]]:
    """Load all records of the preset, by name."""
    files = sorted((RECORDS / FOLDER).glob("*.json"))
    return [load_record(f"{FOLDER}/{file.stem}") for file in files]


def rows(records: Sequence[Mapping[str, Any]]) -> list[tuple[str, ...]]:
    """Make one row per record under `HEAD`, and one for each method that has no record yet."""
    found = []
    for method in RECIPES:
        if PRESET not in RECIPES[method].presets:
            continue
        own = [record for record in records if record["method"] == method]
        found += [_row(record) for record in own]
        if not own:
            backbone = backbone_of(find_preset(method, PRESET))
            found.append((method, backbone, "not run yet", *[MISSING] * (len(HEAD) - 3)))
    return found


def _row(record: Mapping[str, Any]) -> tuple[str, ...]:
    times = list(record["minutes"].values())
    total = None if None in times or not times else sum(times)
    name = record["method"] + (f", seed {record['seed']}" if record["seed"] else "")
    return (
        name,
        record["backbone"],
        MISSING if total is None else f"{total:.0f}",
        str(record["threads"]),
        _shown(record["memory_gb"]),
        *(_shown(record["scores"][key]) for key in ("tags", "maps", "labels", "masks")),
    )


def _shown(value: float | None) -> str:
    return MISSING if value is None else f"{value:.1f}"


def table(records: Sequence[Mapping[str, Any]]) -> str:
    """Write the rows as a table in Markdown, with the notes of the runs below it."""
    lines = [HEAD, ("---",) * len(HEAD), *rows(records)]
    text = "".join(f"| {' | '.join(line)} |\n" for line in lines)
    notes = [
        f"- {record['method']}, {record['backbone']}, seed {record['seed']}: {record['cpu']}; "
        f"{record['note']}\n"
        for record in records
        if record["note"]
    ]
    return text + ("\n" if notes else "") + "".join(notes)


if __name__ == "__main__":
    options = tyro.cli(Keep, description=__doc__)
    print(keep(options.folder, options.out, options.note))
