"""One run, one owner: what happens around every recipe before its first stage, and after its last.

| in this order | so that |
|---|---|
| the environment fits the run | no stale variable changes or voids it |
| the folder is new, or holds this very run | nothing else is written over |
| its lock is taken | no second process works on it |
| `config.json` is written | the run can be resumed from here on, whenever it is killed |
| `wsss_lab.runs.preflight` | what would stop it in hours stops it now |
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from wsss_lab.config import OutputError
from wsss_lab.runs.contents import PLANS
from wsss_lab.runs.folder import RunFolder, is_first_process
from wsss_lab.runs.preflight import preflight
from wsss_lab.runs.recipe import Log, TrainingStage
from wsss_lab.train.environment import arithmetic, require_fitting_environment
from wsss_lab.train.lock import own


@contextlib.contextmanager
def own_run(
    out: Path,
    method: str,
    config: Any,
    resume: bool,
    log: Log,
    stages: Callable[[Any], Sequence[TrainingStage]],
    overwrite: bool = False,
) -> Iterator[RunFolder]:
    """Own the folder of a run while its recipe works; nothing slow happens before it is owned.

    Processes beyond the first one of a run own nothing: the first one does so for all.

    Args:
        out: folder of the run.
        method: name of the method.
        config: its settings.
        resume: go on with what is there; waits for a process that still works on it.
        log: gets lines of text.
        stages: settings -> what the recipe is going to train.
        overwrite: replace a run that `out` holds; its files go when the recipe begins the folder,
            after all checks.

    Yields:
        The folder; begun, unless it is to replace a run.

    Raises:
        ValueError, FileExistsError, FileNotFoundError, ConnectionError: settings, environment, data
            or folder do not fit. A start that fails before it has achieved anything leaves the
            folder as it was.
        OutputError: nothing can be written, or not enough.
    """
    require_fitting_environment(config.run)
    folder = RunFolder(out, method, config, resume, overwrite)
    if not is_first_process():
        yield folder
        return
    existed = out.is_dir()
    with _removed_if_empty(out, existed), own(out, patient=resume, log=log):
        folder = RunFolder(
            out, method, config, resume, overwrite
        )  # another one may have had it meanwhile
        _require_same_arithmetic(folder)
        new = folder.started is None
        if not overwrite:
            folder.begin()
        for leftover in out.rglob(".*.tmp"):  # of a write that was killed
            leftover.unlink(missing_ok=True)
        ready = False
        try:
            preflight(config, out, stages(config), log)
            ready = True
            yield folder
        except Exception as error:
            full = ready and isinstance(error, OutputError)  # can be resumed where there is space
            if new and folder.started and not full and not _holds_results(out):
                for file in _traces(out):
                    file.unlink(missing_ok=True)
            raise


def _require_same_arithmetic(folder: RunFolder) -> None:
    """Refuse to go on with a run under other variables that change its arithmetic."""
    if folder.started is None:
        return
    there, here = folder.started.get("environment", {}), arithmetic()
    for name in sorted({*there, *here}):
        if there.get(name) != here.get(name):
            raise ValueError(
                f"{name} is {_shown(here.get(name))}, but the run in {folder.path} was started "
                f"with it {_shown(there.get(name))}; it changes results, so set it as it was"
            )


def _shown(value: str | None) -> str:
    return "unset" if value is None else f"set to {value!r}"


def _traces(out: Path) -> list[Path]:
    """Files that a start writes before it has achieved anything: settings and empty logs."""
    empty = [file for file in out.rglob("*") if file.is_file() and not file.stat().st_size]
    return [out / "config.json", *empty]


def _holds_results(out: Path) -> bool:
    """Whether there is anything in the folder that is worth resuming or looking at."""
    traces = {*_traces(out), *(out / name for name in PLANS)}
    files = (file for file in out.rglob("*") if file.is_file())
    return any(file not in traces and file.name != ".lock" for file in files)


@contextlib.contextmanager
def _removed_if_empty(out: Path, existed: bool) -> Iterator[None]:
    """Remove a folder that this start has made, if it leaves nothing in it."""
    try:
        yield
    except Exception:
        if not existed and out.is_dir():
            below = sorted((path for path in out.rglob("*") if path.is_dir()), reverse=True)
            for folder in (*below, out):
                with contextlib.suppress(OSError):  # not empty
                    folder.rmdir()
        raise
