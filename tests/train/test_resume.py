"""A killed and resumed run ends as the unbroken one does, bit for bit."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parents[1] / "helpers"


def script(name, *arguments):
    """Run a helper script in its own process and parse what it prints."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    environment["PYTHONPATH"] = os.pathsep.join(map(str, (HERE.parent.parent, HERE)))
    done = subprocess.run(
        [sys.executable, HERE / name, *map(str, arguments)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return script("killed_runs.py", tmp_path_factory.mktemp("killed"))


def test_the_runs_were_killed(runs):
    ends = {name: run["ends"] for name, run in runs.items()}
    assert ends.pop("none_0") == [0, 0]
    for name, codes in ends.items():
        assert codes[-1] == 0, name
        if not name.startswith("time"):
            assert codes[0] == -signal.SIGKILL, name
    assert ends["often"].count(-signal.SIGKILL) >= 8


def test_weights_and_state_are_those_of_the_unbroken_run(runs):
    found = {name: run["digest"] for name, run in runs.items()}
    assert found == dict.fromkeys(runs, runs["none_0"]["digest"])


def test_the_log_neither_repeats_nor_lacks_a_row(runs):
    rows = runs["none_0"]["rows"]
    assert [row[0] for row in rows] == ["step", *map(str, range(0, 20, 2)), "19"]
    for name, run in runs.items():
        assert run["rows"] == rows, name


def test_two_checkpoints_are_left_and_nothing_of_the_killed_writes(runs):
    for name, run in runs.items():
        assert run["files"] == ["digest", "log.csv", "step_00000018.pt", "step_00000020.pt"], name
