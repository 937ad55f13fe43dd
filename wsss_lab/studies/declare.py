"""Declarations of experiments: question, runs and decision rule, fixed beforehand.

One YAML file per study in `wsss_lab/studies/declared/`:

================  ==================================================================================
``title``         a few words
``question``      question that the study answers
``hypothesis``    what is expected, and why
``decision``      how the numbers will be interpreted, in words
``budget``        training per arm, in words
``baseline``      the arm that the others are compared with, seed by seed, unless they name one
``primary``       the metric that decides
``margin``        smaller differences of the primary metric are negligible
``confidence``    of the intervals, e.g. 0.95
``seeds``         every arm runs with every seed; a seed pairs the arms
``metrics``       name -> ``path`` in the run's results, ``what``, ``percent``, ``higher_is_better``
``common``        ``method``, ``preset``, ``settings`` of all arms
``arms``          name -> ``what``, ``settings``; also ``method``, ``preset`` and ``baseline``
                  where they differ (``none``: the arm is compared with nothing), and ``start``:
                  begin with the network that another ``arm`` has trained with the same seed
                  (``setting`` that takes it, ``file`` in that run)
``profiles``      ``full`` (on a GPU) and ``cpu`` (reduced): ``what``, ``run_minutes``; also
                  ``settings``, and ``seeds`` and ``arms`` (a list of names) where they differ;
                  ``reduced: false`` where `cpu` is the profile that answers the question
``scorer``        optional: scores every run alike, a name in `wsss_lab.studies.scorers.SCORERS`
``verdicts``      optional: how differences are judged, a name in `VERDICTS`; `interval` if absent
``rule``          optional: a further decision rule, a name in `wsss_lab.studies.rules.RULES`
``keep``          optional: files of a run's folder to keep beside its record
================  ==================================================================================

Settings are fields of the method's `Config`, as on the command line: ``run.steps: 60``. On a
conflict the arm's override the profile's, and these the common ones.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from wsss_lab.studies.fields import (
    StrictLoader,
    file_names,
    keys,
    list_of_names,
    mapping,
    name_of,
    number,
    seeds_of,
    settings_of,
    text,
)
from wsss_lab.studies.rules import find_rule
from wsss_lab.studies.scorers import find_scorer

DECLARED = Path(__file__).parent / "declared"
"""Declarations of the package."""
PROFILES = ("full", "cpu")
REDUCED_NOTE = (
    "Reduced profile `cpu`: less training on less data than declared for the study; these numbers "
    "do not answer its question."
)
VERDICTS = ("interval", "blocks")
"""``interval``: one t interval per arm, a margin first, as studies declared until 2026-11.
``blocks``: see `wsss_lab.studies.verdicts`."""
NONE = "none"
"""Baseline of an arm that is compared with nothing."""
TEXTS = ("title", "question", "hypothesis", "decision", "budget", "baseline", "primary")
"""Parts of a declaration that are text."""


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
    """Too little training to answer the question; said wherever its numbers are shown."""
    settings: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Declaration:
    """Declaration of a study; see the module's table."""

    name: str
    title: str
    question: str
    hypothesis: str
    decision: str
    budget: str
    baseline: str
    primary: str
    margin: float
    confidence: float
    metrics: dict[str, Metric]
    arms: dict[str, Arm]
    profiles: dict[str, Profile]
    common: dict[str, Any]
    """Settings of all arms."""
    rule: str
    """A name in `wsss_lab.studies.rules.RULES`, or ""."""
    scorer: str
    """A name in `wsss_lab.studies.scorers.SCORERS`, or ""."""
    verdicts: str
    """One of `VERDICTS`."""
    keep: tuple[str, ...]
    """Files that are kept beside the record."""
    sha256: str
    """SHA-256 of the file's bytes."""
    path: Path

    def arms_of(self, profile: str) -> dict[str, Arm]:
        """Return the arms of a profile, in the order of the declaration."""
        return {name: self.arms[name] for name in self.arms if name in self.profiles[profile].arms}

    def settings_of(self, arm: str, profile: str) -> dict[str, Any]:
        """Merge the settings of an arm in a profile: common, then the profile's, then its own."""
        return {**self.common, **self.profiles[profile].settings, **self.arms[arm].settings}


def declared_names(folder: Path = DECLARED) -> list[str]:
    """List the names of the studies declared in a folder."""
    return sorted(path.stem for path in folder.glob("*.yaml"))


