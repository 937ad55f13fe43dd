"""Command line: `python -m wsss_lab.studies {run,status,aggregate}`."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from tyro.conf import Positional, subcommand

from wsss_lab.config import OutputError
from wsss_lab.printable import one_line
from wsss_lab.ranges import Count, Positive, Settings, check, checks_later, spelled
from wsss_lab.studies.declare import (
    DECLARED,
    PROFILES,
    REDUCED_NOTE,
    Declaration,
    declared_names,
    read_declaration,
)
from wsss_lab.studies.plan import WORK, find_records

Choice = Literal["auto", "full", "cpu"]


@dataclass(frozen=True)
class Places(Settings):
    """Selection of studies, and their folders."""

    name: Positional[str] = "all"
    """Name of a study, or all of them."""
    profile: Choice = "auto"
    """full needs a GPU; cpu is reduced and marked so everywhere; auto takes full on a GPU, else
    cpu."""
    work: Path = WORK
    """Folder of the runs: logs, checkpoints, weights."""
    records: Path | None = None
    """Folder of the records; by default that of the checkout, or `records/studies` without one."""
    declared: Path = DECLARED
    """Folder of the declarations."""

    def studies(self) -> list[Declaration]:
        """Return the selected declarations."""
        names = declared_names(self.declared) if self.name == "all" else [self.name]
        return [read_declaration(name, self.declared) for name in names]

    def places(self) -> dict[str, Any]:
        """Return the folders of runs and records."""
        return {"work": self.work, "records": self.records or find_records()}


@dataclass(frozen=True)
class Run(Places):
    """Start or resume all unfinished runs; Ctrl-C stops at the next checkpoint."""

    jobs: Count = 1
    """Number of simultaneous runs, all on the same device."""
    minutes: Positive | None = None
    """Time limit: start nothing new near it and stop running ones at a checkpoint. The same command
    resumes them."""
    retry: bool = False
    """Run failed ones again."""
    revision: str | None = None
    """Git revision of this copy, if git is not available."""
    root: Path | None = None
    """Folder of the data set, for studies on photos, which are not part of the package."""

    def run(self) -> int:
        """Run and aggregate; return exit code 1 if a run failed, now or earlier."""
        from wsss_lab.studies.aggregate import aggregate
        from wsss_lab.studies.clock import Clock
        from wsss_lab.studies.results import load_study
        from wsss_lab.studies.runner import run_study

        clock, failed, places = Clock(self.minutes), [], self.places()
        profile = _fitting(self.profile)
        for declaration in self.studies():
            outcome = run_study(
                declaration,
                profile,
                jobs=self.jobs,
                clock=clock,
                retry=self.retry,
                revision=self.revision,
                root=self.root,
                **places,
            )
            failed += [f"{declaration.name}/{name}" for name in outcome.failed]
            if {"finished", "failed"} & set(outcome.ends.values()):
                print(f"added up in {aggregate(declaration, profile, **places)}")
                options = {"records": places["records"], "declared": self.declared}
                print(load_study(declaration.name, profile, **options).table())
        if failed:
            print(f"failed: {', '.join(failed)}; --retry runs them again", file=sys.stderr)
        return 130 if clock.interrupted else int(bool(failed))


@dataclass(frozen=True)
class Status(Places):
    """Show the progress of every run."""

    def run(self) -> int:
        """Print one line per run; return exit code 1 if a run failed or is foreign."""
        from wsss_lab.studies.checkpoints import checkpoints
        from wsss_lab.studies.plan import State, foreign, plan, state

        bad = False
        for declaration in self.studies():
            for profile in PROFILES if self.profile == "auto" else (self.profile,):
                runs = plan(declaration, profile, **self.places())
                print(f"{declaration.name}, profile {profile}: {declaration.title}")
                if declaration.profiles[profile].reduced:
                    print(f"  {REDUCED_NOTE}")
                for line in foreign(runs):
                    bad = True
                    print(f"  foreign: {line}")
                for run in runs:
                    now = state(run)
                    bad = bad or now is State.FAILED
                    newest = sorted(checkpoints(run.folder), key=lambda path: path.stat().st_mtime)
                    where = newest[-1].relative_to(run.folder / "run") if newest else ""
                    print(f"  {now:<9} {run.name}  {where}".rstrip())
        return int(bad)


@dataclass(frozen=True)
class Aggregate(Places):
    """Aggregate the records of finished runs."""

    def run(self) -> int:
        """Write and print the aggregate; return exit code 1 if a run is missing."""
        from wsss_lab.studies.aggregate import aggregate
        from wsss_lab.studies.results import load_study

        places, complete = self.places(), True
        for declaration in self.studies():
            for profile in PROFILES if self.profile == "auto" else (self.profile,):
                folder = places["records"] / declaration.name / profile
                if self.profile == "auto" and not any(folder.glob("*.json")):
                    continue
                print(aggregate(declaration, profile, **places))
                options = {"records": places["records"], "declared": self.declared}
                result = load_study(declaration.name, profile, **options)
                print(result.table())
                complete = complete and result.complete
        return int(not complete)


def _fitting(profile: Choice) -> str:
    if profile != "auto":
        return profile
    import torch

    return "full" if torch.cuda.is_available() else "cpu"


Command = (
    Annotated[Run, subcommand("run")]
    | Annotated[Status, subcommand("status")]
    | Annotated[Aggregate, subcommand("aggregate")]
)


def main(arguments: list[str] | None = None) -> int:
    """Run one command; report problems with input or output in one line, with exit code 2."""
    try:
        with checks_later():
            command = tyro.cli(
                Command,  # type: ignore[arg-type]
                args=arguments,
                prog="python -m wsss_lab.studies",
                config=(tyro.conf.OmitSubcommandPrefixes, tyro.conf.OmitArgPrefixes),
                description="Experiments that are declared before they run.",
            )
        check(command, spelled)
        return command.run()
    except (ValueError, FileNotFoundError, OutputError) as error:
        print(f"error: {one_line(error)}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
