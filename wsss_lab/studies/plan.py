"""The runs of a declared study: settings, folders and state.

========================================  ==========================================================
``WORK/STUDY/PROFILE/ARM-seedN/``         folder of a run; not in git
its ``study.json``                        identity of the run and its declaration; written first
its ``log.txt``                           output of the run
its ``run/``                              the folder that `train` of the method's recipe works in
``RECORDS/STUDY/PROFILE/ARM-seedN.json``  record of a finished or failed run; small, for git
beside it, ``ARM-seedN.FILE``             files that the declaration keeps of its folder; small, too
``RECORDS/STUDY/PROFILE.json``            the aggregate, see `wsss_lab.studies.aggregate`
========================================  ==========================================================
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from wsss_lab.config import read_json as _read_json
from wsss_lab.records import RECORDS
from wsss_lab.runs.settings import FREE_TO_CHANGE, plain, restore
from wsss_lab.studies.declare import REDUCED_NOTE, Arm, Declaration
from wsss_lab.studies.former import former_settings
from wsss_lab.studies.run_lock import is_held

WORK = Path("runs/studies")
"""Folder of the runs, relative to the working directory."""
ALIAS = {"full": "cuda", "cpu": "cpu"}
"""Profile -> accelerator."""


class State(StrEnum):
    """State of a run."""

    FINISHED = "finished"
    FAILED = "failed"
    RUNNING = "running"
    STARTED = "started"
    WAITING = "waiting"


@dataclass(frozen=True)
class PlannedRun:
    """Run of one arm with one seed."""

    declaration: Declaration
    profile: str
    arm: str
    seed: int
    config: Any
    """Settings of the recipe."""
    folder: Path
    record: Path
    start: Path | None = None
    """File of weights that the run begins with: those of another arm, of the same seed."""

    @property
    def name(self) -> str:
        """Name of the folder."""
        return f"{self.arm}-seed{self.seed}"

    @property
    def kept(self) -> dict[str, Path]:
        """Files that the declaration keeps -> their places beside the record."""
        files = self.declaration.keep
        return {file: self.record.with_name(f"{self.name}.{file}") for file in files}

    @property
    def identity(self) -> dict[str, Any]:
        """Identity of this run, as stored in its folder and in its record."""
        reduced = self.declaration.profiles[self.profile].reduced
        return {
            "study": self.declaration.name,
            "declaration_sha256": self.declaration.sha256,
            "profile": self.profile,
            "reduced": reduced,
            **({"note": REDUCED_NOTE} if reduced else {}),
            "arm": self.arm,
            "seed": self.seed,
        }


def plan(
    declaration: Declaration, profile: str, work: Path, records: Path, root: Path | None = None
) -> list[PlannedRun]:
    """List all runs of a study, seed by seed, so that an unfinished study stays balanced.

    Args:
        declaration: declaration of the study.
        profile: "full" or "cpu".
        work: folder of the runs of all studies.
        records: folder of the records of all studies.
        root: folder of the data set, for studies on data that are not part of the package.

    Raises:
        ValueError: settings that the method does not have, or of another type.
    """
    place = Path(declaration.name) / profile
    runs = []
    for seed in declaration.profiles[profile].seeds:
        for arm in declaration.arms_of(profile):
            name = f"{arm}-seed{seed}"
            start = _start_file(declaration.arms[arm], work / place, seed)
            config = build_config(declaration, arm, profile, seed, start, root)
            folder, record = work / place / name, records / place / f"{name}.json"
            runs.append(PlannedRun(declaration, profile, arm, seed, config, folder, record, start))
    return runs


def _start_file(arm: Arm, folder: Path, seed: int) -> Path | None:
    if arm.start is None:
        return None
    return folder / f"{arm.start.arm}-seed{seed}" / "run" / arm.start.file


def starting_folder(run: PlannedRun) -> Path | None:
    """Return the folder of the run that another one begins with; None for none."""
    start = run.declaration.arms[run.arm].start
    return run.folder.with_name(f"{start.arm}-seed{run.seed}") if start else None


def build_config(
    declaration: Declaration,
    arm: str,
    profile: str,
    seed: int,
    start: Path | None = None,
    root: Path | None = None,
) -> Any:
    """Build the settings of a run: the preset as it was at its declaration, changed as declared.

    Raises:
        ValueError: an unknown setting or a wrong type; the message has arm and setting.
    """
    from wsss_lab.runs.recipe import find_preset, find_recipe

    wanted = declaration.arms[arm]
    try:
        values = plain(find_preset(wanted.method, wanted.preset))
        then = former_settings(declaration.sha256, wanted.method)
        for path, value in {**then, **declaration.settings_of(arm, profile)}.items():
            _change(values, path, value)
        if wanted.start and start:
            _change(values, wanted.start.setting, str(start))
        if root is not None:
            _change(values, "data.root", str(root))
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
    """Return `new` as the type of `old`, if it fits; YAML reads 1e-3 as text, for example."""
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
    """Return the state of a run; foreign ones are not recognised, see `foreign`."""
    if is_held(run.folder):
        return State.RUNNING
    if run.record.is_file():
        return State(read_json(run.record)["status"])
    if not (run.folder / "study.json").is_file():
        return State.WAITING
    return State.STARTED


def foreign(runs: list[PlannedRun]) -> Iterator[str]:
    """Find conflicting files: runs of another declaration, or with settings changed since.

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
    settings = found.get("run", found).get("config", {})  # those of a record, or of a started run
    there, here = flat(settings), flat(plain(run.config))
    start = run.declaration.arms[run.arm].start
    if start:  # folders of runs may lie elsewhere
        there.pop(start.setting, None)
    changed = [key for key in there if key in here and there[key] != here[key]]
    return f"{changed[0]} was {there[changed[0]]}, now {here[changed[0]]}" if changed else ""


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return the settings that affect results, as dotted paths."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        if key in FREE_TO_CHANGE:
            continue
        nested = isinstance(value, Mapping)
        found |= flat(value, f"{prefix}{key}.") if nested else {f"{prefix}{key}": value}
    return found


def require_none_foreign(runs: list[PlannedRun]) -> None:
    """Check that no runs of other declarations are in the folders.

    Raises:
        ValueError: there are; the message lists them.
    """
    if found := list(foreign(runs)):
        shown = "; ".join(found[:3]) + (f"; and {len(found) - 3} more" if found[3:] else "")
        raise ValueError(
            f"study {runs[0].declaration.name}: {len(found)} files of foreign runs, which are "
            f"not mixed with those of this declaration ({shown}). Bring the declaration and the "
            "settings back, or move these files away, or declare a new study"
        )


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON file written by this package.

    Raises:
        ValueError: it is damaged.
    """
    return _read_json(path, remedy="delete it")


def find_records() -> Path:
    """Find the folder for new records: in the checkout, else below the working directory.

    An installation is not written into. `load_study` reads the records that came with it.
    """
    checkout = (RECORDS.parents[1] / "pyproject.toml").is_file()
    return (RECORDS if checkout else Path("records")) / "studies"
