"""Settings of a run beside those of the preset that it differs from least."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from wsss_lab.report.gather import RunFacts
from wsss_lab.report.markup import Markup, element, joined, note, table
from wsss_lab.runs.folder import plain
from wsss_lab.runs.settings import FREE_TO_CHANGE


@dataclass(frozen=True)
class Preset:
    """The preset that a run is nearest to."""

    name: str
    changes: dict[str, tuple[Any, Any]]
    """Setting -> value of the run and of the preset."""


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Name nested settings as on the command line: `run.steps`."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        name = f"{prefix}{key}"
        found |= flat(value, f"{name}.") if isinstance(value, Mapping) else {name: value}
    return found


def nearest_preset(found: RunFacts) -> Preset | None:
    """Find the preset of the run's method with the fewest other values; the first of several.

    The folder of a run does not record which one it was started with. None for a method that is
    not known here, or settings that cannot be read.
    """
    if found.recipe is None or found.config is None:
        return None
    here = flat(found.start["config"])
    best: Preset | None = None
    for name, preset in found.recipe.presets.items():
        there = flat(plain(preset))
        names = dict.fromkeys((*there, *here))
        changes = {n: (here.get(n), there.get(n)) for n in names if here.get(n) != there.get(n)}
        if best is None or len(changes) < len(best.changes):
            best = Preset(name, changes)
    return best


def changed_settings(found: RunFacts) -> Markup:
    """Make the table of the settings that differ from the nearest preset."""
    preset = nearest_preset(found)
    if preset is None:
        return note("The settings cannot be compared with a preset; all are in config.json.")
    words = (
        f"The nearest preset is {preset.name}: the folder of a run does not record which one it "
        "was started with."
    )
    about = element("p", words, class_="small")
    if not preset.changes:
        return joined([element("p", f"All settings are those of {preset.name}."), about])
    rows = [
        (name, _shown(here), _shown(there), "speed" if _is_free(name) else "results")
        for name, (here, there) in preset.changes.items()
    ]
    head = ("setting", "this run", f"preset {preset.name}", "changes")
    return joined([table("Settings that differ", head, rows), about])


def _is_free(name: str) -> bool:
    return name.rpartition(".")[2] in FREE_TO_CHANGE


def _shown(value: Any) -> str:
    return value if isinstance(value, str) and value else json.dumps(value)
