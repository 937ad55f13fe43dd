"""Start or continue a run from a notebook, on one device or on several."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from wsss_lab.config import read_json
from wsss_lab.data.workers import PARENT
from wsss_lab.runs.contents import undo_failed_start
from wsss_lab.runs.folder import read_run
from wsss_lab.runs.owner import own_run
from wsss_lab.runs.recipe import find_recipe


def run_or_resume(
    method: str, config: Any, out: Path, log: Callable[[str], None] = print
) -> dict[str, Any]:
    """Run a recipe to its end, or go on with what an earlier start has left in the folder.

    With one device it runs in this process. With several, a notebook would have to fork, which
    fails as soon as anything in it has touched a GPU: so the settings are written to the folder and
    the command line goes on with them in processes of its own. Its lines arrive here.

    Args:
        method: a key of `wsss_lab.runs.recipe.RECIPES`.
        config: the recipe's settings.
        out: folder of the run, new or of this very run.
        log: gets lines of text.

    Returns:
        The content of `metrics.json`.

    Raises:
        ValueError, FileExistsError, FileNotFoundError: settings, data or folder do not fit.
        RuntimeError: the command has failed; its last line says why.
    """
    recipe = find_recipe(method)
    if config.run.devices == 1:
        with undo_failed_start(out):
            return recipe.train(config, out, resume=True, log=log)
    with own_run(out, method, config, True, log, lambda _: []):
        pass  # config.json is written; the command owns the folder from here on
    run, data = config.run, config.data
    options = ["--run.devices", run.devices, "--run.nodes", run.nodes]
    options += ["--run.workers", run.workers, "--run.accelerator", run.accelerator]
    options += ["--data.root", data.root] if data.root else []
    command = [sys.executable, "-m", "wsss_lab", "train", method, "--out", out, "--resume"]
    follow([str(part) for part in [*command, *options]], log)
    return read_json(out / "metrics.json", remedy="delete it and resume the run")


def require_run(out: Path) -> dict[str, Any]:
    """Return the content of `config.json` of the run that is to be resumed.

    Raises:
        FileNotFoundError: there is none, so that other settings would be trained than were asked
            for.
        ValueError: it is damaged.
    """
    if not (out / "config.json").is_file():
        what = "holds no run" if out.is_dir() else "is not there"
        raise FileNotFoundError(
            f"out: {out} {what}, so there is nothing to resume; correct the folder, or start a new "
            "run in it without --resume"
        )
    return read_run(out)


def follow(command: list[str], log: Callable[[str], None]) -> None:
    """Run a command and hand on its lines as they come; it ends with this process.

    Raises:
        RuntimeError: it ended with another exit code than 0; names its last line.
    """
    last = ""
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1", PARENT: str(os.getpid())},
    )
    try:
        for line in process.stdout or ():
            last = line.rstrip() or last
            log(line.rstrip())
        code = process.wait()
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait()
    if code:
        raise RuntimeError(f"{' '.join(command[:5])} ended with exit code {code}: {last}")
