"""Every number of every preset against one table that names its source."""

import itertools
import json
from fnmatch import fnmatch
from pathlib import Path
from typing import NamedTuple

import pytest

from wsss_lab.recipes.voc_mini import OURS
from wsss_lab.runs.recipe import find_preset, find_recipe
from wsss_lab.runs.settings import plain

TABLE = Path(__file__).with_name("preset_numbers.md")
METHODS = ("cam_baseline", "tscd", "asdt", "acr", "cosa", "mix")
CASES = [(method, preset) for method in METHODS for preset in find_recipe(method).presets]


class Row(NamedTuple):
    presets: frozenset[str]
    field: str
    value: object
    source: str

    def holds_for(self, preset: str, field: str) -> bool:
        released, full = preset.endswith("-released"), preset not in OURS
        kinds = {preset, "*", "released" if released else "ours" if full else preset}
        kinds |= {"photos"} if full else set()
        return bool(self.presets & kinds) and fnmatch(field, self.field)


def read_table() -> dict[str, list[Row]]:
    """Section -> rows."""
    sections: dict[str, list[Row]] = {}
    for line in TABLE.read_text().splitlines():
        if line.startswith("## "):
            rows = sections.setdefault(line[3:], [])
        elif line.startswith("| ") and not line.startswith("| presets"):
            presets, field, value, source = (cell.strip() for cell in line.strip("| ").split(" | "))
            rows.append(
                Row(frozenset(presets.split(", ")), field, json.loads(value), source.strip())
            )
    return sections


ROWS = read_table()


def leaves(settings, prefix=""):
    """(dotted name, value) of every setting."""
    for name, value in settings.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def row_of(method, preset, field):
    """The one row of a setting: the method's own before those for all, full names before `*`."""
    presets = ("tiny", "toy") if preset == "tiny" else (preset,)  # where it has none of its own
    for section, preset in itertools.product((method, "all"), presets):
        found = [row for row in ROWS[section] if row.holds_for(preset, field)]
        exact = [row for row in found if row.field == field] or found
        assert len(exact) < 2, f"{TABLE.name}, {method} {preset}: {field} has {len(exact)} rows"
        if exact:
            return exact[0]
    raise AssertionError(f"{TABLE.name}, {method} {preset}: {field} has no row")


@pytest.mark.parametrize("case", CASES, ids="{0[0]} {0[1]}".format)
def test_numbers_of_a_preset(case):
    method, preset = case
    settings = dict(leaves(json.loads(json.dumps(plain(find_preset(method, preset))))))
    wanted = {field: row_of(method, preset, field).value for field in settings}
    assert settings == wanted


def test_every_row_has_a_source_and_is_read():
    used = {
        id(row_of(method, preset, field))
        for method, preset in CASES
        for field, _ in leaves(plain(find_preset(method, preset)))
    }
    for section, rows in ROWS.items():
        for row in rows:
            assert row.source, (section, row.field)
            assert id(row) in used, f"{section}: no preset reads the row of {row.field}"
