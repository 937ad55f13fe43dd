"""The sections of a report but for its scores; each returns markup, or raises what is at fault."""

import math
import shlex
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from wsss_lab.data.catalog import voc_palette
from wsss_lab.plan.long_run import LongRun, plan_facts
from wsss_lab.printable import one_line
from wsss_lab.report import times
from wsss_lab.report.gather import RunFacts
from wsss_lab.report.markup import Markup, details, element, facts, joined, note, table
from wsss_lab.report.scores import headline, percent
from wsss_lab.report.settings import nearest_preset
from wsss_lab.runs.left import first_examples
from wsss_lab.viz import (
    curve_sheets,
    data_uri,
    example_picture,
    heat,
    shown_classes,
)
from wsss_lab.viz.runs import HEADINGS, LABELS
from wsss_lab.viz.svg import svg_uri

LONG_SIDE = 480
"""Largest side of a picture, px."""
PROGRAM = "python -m wsss_lab"


def heading(found: RunFacts) -> Markup:
    """Name the run, its state and its score, and everything that its numbers depend on."""
    data = (found.start.get("config") or {}).get("data") or {}
    lines = [element("h1", f"{found.method} on {data.get('name', 'unknown data')}")]
    lines.append(element("p", found.folder.resolve(), class_="small path"))
    lines.append(_state(found))
    return element("header", *lines, facts(_facts(found, data)))


def _state(found: RunFacts) -> Markup:
    if found.metrics is not None:
        try:
            top = headline(found.metrics["results"])
        except ValueError as error:
            return note(error)
        if top is None:
            return element("p", "Finished; there is no score on a validation list.", class_="state")
        kind, report = top
        number = element("strong", f"{percent(report['miou'])} %")
        text = f" mIoU, {kind}, {report['protocol'].get('split', 'list not stated')}"
        return element("p", number, text, class_="state")
    steps = []
    for name in found.logs:
        done, of = found.steps_of(name)
        steps.append(f"{name}: step {done}" + (f" of {of}" if of else ""))
    where = "; ".join(steps) or "no step is logged yet"
    if found.running:
        return note(f"This run is being worked on: {where}. Make the report again when it is done.")
    command = f"{PROGRAM} train {found.method} --out {shlex.quote(str(found.folder))} --resume"
    return note(f"This run is not finished: {where}. Go on with: ", element("code", command))


def _facts(found: RunFacts, data: Mapping[str, Any]) -> dict[str, Any]:
    config, start, metrics = found.start["config"], found.start, found.metrics or {}
    preset = nearest_preset(found)
    lists = {role: data.get(f"{role}_split") or "usual list" for role in ("train", "val")}
    if found.config is not None:
        lists = {role: found.config.data.split_of(role) for role in lists}
    used = [row for rows in (metrics.get("used") or {}).values() for row in rows]
    used += [row for record in found.records.values() for row in record.get("used", [])]
    device = metrics.get("device") or next((r["device"] for r in used if "device" in r), "unknown")
    threads = sorted({str(row["threads"]) for row in used if "threads" in row})
    shown = {
        "method": f"{found.method}: {found.recipe.summary}" if found.recipe else found.method,
        "preset": f"{preset.name}, {len(preset.changes)} settings changed" if preset else "unknown",
        "data": f"{data.get('name')}; lists {lists['train']} to train, {lists['val']} to score",
        "started": _date(found.folder / "config.json"),
        "finished": _date(found.folder / "metrics.json") if found.metrics else "not yet",
        "device": f"{device}; threads: {', '.join(threads)}" if threads else str(device),
        "git": start["git"],
        "seed": metrics.get("seed", (config.get("run") or {}).get("seed", "unknown")),
        "weights at the start": metrics.get("weights") or config.get("weights") or "none",
        "versions": ", ".join(f"{name} {text}" for name, text in start["versions"].items()),
    }
    if changed := start.get("environment"):
        shown["environment"] = ", ".join(f"{name}={value}" for name, value in changed.items())
    return shown


