"""Files of a run that a report needs; what is missing or damaged is noted, and the rest goes on."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wsss_lab.config import read_json
from wsss_lab.runs.folder import read_run
from wsss_lab.runs.left import kept_plan, log_files
from wsss_lab.runs.recipe import Recipe, TrainingStage, find_recipe
from wsss_lab.runs.settings import restore
from wsss_lab.runs.stage_record import read_record
from wsss_lab.train.lock import FolderLock
from wsss_lab.train.log import History, read_log


@dataclass
class RunFacts:
    """All that is known of a run."""

    folder: Path
    start: dict[str, Any]
    """Content of `config.json`."""
    recipe: Recipe | None = None
    """None for a method that is not known here."""
    config: Any = None
    """Settings; None where this version cannot read them."""
    metrics: dict[str, Any] | None = None
    """Content of `metrics.json`; None for a run that is not done."""
    plan: dict[str, Any] | None = None
    """Content of the plan, if one was kept."""
    plan_file: Path | None = None
    logs: dict[str, History] = field(default_factory=dict)
    """Stage -> entries of its log, in order; only those that have some."""
    records: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Stage -> `stage.json`."""
    stages: Sequence[TrainingStage] = ()
    """Trainings of the recipe, in order."""
    running: bool = False
    """Whether a process works on it now."""
    problems: list[str] = field(default_factory=list)
    """Files that are damaged, a line each."""

    @property
    def method(self) -> str:
        """Name of the method."""
        return str(self.start["method"])

    def stage_of(self, name: str) -> TrainingStage | None:
        """Return the recipe's entry of the training that wrote a log."""
        place = list(self.logs).index(name)
        return self.stages[place] if len(self.logs) <= len(self.stages) else None

    def steps_of(self, name: str) -> tuple[int, int | None]:
        """Return the last logged step of a stage, counted from 1, and how many it has."""
        stage = self.stage_of(name)
        return int(self.logs[name][-1]["step"]) + 1, stage.run.steps if stage else None


def gather(folder: Path, plan: Path | None = None, root: Path | None = None) -> RunFacts:
    """Read what a run has left.

    Args:
        folder: of the run, finished or not.
        plan: file of a plan; None takes the one in the folder, if there is one.
        root: folder of the data, where it has moved since.

    Raises:
        FileNotFoundError: no run there, or no such plan.
        ValueError: its `config.json` is damaged.
    """
    if not folder.is_dir():
        raise FileNotFoundError(
            f"folder: there is no folder {folder}; give the one that `train --out` wrote"
        )
    found = RunFacts(folder, read_run(folder), running=FolderLock(folder).is_held())
    _read_settings(found, root)
    file = folder / "metrics.json"
    if file.is_file():
        found.metrics = _read(found, file, "resume the run, which writes it anew")
    if found.metrics is not None and not isinstance(found.metrics.get("results"), dict):
        found.problems.append(f"{file}: damaged (no results); resume the run, which writes it anew")
        found.metrics = None
    if plan is not None and not plan.is_file():
        raise FileNotFoundError(
            f"plan: there is no file {plan}; `plan {found.method} --out` makes one"
        )
    found.plan_file = plan or kept_plan(folder)
    if found.plan_file:
        found.plan = _read(found, found.plan_file, "make it again with `plan`, or delete it")
    for name, log in log_files(folder).items():
        try:
            entries = read_log(log)
        except (ValueError, OSError) as error:
            found.problems.append(str(error))
            continue
        found.records[name] = read_record(log.parent)
        if entries:
            found.logs[name] = entries
    return found


def _read(found: RunFacts, file: Path, remedy: str) -> dict[str, Any] | None:
    try:
        return read_json(file, remedy)
    except (ValueError, OSError) as error:
        found.problems.append(str(error))
        return None


def _read_settings(found: RunFacts, root: Path | None) -> None:
    try:
        found.recipe = find_recipe(found.method)
        file = found.folder / "config.json"
        config = restore(found.recipe.config, found.start["config"], file)
        if root is not None:
            config = dataclasses.replace(config, data=dataclasses.replace(config.data, root=root))
        found.stages = found.recipe.stages(config) if found.recipe.stages else ()
        found.config = config
    except ValueError as error:
        found.problems.append(str(error))
