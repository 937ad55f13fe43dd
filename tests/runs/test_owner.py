"""One run, one owner, from the command line: nobody else works in its folder or on its settings."""

import json
import os
import subprocess
import sys

import pytest

from wsss_lab.__main__ import main
from wsss_lab.runs import owner
from wsss_lab.train.environment import ARITHMETIC, RANKS, REPLACE_SETTINGS

TINY = "--preset toy --data.count 8 --data.val-count 2 --data.size 48 --data.crop 48 --run.batch 4"
BASELINE = f"{TINY} --report-train 0 --run.steps 1 --mask-steps 1 --cam-scales 1.0".split()
OWNER = """
import sys, time
from pathlib import Path
from wsss_lab.train.lock import FolderLock
assert FolderLock(Path(sys.argv[1])).acquire()
print("held", flush=True)
time.sleep(float(sys.argv[2]))
"""


@pytest.fixture(autouse=True)
def _clean(monkeypatch):
    for name in (*RANKS, *REPLACE_SETTINGS, *ARITHMETIC):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def out(tmp_path):
    return tmp_path / "run"


def train(out, *more):
    return main(["train", "cam_baseline", *BASELINE, "--out", str(out), *more])


def held_elsewhere(out, seconds):
    """Another process that owns the folder."""
    out.mkdir(exist_ok=True)
    command = [sys.executable, "-c", OWNER, str(out), str(seconds)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    return process


def files(out):
    return {file.name: file.read_bytes() for file in out.rglob("*") if file.is_file()}


@pytest.fixture
def started(out, monkeypatch):
    """A run that was killed when it had just begun, with a temporary file of its own."""

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(owner, "preflight", killed)
        assert train(out) == 130
    (out / ".log.csv.7.tmp").write_text("half a file")
    return out


def test_settings_are_written_before_anything_slow(started):
    config = json.loads((started / "config.json").read_text())["config"]
    assert (config["run"]["steps"], config["data"]["count"]) == (1, 8)
    assert main(["train", "cam_baseline", "--out", str(started), "--resume"]) == 0
    metrics = json.loads((started / "metrics.json").read_text())
    assert metrics["config"] == config
    assert not list(started.rglob(".*"))  # neither lock nor leftovers


def test_a_second_start_in_the_folder_changes_nothing(out, capsys):
    process = held_elsewhere(out, 60)
    try:
        before = files(out)
        assert train(out) == 2
        assert f"is in use: process {process.pid}" in capsys.readouterr().err
        assert files(out) == before
    finally:
        process.kill()
        process.communicate()


def test_resuming_a_run_that_still_runs_waits_and_takes_nothing_from_it(
    started, monkeypatch, capsys
):
    process = held_elsewhere(started, 4)
    unlink = owner.Path.unlink

    def watched(path, missing_ok=False):
        if path.suffix == ".tmp":
            assert process.poll() is not None, "the other one is still writing this file"
        unlink(path, missing_ok)

    monkeypatch.setattr(owner.Path, "unlink", watched)
    assert main(["train", "cam_baseline", "--out", str(started), "--resume"]) == 0
    assert f"process {process.pid}" in capsys.readouterr().out
    process.communicate()
    assert (started / "metrics.json").is_file()


@pytest.mark.parametrize("kind", ["no folder", "empty folder", "no settings yet"])
@pytest.mark.parametrize("flag", ["--resume", "--resume=True"])
def test_nothing_to_resume_is_not_trained(kind, flag, out, capsys):
    if kind != "no folder":
        out.mkdir()
    if kind == "no settings yet":
        (out / ".lock").touch()
    before = out.exists()
    for arguments in ([], BASELINE):
        code = main(["train", "cam_baseline", *arguments, "--out", str(out), flag])
        assert code == 2
        assert "error: " in (said := capsys.readouterr().err)
        if flag == "--resume":
            assert "nothing to resume" in said
    assert out.exists() == before
    assert not (out / "config.json").exists()


def test_resuming_with_other_settings_is_refused_at_once(started, capsys):
    process = held_elsewhere(started, 60)  # even while another one works on it
    try:
        again = ["train", "cam_baseline", "--out", str(started), "--resume"]
        assert main([*again, "--run.seed", "5"]) == 2
        assert "run.seed is 0 there and 5 here" in capsys.readouterr().err
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize(
    "value", ["RANK=1", "RANK=", "LOCAL_RANK=-1", "NODE_RANK=1", "WORLD_SIZE=2"]
)
@pytest.mark.parametrize("method", ["cam_baseline", "cosa"])
def test_a_stale_rank_ends_the_run_before_it_begins(value, method, out, monkeypatch, capsys):
    name, _, rank = value.partition("=")
    monkeypatch.setenv(name, rank)
    assert main(["train", method, *TINY.split(), "--run.steps", "1", "--out", str(out)]) == 2
    said = capsys.readouterr().err
    assert name in said
    assert "unset" in said
    assert not out.exists()


@pytest.mark.parametrize("name", REPLACE_SETTINGS)
def test_variables_of_lightning_do_not_replace_settings(name, out, monkeypatch, capsys):
    monkeypatch.setenv(name, "bf16-mixed" if name == "LT_PRECISION" else "1")
    assert train(out) == 2
    assert name in capsys.readouterr().err
    assert not out.exists()


def test_variables_of_arithmetic_are_recorded_and_stay_the_same(out, monkeypatch, capsys):
    monkeypatch.setenv("MKL_CBWR", "COMPATIBLE")
    assert train(out) == 0
    stated = json.loads((out / "metrics.json").read_text())["environment"]
    assert stated == {"MKL_CBWR": "COMPATIBLE"}
    monkeypatch.delenv("MKL_CBWR")
    assert main(["train", "cam_baseline", "--out", str(out), "--resume"]) == 2
    assert "MKL_CBWR is unset, but the run" in capsys.readouterr().err


@pytest.mark.parametrize("there", [False, True])
def test_a_failed_start_leaves_the_folder_as_it_was(there, out):
    if there:
        out.mkdir()
    assert train(out, "--backbone", "toy_cmm") == 2
    assert out.exists() == there
    assert not there or not os.listdir(out)


def test_a_run_that_fails_later_can_be_resumed(out, monkeypatch):
    from wsss_lab.recipes.cam_baseline import recipe

    def broken(*_, **__):
        raise ValueError("labels: broken")

    with monkeypatch.context() as patch:
        patch.setattr(recipe, "label_stage", broken)
        assert train(out) == 2
    assert (out / "config.json").is_file()
    assert train(out, "--resume") == 0