def read_declaration(name: str, folder: Path = DECLARED) -> Declaration:
    """Read and check a declaration.

    Args:
        name: name of the study; its file is `NAME.yaml`.
        folder: folder of the declarations.

    Raises:
        ValueError: no such study, or the declaration is incomplete or contradicts itself.
    """
    path = folder / f"{name}.yaml"
    if not path.is_file():
        known = ", ".join(declared_names(folder)) or "none is declared"
        raise ValueError(f"NAME: expected one of {known}, got {name!r}; studies lie in {folder}")
    data = path.read_bytes()
    try:
        content = yaml.load(data, StrictLoader)
        return _declaration(name, content, hashlib.sha256(data).hexdigest(), path)
    except (ValueError, yaml.YAMLError, RecursionError, TypeError, AttributeError) as error:
        raise ValueError(f"{path.name}: {' '.join(str(error).split())}") from error


OPTIONAL = ("rule", "keep", "scorer", "verdicts")
PARTS = ("margin", "confidence", "seeds", "metrics", "common", "arms", "profiles")


def _declaration(name: str, found_in_file: object, sha256: str, path: Path) -> Declaration:
    content = keys("the declaration", found_in_file, (*TEXTS, *PARTS), OPTIONAL)
    texts = {key: text(key, content[key]) for key in TEXTS}
    common = keys("common", content["common"], ("method", "preset"), ("settings",))
    seeds = seeds_of("seeds", content["seeds"])
    profiles = keys("profiles", content["profiles"], PROFILES)
    arms = {
        name_of("arms", key): _arm(key, value, common, texts["baseline"])
        for key, value in mapping("arms", content["arms"]).items()
    }
    found = Declaration(
        name=name_of("the file's name", name),
        **texts,
        margin=number("margin", content["margin"]),
        confidence=number("confidence", content["confidence"]),
        metrics={
            name_of("metrics", key): Metric(
                **keys(f"metrics.{key}", value, ("path", "what"), ("percent", "higher_is_better"))
            )
            for key, value in mapping("metrics", content["metrics"]).items()
        },
        arms=arms,
        profiles={
            key: _profile(f"profiles.{key}", profiles[key], seeds, tuple(arms)) for key in PROFILES
        },
        common=settings_of("common.settings", common.get("settings")),
        rule=name_of("rule", content["rule"]) if "rule" in content else "",
        scorer=name_of("scorer", content["scorer"]) if "scorer" in content else "",
        verdicts=name_of("verdicts", content.get("verdicts", VERDICTS[0])),
        keep=file_names("keep", content.get("keep", [])),
        sha256=sha256,
        path=path,
    )
    _check(found)
    return found


def _check(found: Declaration) -> None:
    """Check the parts of a declaration against one another."""
    if found.baseline not in found.arms:
        raise ValueError(f"baseline: expected one of {list(found.arms)}, got {found.baseline!r}")
    for name, arm in found.arms.items():
        if arm.baseline and (arm.baseline not in found.arms or arm.baseline == name):
            raise ValueError(
                f"arms.{name}.baseline: expected another of {list(found.arms)}, "
                f"got {arm.baseline!r}"
            )
        if arm.start and (arm.start.arm not in found.arms or found.arms[arm.start.arm].start):
            raise ValueError(
                f"arms.{name}.start.arm: expected one of {list(found.arms)} that has no start "
                f"itself, got {arm.start.arm!r}"
            )
    if found.primary not in found.metrics:
        raise ValueError(f"primary: expected one of {list(found.metrics)}, got {found.primary!r}")
    for name, profile in found.profiles.items():
        unknown = [arm for arm in profile.arms if arm not in found.arms]
        arms = [found.arms[arm] for arm in profile.arms if arm in found.arms]
        needed = {found.baseline, *(arm.baseline for arm in arms)}
        needed |= {arm.start.arm for arm in arms if arm.start}
        if unknown or not needed - {""} <= set(profile.arms):
            raise ValueError(
                f"profiles.{name}.arms: expected names of {list(found.arms)}, the baselines and "
                f"starts {sorted(needed - {''})} among them, got {list(profile.arms)}"
            )
    if found.rule:
        find_rule(found.rule)
    if found.verdicts not in VERDICTS:
        raise ValueError(f"verdicts: expected one of {list(VERDICTS)}, got {found.verdicts!r}")
    if found.scorer:
        find_scorer(found.scorer)
    if not 0.5 <= found.confidence < 1:
        raise ValueError(f"confidence: expected 0.5 up to below 1, got {found.confidence}")
    if found.margin < 0:
        raise ValueError(f"margin: expected at least 0, got {found.margin}")


def _arm(name: str, declared: object, common: Mapping[str, object], baseline: str) -> Arm:
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


def _profile(
    where: str, declared: object, seeds: tuple[int, ...], arms: tuple[str, ...]
) -> Profile:
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