def _date(file: Path) -> str:
    return time.strftime(
        "%Y-%m-%d %H:%M %Z, time of the file", time.localtime(file.stat().st_mtime)
    )


def plan_beside(found: RunFacts) -> Markup:
    """Make the table of planned and real times and memory."""
    parts = times.parts(found)
    if not parts:
        return note("Nothing was planned, and nothing is logged yet.")
    head = ("part", "amount", "planned", "took", "took / planned", "planned GB", "largest GB")
    rows = [
        (
            part.name,
            part.amount or "–",
            times.in_words(part.planned),
            times.in_words(part.took) + " *" * part.from_files,
            _digits(part.took / part.planned if part.planned else math.nan),
            _digits(part.planned_memory),
            _digits(part.memory),
        )
        for part in parts
    ]
    blocks = [table("Parts of the run", head, rows)]
    words = "Times are those of the logs, without pauses. "
    if any(part.from_files for part in parts):
        words += "*: between the times of two files, pauses included. "
    if not math.isnan(all_of_it := times.whole(found)):
        words += f"From the first file to the last: {times.in_words(all_of_it)}. "
    words += "Memory: of the GPU, or of the whole process where there is none, up to that part."
    blocks.append(element("p", words, class_="small"))
    return joined([*blocks, *_about_the_plan(found)])


def _digits(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.2f}"


def _about_the_plan(found: RunFacts) -> list[Markup]:
    """Remarks: there is no plan, or it was made for other settings."""
    if found.plan is None:
        command = f"{PROGRAM} plan {found.method} --out {shlex.quote(str(found.folder))}/plan.json"
        return [note("No plan was kept. Beforehand, ", element("code", command), " makes one.")]
    lines = [element("li", line) for line in found.plan.get("notes") or []]
    remarks = [element("ul", *lines)] if lines else []
    if found.config is not None:
        here = plan_facts(found.method, found.config)
        other = [
            f"{k} {found.plan[k]}, here {v}" for k, v in here.items() if found.plan.get(k, v) != v
        ]
        if other:
            remarks.append(note(f"The plan is of other settings: {'; '.join(other)}."))
    if isinstance(found.plan.get("data"), str):
        remarks.append(element("p", f"The plan is of {found.plan['data']}.", class_="small"))
    return remarks


def curves(found: RunFacts) -> Markup:
    """Draw loss, learning rate and speed of each stage."""
    if not found.logs:
        return note("No stage has logged a step (run.log_every is 0, or none was reached).")
    rows = []
    for name, entries in found.logs.items():
        figures = []
        for title, sheet in curve_sheets(name, entries).items():
            text = f"{title} over {len(entries)} logged steps; {_ends(title, entries)}"
            picture = element("img", src=svg_uri(sheet), alt=text)
            figures.append(element("figure", picture, class_="curve"))
        rows.append(element("h3", name))
        rows.append(element("div", *figures, class_="curves"))
    return joined(rows)


def _ends(title: str, entries: Any) -> str:
    """First and last value of a panel in words, for those who cannot see it."""
    column = {"images/s": "images_per_s", "learning rate / peak": "lr_factor"}.get(title, "loss")
    values = [entry[column] for entry in entries if column in entry]
    return f"from {values[0]:.3g} to {values[-1]:.3g}" if values else "no values"


def gallery(found: RunFacts, count: int) -> Markup:
    """Show the first images of both lists with labels, maps, predictions and truth."""
    if not count:
        return note("Left out: no image was asked for.")
    if found.config is None:
        return note("Left out: the settings of the run cannot be read.")
    blocks: list[object] = []
    if not (found.folder / "model.safetensors").is_file():
        blocks.append(note("There is no model.safetensors, so there are no predictions."))
    for role, title in (("train", "Training images"), ("val", "Validation images")):
        rows, classes, why = _examples(found, role, count)
        blocks.append(element("h3", title))
        blocks += [note(text) for text in why]
        if rows:
            blocks += _rows(rows, classes)
            if all(row["truth"] is None for row in rows):
                blocks.append(note("These images have no masks: there is no truth to show."))
    return joined(blocks)


