"""Parts of a declaration: metrics, arms and profiles, and how they are read from the file."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from wsss_lab.studies.fields import (
    keys,
    list_of_names,
    number,
    seeds_of,
    settings_of,
    text,
)

NONE = "none"
"""Baseline of an arm that is compared with nothing."""


@dataclass(frozen=True)
class Metric:
    """Metric of every run."""

    path: str
    """Keys of `metrics.json`'s `results`, joined by dots."""
    what: str
    """Meaning, in a few words; heads the table's column."""
    percent: bool = True
    """Show 0..1 as percent."""
    higher_is_better: bool = True


@dataclass(frozen=True)
class Start:
    """Network that an arm begins with: the one of another arm, of the same seed."""

    arm: str
    setting: str = "start"
    """Setting that takes the file, as `weights` of ASDT does."""
    file: str = "model.safetensors"
    """Path in the folder of that run."""


@dataclass(frozen=True)
class Arm:
    """One variant in the comparison."""

    what: str
    method: str
    preset: str
    settings: dict[str, Any]
    """The arm's own settings; see `Declaration.settings_of`."""
    baseline: str
    """Arm it is compared with; "" for the study's baseline itself."""
    start: Start | None = None


@dataclass(frozen=True)
class Profile:
    """Extent of the study's runs, and their hardware."""

    what: str
    run_minutes: float
    """A single start of a run that takes longer is stopped, and counts as failed."""
    seeds: tuple[int, ...]
    arms: tuple[str, ...]
    """Names of the arms that are run."""
    reduced: bool
    """Too little training to answer the question; noted wherever its numbers are shown."""
    settings: dict[str, Any] = field(default_factory=dict)


def arm_of(name: str, declared: object, common: Mapping[str, object], baseline: str) -> Arm:
    """Read an arm; `baseline` is the study's, `common` has the usual method and preset."""
    where = f"arms.{name}"
    optional = ("method", "preset", "settings", "baseline", "start")
    value = keys(where, declared, ("what",), optional)
    if name == baseline and "baseline" in value:
        raise ValueError(f"{where}.baseline: the study's baseline is compared with nothing")
    return Arm(
        what=text(f"{where}.what", value["what"]),
        method=text(f"{where}.method", value.get("method", common["method"])),
        preset=text(f"{where}.preset", value.get("preset", common["preset"])),
        settings=settings_of(f"{where}.settings", value.get("settings")),
        baseline=""
        if name == baseline or value.get("baseline") == NONE
        else text(f"{where}.baseline", value.get("baseline", baseline)),
        start=_start(f"{where}.start", value["start"]) if "start" in value else None,
    )


def _start(where: str, declared: object) -> Start:
    value = keys(where, declared, ("arm",), ("setting", "file"))
    return Start(**{key: text(f"{where}.{key}", found) for key, found in value.items()})


def profile_of(
    where: str, declared: object, seeds: tuple[int, ...], arms: tuple[str, ...]
) -> Profile:
    """Read a profile; `seeds` and `arms` are those of the study."""
    value = keys(where, declared, ("what", "run_minutes"), ("settings", "seeds", "arms", "reduced"))
    reduced = value.get("reduced", not where.endswith(".full"))
    if not isinstance(reduced, bool):
        raise ValueError(f"{where}.reduced: expected true or false, got {reduced!r}")
    minutes = number(f"{where}.run_minutes", value["run_minutes"])
    if minutes <= 0:
        raise ValueError(f"{where}.run_minutes: expected more than 0, got {minutes}")
    return Profile(
        what=text(f"{where}.what", value["what"]),
        run_minutes=minutes,
        seeds=seeds_of(f"{where}.seeds", value["seeds"]) if "seeds" in value else seeds,
        arms=list_of_names(f"{where}.arms", value["arms"]) if "arms" in value else arms,
        reduced=reduced,
        settings=settings_of(f"{where}.settings", value.get("settings")),
    )
