"""Runner of a declared study: several runs at once, within a time limit, resumable.

Every run is a process of its own (`wsss_lab.studies.one`) with its own folder, log and checkpoints.
Shortly before the time limit, nothing new is started and each run is stopped right after its next
checkpoint; the same command resumes it later.
"""

import os
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wsss_lab.config import git_revision, write_json
from wsss_lab.runs.settings import plain
from wsss_lab.studies.checkpoints import checkpoint_folders, checkpoints
from wsss_lab.studies.clock import Clock
from wsss_lab.studies.committed import is_committed
from wsss_lab.studies.declare import REDUCED_NOTE, Declaration
from wsss_lab.studies.one import BUSY
from wsss_lab.studies.plan import (
    PlannedRun,
    State,
    plan,
    read_json,
    require_none_foreign,
    starting_folder,
    state,
)
from wsss_lab.studies.processes import cores, end_process, exit_reason, require_device
from wsss_lab.studies.records import (
    is_scored,
    keep_files,
    read_metrics,
    start_name,
    without_paths,
)
from wsss_lab.studies.results import lookup

Log = Callable[[str], None]
PROGRAM = ("-m", "wsss_lab.studies.one")
"""Arguments of Python before the folder of the run."""
POLL = 0.1
"""Seconds between two polls."""


@dataclass
class Outcome:
    """Results of a call: names of runs by what happened to them."""

    ends: dict[str, str] = field(default_factory=dict)

    @property
    def failed(self) -> list[str]:
        """Return names of failed runs, of earlier calls too."""
        return [name for name, end in self.ends.items() if end == "failed"]

    def summary(self) -> str:
        """Summarise the call in one line."""
        counts = Counter(self.ends.values())
        return f"{len(self.ends)} runs: " + ", ".join(f"{n} {what}" for what, n in counts.items())


@dataclass
class _Active:
    """A running process."""

    run: PlannedRun
    process: subprocess.Popen[bytes]
    started: float
    seen: set[Path] | None = None
    """Checkpoints when the runner began to close."""


def run_study(
    declaration: Declaration,
    profile: str,
    *,
    work: Path,
    records: Path,
    jobs: int = 1,
    clock: Clock | None = None,
    retry: bool = False,
    revision: str | None = None,
    root: Path | None = None,
    log: Log = print,
    program: Sequence[str] = PROGRAM,
) -> Outcome:
    """Run all unfinished runs of a study.

    Args:
        declaration: declaration of the study.
        profile: "full" needs a GPU; "cpu" is reduced and marked so everywhere.
        work: folder of the runs of all studies.
        records: folder of the records of all studies.
        jobs: number of simultaneous runs, all on the same device.
        clock: stop condition.
        retry: run failed runs again.
        revision: git revision of this copy, if git is not available.
        root: folder of the data set, for studies on data that are not part of the package.
        log: called with lines of text.
        program: see `PROGRAM`.

    Raises:
        ValueError: a declaration that is not committed, settings that do not fit, runs of another
            declaration, no GPU for "full". It is raised before any run starts.
    """
    if jobs < 1:
        raise ValueError(f"jobs: expected at least 1, got {jobs}")
    require_device(profile)
    committed = is_committed(declaration.path)
    if committed is False:
        raise ValueError(
            f"{declaration.path}: has changes that are not committed; a study is declared before "
            "it runs, so commit it first"
        )
    runs = plan(declaration, profile, work, records, root)
    require_none_foreign(runs)
    git = git_revision()
    git = revision if revision and git == "unknown" else git
    facts = {"declaration_committed": committed, "git": git}
    log(f"study {declaration.name}, profile {profile}, {len(runs)} runs, up to {jobs} at a time")
    if declaration.profiles[profile].reduced:
        log(REDUCED_NOTE)
    work_off = _Pool(runs, facts, jobs, clock or Clock(), log, program)
    with work_off.clock.listening():
        outcome = work_off(retry)
    log(f"study {declaration.name}, profile {profile}: {outcome.summary()}")
    return outcome