def _examples(
    found: RunFacts, role: str, count: int
) -> tuple[list[Any], tuple[str, ...], list[str]]:
    """Examples; where networks cannot be used, without them, and why."""
    why = []
    try:
        return *first_examples(found.config, found.folder, role, count), []
    except Exception as error:  # files of all kinds, by any hand
        why.append(f"Maps and predictions are left out: {one_line(error)}")
    try:
        return *first_examples(found.config, found.folder, role, count, predict=False), why
    except Exception as error:
        moved = f"If the data is elsewhere now, add --root. {one_line(error)}"
        return [], (), [f"These images cannot be shown. {moved}"]


def _rows(rows: list[Any], classes: tuple[str, ...]) -> list[Markup]:
    columns = [c for c in HEADINGS if any(row.get(c) is not None for row in rows)]
    blocks = [_legend(shown_classes(rows, columns, classes), "cam" in columns)]
    for row in rows:
        figures = [_figure(row, column, classes) for column in columns if row[column] is not None]
        blocks.append(element("h4", row["name"]))
        blocks.append(element("div", *figures, class_="row", style=f"--columns:{len(columns)}"))
    return blocks


def _figure(row: Mapping[str, Any], column: str, classes: tuple[str, ...]) -> Markup:
    picture = Image.fromarray(example_picture(row, column))
    small = max(picture.size) < LONG_SIDE / 2
    picture.thumbnail((LONG_SIDE, LONG_SIDE))
    image = element(
        "img",
        src=data_uri(np.asarray(picture), "webp", 88),
        alt=f"{row['name']}: {_in_words(row, column, classes)}",
        width=picture.size[0],
        height=picture.size[1],
        class_="pixels" if small else None,
    )
    return element("figure", image, element("figcaption", HEADINGS[column]))


def _in_words(row: Mapping[str, Any], column: str, classes: tuple[str, ...]) -> str:
    """Describe a picture for those who cannot see it."""
    if column not in LABELS:
        return HEADINGS[column]
    values, counts = np.unique(np.asarray(row[column]), return_counts=True)
    shares = sorted(zip(counts / counts.sum(), values, strict=True), reverse=True)
    named = (f"{'ignored' if v == 255 else classes[v]} {share:.0%}" for share, v in shares)
    return f"{HEADINGS[column]}: {', '.join(named)}"


def _legend(named: Mapping[int, str], maps: bool) -> Markup:
    colours = voc_palette()
    items = []
    for value, name in named.items():
        red, green, blue = colours[value].tolist()
        swatch = element("span", class_="swatch", style=f"background:rgb({red},{green},{blue})")
        items.append(element("li", swatch, name))
    if maps:
        ramp = heat(np.tile(np.linspace(0, 1, 96, dtype=np.float32), (12, 1)))
        scale = element(
            "img", src=data_uri(ramp, "webp", 90), alt="from dark to bright", class_="ramp"
        )
        items.append(element("li", "class maps: 0 ", scale, " 1"))
    return element("ul", *items, class_="legend", aria_label="Colours of the classes")


def more(found: RunFacts) -> Markup:
    """Set the scores beside published ones, list the files, and name what comes next."""
    blocks = []
    run = LongRun(found.method, found.config, found.folder)
    if found.metrics is not None and found.config is not None:
        text = element("pre", run.beside_published(found.metrics), tabindex=0)
        blocks.append(details("Beside published results", text))
    blocks.append(details("Files of the run", element("pre", run.files(), tabindex=0)))
    if (found.folder / "model.safetensors").is_file():
        command = f"{PROGRAM} predict PHOTOS --weights {shlex.quote(str(found.folder))} --out MASKS"
        blocks.append(element("p", "Use the network: ", element("code", command)))
    return joined(blocks)
