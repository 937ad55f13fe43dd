"""One run of a study in a process of its own: `python -m wsss_lab.studies.one FOLDER`.

Started by `wsss_lab.studies.runner`. The process locks its folder while it lives, so that two never
work on one run, and ends with the runner, however that ended.
"""

import os
import signal
import sys
import threading
import traceback
from pathlib import Path
from typing import Any

from wsss_lab.config import write_json
from wsss_lab.runs.settings import restore
from wsss_lab.studies.plan import read_json
from wsss_lab.studies.run_lock import hold

BUSY = 75
"""Exit code: another process works on this run."""


def end_with_parent() -> None:
    """End this process and its helpers as soon as the other end of standard input is closed."""

    def watch() -> None:
        while os.read(0, 1):  # not sys.stdin: forked workers would wait for its lock forever
            pass
        if os.getpgrp() == os.getpid():
            os.killpg(os.getpgrp(), signal.SIGKILL)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def train(folder: Path) -> dict[str, Any]:
    """Train or resume the run that `study.json` describes.

    Args:
        folder: folder of the run; gets `run/`.

    Returns:
        The content of its `metrics.json`.
    """
    from wsss_lab.runs.recipe import find_recipe
    from wsss_lab.studies.scorers import score_run

    facts = read_json(folder / "study.json")
    recipe = find_recipe(facts["method"])
    config = restore(recipe.config, facts["config"])
    found = recipe.train(config, folder / "run", True, print)
    if facts.get("scorer"):
        score_run(facts["scorer"], folder / "run", config)
    return found


def main(arguments: list[str]) -> int:
    """Return 0 if the run is finished, 1 if it failed, 75 if another process works on it."""
    folder = Path(arguments[0])
    if os.environ.get("LOCAL_RANK", "0") != "0":  # a worker process for one more device
        train(folder)
        return 0
    if "--tethered" in arguments:
        end_with_parent()
    with hold(folder) as mine:
        if not mine:
            return BUSY
        try:
            train(folder)
        except Exception as error:  # of any kind: it fails this run and no other
            traceback.print_exc()
            reason = " ".join(str(error).split())
            write_json(folder / "error.json", {"error": f"{type(error).__name__}: {reason}"})
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