class _Pool:
    """Queue of runs, `jobs` at a time."""

    def __init__(
        self,
        runs: list[PlannedRun],
        facts: dict[str, Any],
        jobs: int,
        clock: Clock,
        log: Log,
        program: Sequence[str],
    ):
        self.runs, self.facts, self.jobs = runs, facts, jobs
        self.clock, self.log, self.program = clock, log, program
        self.outcome = Outcome({run.name: "not started" for run in runs})
        self.active: list[_Active] = []

    def __call__(self, retry: bool) -> Outcome:
        todo = [run for run in self.runs if self._wanted(run, retry)]
        try:
            while (self._ready(todo) and not self.clock.closing) or self.active:
                while len(self.active) < self.jobs and not self.clock.closing:
                    if (run := self._ready(todo)) is None:
                        break
                    todo.remove(run)
                    self._start(run)
                for active in list(self.active):
                    self._look_after(active)
                time.sleep(POLL)
        finally:  # in any case, no process is left behind
            for active in self.active:
                end_process(active.process)
        return self.outcome

    def _ready(self, todo: Sequence[PlannedRun]) -> PlannedRun | None:
        """Return the first run whose starting weights are there, or that needs none."""
        unfinished = {active.run.folder for active in self.active} | {run.folder for run in todo}
        for run in todo:
            folder = starting_folder(run)
            if folder is None or (run.start and run.start.is_file() and folder not in unfinished):
                return run
        return None

    def _wanted(self, run: PlannedRun, retry: bool) -> bool:
        now = state(run)
        if now is State.FINISHED and self._is_missed(run):
            return True
        if now is State.FINISHED or (now is State.FAILED and not retry):
            self._end(run, str(now), read_json(run.record).get("error", ""))
            return False
        if now is State.STARTED:
            self.outcome.ends[run.name] = "stopped"
        if now is State.STARTED and is_scored(run):
            self._record(run)  # an earlier runner was killed before it did so
            return False
        return True

    def _is_missed(self, run: PlannedRun) -> bool:
        """Whether weights of a finished run are gone, and an unfinished one begins with them."""
        return any(
            starting_folder(other) == run.folder
            and other.start
            and not other.start.is_file()
            and state(other) is not State.FINISHED
            for other in self.runs
        )

    def _start(self, run: PlannedRun) -> None:
        arm = run.declaration.arms[run.arm]
        if not (run.folder / "study.json").is_file():
            settings = {"method": arm.method, "preset": arm.preset, "config": plain(run.config)}
            settings |= {"scorer": run.declaration.scorer} if run.declaration.scorer else {}
            write_json(run.folder / "study.json", {**run.identity, **self.facts, **settings})
        (run.folder / "error.json").unlink(missing_ok=True)
        environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
        if run.profile == "cpu":
            environment["CUDA_VISIBLE_DEVICES"] = ""
            environment.setdefault("OMP_NUM_THREADS", str(max(1, cores() // self.jobs)))
        with (run.folder / "log.txt").open("a") as out:
            out.write(f"== {run.declaration.name}, profile {run.profile}, {run.name}\n")
            out.write(f"{REDUCED_NOTE}\n" if run.identity["reduced"] else "")
            out.flush()
            process = subprocess.Popen(
                [sys.executable, *self.program, str(run.folder), "--tethered"],
                stdin=subprocess.PIPE,  # closes when this process ends, which ends the child
                stdout=out,
                stderr=subprocess.STDOUT,
                env=environment,
                start_new_session=True,
            )
        self.active.append(_Active(run, process, time.monotonic()))
        self.log(f"{run.name}: started, log in {run.folder / 'log.txt'}")

    def _look_after(self, active: _Active) -> None:
        run, code = active.run, active.process.poll()
        limit = run.declaration.profiles[run.profile].run_minutes
        if code is not None:
            self._after(active, code)
        elif time.monotonic() - active.started > 60 * limit:
            self._drop(active)
            self._fail(run, f"took longer than its {limit:g} minutes")
        elif self.clock.closing and self._may_stop(active):
            self._drop(active)
            self._end(run, "stopped", "goes on with the next call")

    def _may_stop(self, active: _Active) -> bool:
        now = checkpoints(active.run.folder)
        active.seen = now if active.seen is None else active.seen
        return self.clock.over or bool(now - active.seen)

    def _drop(self, active: _Active) -> None:
        end_process(active.process)
        self.active.remove(active)

    def _after(self, active: _Active, code: int) -> None:
        """Handle a process that has ended by itself or was ended from outside."""
        self._drop(active)
        run = active.run
        if code == 0:
            self._record(run)
        elif code == BUSY:
            self._end(run, "running elsewhere", "another process works on it")
        else:
            error = run.folder / "error.json"
            reason = read_json(error)["error"] if error.is_file() else exit_reason(code)
            self._fail(run, reason)

    def _record(self, run: PlannedRun) -> None:
        """Write the record of a finished run; delete its checkpoints."""
        metrics, wanted = read_metrics(run), run.declaration.metrics
        again = run.record.is_file() and read_json(run.record)["status"] == "finished"
        try:
            values = {name: lookup(metrics["results"], m.path) for name, m in wanted.items()}
            if values[run.declaration.primary] is None:
                raise ValueError(f"{run.declaration.primary}: not a number in this run")
            if not again:  # else it was trained for its weights alone, and what was found stays
                keep_files(run)
        except ValueError as error:
            self._fail(run, f"ValueError: {error}")
            return
        if not again:
            cleaned = without_paths(metrics, str(run.start or ""), start_name(run))
            found = {"metrics": values, "run": cleaned}
            write_json(run.record, self._content(run, "finished") | found)
        for folder in checkpoint_folders(run.folder):
            shutil.rmtree(folder, ignore_errors=True)
        primary = run.declaration.primary
        self._end(run, "finished", f"{primary} {values[primary]:.4f}")

    def _fail(self, run: PlannedRun, error: str) -> None:
        for path, shown in ((run.folder.resolve(), "RUN"), (Path.cwd(), "."), (Path.home(), "~")):
            error = error.replace(str(path), shown)  # records hold no paths of a machine
        error = error.replace(str(run.folder), "RUN")
        write_json(run.record, self._content(run, "failed") | {"error": error})
        self._end(run, "failed", f"{error}; see {run.folder / 'log.txt'}")

    def _content(self, run: PlannedRun, status: str) -> dict[str, Any]:
        begun = read_json(run.folder / "study.json")
        facts = {key: begun[key] for key in self.facts}
        return {"format": 1, **run.identity, **facts, "status": status}

    def _end(self, run: PlannedRun, end: str, detail: str) -> None:
        self.outcome.ends[run.name] = end
        self.log(f"{run.name}: {end}" + (f", {detail}" if detail else ""))
