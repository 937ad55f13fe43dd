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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from wsss_lab.studies.fields import (
    StrictLoader,
    file_names,
    keys,
    mapping,
    name_of,
    number,
    seeds_of,
    settings_of,
    text,
)
from wsss_lab.studies.parts import Arm, Metric, Profile, Start, arm_of, profile_of
from wsss_lab.studies.rules import find_rule
from wsss_lab.studies.scorers import find_scorer

__all__ = ["Arm", "Declaration", "Metric", "Profile", "Start", "declared_names", "read_declaration"]

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
TEXTS = ("title", "question", "hypothesis", "decision", "budget", "baseline", "primary")
"""Parts of a declaration that are text."""


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
        name_of("arms", key): arm_of(key, value, common, texts["baseline"])
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
            key: profile_of(f"profiles.{key}", profiles[key], seeds, tuple(arms))
            for key in PROFILES
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
