"""The runs of a declared study: their settings, where they lie, and how far they are.

========================================  ==========================================================
``WORK/STUDY/PROFILE/ARM-seedN/``         folder of a run; not in git
its ``study.json``                        which run this is, of which declaration; written first
its ``log.txt``                           what the run said
its ``run/``                              the folder that `train` of the method's recipe works in
``RECORDS/STUDY/PROFILE/ARM-seedN.json``  record of a finished or failed run; small, for git
beside it, ``ARM-seedN.FILE``             what the declaration keeps of its folder; small, too
``RECORDS/STUDY/PROFILE.json``            all added up, see `wsss_lab.studies.aggregate`
========================================  ==========================================================
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from wsss_lab.studies.declare import REDUCED_NOTE, Declaration

WORK = Path("runs/studies")
"""Folders of the runs, from where the command is started."""
ALIAS = {"full": "cuda", "cpu": "cpu"}
"""Profile -> accelerator."""


class State(StrEnum):
    """How far a run is."""

    FINISHED = "finished"
    FAILED = "failed"
    RUNNING = "running"
    STARTED = "started"
    WAITING = "waiting"


@dataclass(frozen=True)
class PlannedRun:
    """One arm with one seed."""

    declaration: Declaration
    profile: str
    arm: str
    seed: int
    config: Any
    """Settings of the recipe."""
    folder: Path
    record: Path

    @property
    def name(self) -> str:
        """As the folder is called."""
        return f"{self.arm}-seed{self.seed}"

    @property
    def kept(self) -> dict[str, Path]:
        """File that the declaration keeps -> its place beside the record."""
        files = self.declaration.keep
        return {file: self.record.with_name(f"{self.name}.{file}") for file in files}

    @property
    def identity(self) -> dict[str, Any]:
        """What makes this run this run, in its folder and in its record."""
        reduced = self.profile != "full"
        return {
            "study": self.declaration.name,
            "declaration_sha256": self.declaration.sha256,
            "profile": self.profile,
            "reduced": reduced,
            **({"note": REDUCED_NOTE} if reduced else {}),
            "arm": self.arm,
            "seed": self.seed,
        }


def plan(declaration: Declaration, profile: str, work: Path, records: Path) -> list[PlannedRun]:
    """All runs of a study, one seed after the other, so that an unfinished study stays balanced.

    Args:
        declaration: of the study.
        profile: "full" or "cpu".
        work: folder of the runs of all studies.
        records: folder of the records of all studies.

    Raises:
        ValueError: settings that the method does not have, or of another type.
    """
    place = Path(declaration.name) / profile
    runs = []
    for seed in declaration.profiles[profile].seeds:
        for arm in declaration.arms_of(profile):
            name = f"{arm}-seed{seed}"
            config = build_config(declaration, arm, profile, seed)
            folder, record = work / place / name, records / place / f"{name}.json"
            runs.append(PlannedRun(declaration, profile, arm, seed, config, folder, record))
    return runs


def build_config(declaration: Declaration, arm: str, profile: str, seed: int) -> Any:
    """Settings of a run: the preset, changed as declared.

    Raises:
        ValueError: names arm and setting.
    """
    from wsss_lab.runs.folder import plain, restore
    from wsss_lab.runs.recipe import find_preset, find_recipe

    wanted = declaration.arms[arm]
    try:
        values = plain(find_preset(wanted.method, wanted.preset))
        for path, value in declaration.settings_of(arm, profile).items():
            _change(values, path, value)
        _change(values, "run.seed", seed)
        _change(values, "run.accelerator", ALIAS[profile])
        return restore(find_recipe(wanted.method).config, values)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{declaration.path.name}: arm {arm}: {error}") from error


def _change(values: dict[str, Any], path: str, value: Any) -> None:
    *parents, last = path.split(".")
    for key in parents:
        values = values.get(key) if isinstance(values, dict) else None  # type: ignore[assignment]
    if not isinstance(values, dict) or last not in values:
        raise ValueError(f"there is no setting {path!r}")
    values[last] = _like(path, values[last], value)


def _like(path: str, old: Any, new: Any) -> Any:
    """`new`, if it is of the type of `old`; YAML reads 1e-3 as text, for example."""
    if old is None:
        return new
    if isinstance(old, list) and isinstance(new, list):
        return [_like(path, old[0], item) for item in new] if old else new
    number = isinstance(new, int | float) and not isinstance(new, bool)
    if isinstance(old, float) and number:
        return float(new)
    if type(old) is not type(new) or isinstance(old, dict):
        hint = "; write 1.0e-3 for 1e-3" if isinstance(new, str) else ""
        raise ValueError(f"{path}: expected a value like {old!r}, got {new!r}{hint}")
    return new


def state(run: PlannedRun) -> State:
    """How far a run is; foreign ones are none of ours, see `foreign`."""
    from wsss_lab.studies.one import is_held

    if is_held(run.folder):
        return State.RUNNING
    if run.record.is_file():
        return State(read_json(run.record)["status"])
    if not (run.folder / "study.json").is_file():
        return State.WAITING
    return State.STARTED


def foreign(runs: list[PlannedRun]) -> Iterator[str]:
    """Files in the way: runs of another declaration, or with settings that have changed since.

    Yields:
        Path and reason, one line each.
    """
    records = runs[0].record.parent
    ours = {path for run in runs for path in (run.record, *run.kept.values())}
    for path in sorted(set(records.glob("*.json")) - ours):
        yield f"{path}: the declaration has no such run"
    for run in runs:
        for path in (run.record, run.folder / "study.json"):
            if path.is_file() and (why := _difference(run, read_json(path))):
                yield f"{path if path == run.record else run.folder}: {why}"


def _difference(run: PlannedRun, found: Mapping[str, Any]) -> str:
    for key, value in run.identity.items():
        if key != "note" and found.get(key) != value:
            if key == "declaration_sha256":
                return f"of the declaration {str(found.get(key))[:12]}, now {value[:12]}"
            return f"{key} is {found.get(key)!r}, expected {value!r}"
    from wsss_lab.runs.folder import plain

    settings = found.get("run", found).get("config", {})  # a record's, or those of a started run
    there, here = flat(settings), flat(plain(run.config))
    changed = [key for key in there if key in here and there[key] != here[key]]
    return f"{changed[0]} was {there[changed[0]]}, now {here[changed[0]]}" if changed else ""


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Settings that decide results, as dotted paths."""
    from wsss_lab.runs.folder import FREE_TO_CHANGE

    found: dict[str, Any] = {}
    for key, value in values.items():
        if key in FREE_TO_CHANGE:
            continue
        nested = isinstance(value, Mapping)
        found |= flat(value, f"{prefix}{key}.") if nested else {f"{prefix}{key}": value}
    return found


def require_none_foreign(runs: list[PlannedRun]) -> None:
    """Refuse to mix runs of different declarations.

    Raises:
        ValueError: lists what is in the way.
    """
    if found := list(foreign(runs)):
        shown = "; ".join(found[:3]) + (f"; and {len(found) - 3} more" if found[3:] else "")
        raise ValueError(
            f"study {runs[0].declaration.name}: {len(found)} files of foreign runs, which are "
            f"not mixed with those of this declaration ({shown}). Bring the declaration and the "
            "settings back, or move these files away, or declare a new study"
        )


def read_json(path: Path) -> dict[str, Any]:
    """A JSON file of ours.

    Raises:
        ValueError: it is damaged.
    """
    try:
        content = json.loads(path.read_text())
        if not isinstance(content, dict):
            raise ValueError("not an object")
    except ValueError as error:
        raise ValueError(f"{path}: damaged ({error}); delete it") from error
    return content


def find_records() -> Path:
    """Where records lie: in the checkout this package belongs to, else below where we are."""
    here = Path(__file__).parents[2] / "book"
    if here.is_dir():
        return here / "records" / "studies"
    inside = Path("records") / "studies"
    return inside if inside.is_dir() else Path("book") / inside
