"""Script: kill commands by SIGKILL at chosen moments, resume them, print what they end with.

Run as `killed_commands.py WORLD FOLDER`; prints JSON. Forks, so that the library is imported once.
"""

import contextlib
import hashlib
import io
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

from wsss_lab.__main__ import main

STEPS = 6


def words(world, out, *more):
    """Arguments of a training of the baseline in two stages, which saves every second step."""
    arguments = ["train", "cam_baseline", "--preset", "toy", "--out", str(out)]
    arguments += ["--data.name", "voc", "--data.root", str(world), "--data.train-split", "train"]
    arguments += ["--data.crop", "48", "--report-train", "0", "--cam-scales", "1.0"]
    arguments += ["--run.steps", str(STEPS), "--run.batch", "4", "--run.save-every", "2"]
    return [*arguments, "--mask-steps", str(STEPS), *more]


def start(world, out, *more):
    """The command in a process of its own, with pipes."""
    return subprocess.Popen(
        [sys.executable, "-m", "wsss_lab", *words(world, out, *more)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def forked(arguments, said):
    """Fork, and run the command there; what it prints goes to a file."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        os.dup2(os.open(said, os.O_CREAT | os.O_WRONLY | os.O_APPEND), 1)
        os.dup2(1, 2)
        code = main(arguments)
        sys.stdout.flush()
    finally:
        os._exit(code)


def end_of(pid, moment=None, after=0.0):
    """Exit code; with a moment, SIGKILL as soon as it has come, and a little later."""
    while moment is not None:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        if moment():
            time.sleep(after)
            os.kill(pid, signal.SIGKILL)
            break
        time.sleep(0.002)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def digest(folder):
    files = ["model.safetensors", "tags/model.safetensors", "metrics.json"]
    files += sorted(str(f.relative_to(folder)) for f in (folder / "labels").glob("*.png"))
    return {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in files}


def run(world, folder):
    whole, broken, said = folder / "whole", folder / "broken", folder / "said"
    moments = {
        "trains": lambda: any((broken / "tags" / "checkpoints").glob("step_*.pt")),
        "labels": lambda: any((broken / "labels").glob("*.png")),
        "between stages": lambda: (broken / "masks").is_dir(),
        "trains masks": lambda: any((broken / "masks" / "checkpoints").glob("step_00000002.pt")),
    }
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        assert main(words(world, whole)) == 0
    ends, too_early, more, rng = {}, [], (), random.Random(1)
    for name, moment in moments.items():
        pid = forked(words(world, broken, *more), said)
        ends[name] = end_of(pid, moment, after=rng.uniform(0, 0.02))
        too_early += [name] * (broken / "metrics.json").exists()
        more = ("--resume",)
    ends["to the end"] = end_of(forked(words(world, broken, "--resume"), said))
    found = {"ends": ends, "finished too early": too_early, "said": said.read_text()[-3000:]}
    if not ends["to the end"]:
        found |= {"whole": digest(whole), "broken": digest(broken)}
        found["left"] = [str(file) for file in broken.rglob("*.tmp")]
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            found["again"] = main(words(world, broken, "--resume"))
        found |= {"said again": printed.getvalue(), "broken again": digest(broken)}
    print(json.dumps(found))


if __name__ == "__main__":
    run(*map(Path, sys.argv[1:]))
