"""SIGTERM ends a run at a checkpoint; a process that hangs is named."""

import json
import os
import shlex
import signal
import subprocess
import sys
import time

import pytest
import torch
from killed_commands import start
from test_resume import script
from tiny_method import OPTIM, data, digest, tiny

from wsss_lab.config import RunConfig
from wsss_lab.data.loader import StepSampler
from wsss_lab.data.toy import write_voc
from wsss_lab.train import hang
from wsss_lab.train.checkpoint import checkpoint_files
from wsss_lab.train.fit import fit, in_memory
from wsss_lab.train.stop import Terminated, held_back, raised_by_sigterm

RUN = RunConfig(steps=9, batch=8, save_every=0, log_every=4, accelerator="cpu")


def train(out=None, at=None):
    """Train, and send SIGTERM to this process while a batch is made."""
    images, tags = data()
    whole = in_memory(images, tags, StepSampler(32, 8))

    def batches(step):
        if step == at:
            os.kill(os.getpid(), signal.SIGTERM)
        return whole(step)

    method = tiny()
    with held_back():
        fit(method, batches, RUN, OPTIM, out=out, log=None)
    return method


def test_sigterm_completes_the_step_and_writes_a_checkpoint(tmp_path):
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Terminated, match="after step 4 of 9; its checkpoint is written"):
        train(tmp_path, at=3)
    assert [file.name for file in checkpoint_files(tmp_path)] == ["step_00000004.pt"]
    assert signal.getsignal(signal.SIGTERM) == before
    assert digest(train(tmp_path)) == digest(train())


def test_sigterm_in_the_last_step_keeps_the_finished_training(tmp_path):
    with pytest.raises(Terminated):
        train(tmp_path, at=8)
    assert checkpoint_files(tmp_path)[-1].name == "step_00000009.pt"


def ask(times):
    """Send SIGTERM to this process; it is to raise."""
    for _ in range(times):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.1)
    time.sleep(5)


def test_outside_of_training_sigterm_is_raised_at_once():
    begin = time.monotonic()
    with pytest.raises(Terminated), raised_by_sigterm():
        ask(1)
    assert time.monotonic() - begin < 4


def test_a_second_sigterm_does_not_wait_for_the_step():
    begin = time.monotonic()
    with pytest.raises(Terminated), held_back():
        ask(2)
    assert time.monotonic() - begin < 4


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    return script("ended_pairs.py", tmp_path_factory.mktemp("ended"))


def test_a_sigterm_to_one_process_ends_all_with_one_checkpoint(pairs):
    found = pairs["asked"]
    assert found["exit"] == [143, 143]
    assert found["checkpoints"] == ["step_00000006.pt"]
    assert all("ended by SIGTERM after step 6 of 10" in said for said in found["said"])


def test_a_process_without_its_batch_is_named_after_a_time_limit(pairs):
    found = pairs["hangs"]
    assert found["exit"] == [2, 2]
    expected = f"process id {found['pids'][1]}), waits for its batch after step 4"
    assert "error: no step for 4 s: process 1 (" in found["said"][0]
    assert expected in found["said"][0]


def test_a_process_that_does_not_run_any_more_is_named(pairs):
    found = pairs["stopped"]
    assert found["exit"][0] == 2
    expected = f"process id {found['pids'][1]}), shows no sign of life since step 4"
    assert expected in found["said"][0]


def test_the_time_limit_can_be_set(monkeypatch):
    monkeypatch.delenv(hang.VARIABLE, raising=False)
    assert hang.time_limit() == 1800
    monkeypatch.setenv(hang.VARIABLE, "60")
    assert hang.time_limit() == 60
    monkeypatch.setenv(hang.VARIABLE, "soon")
    with pytest.raises(ValueError, match="expected seconds, got 'soon'"):
        hang.time_limit()


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    write_voc(folder, split="train", count=8, size=48)
    write_voc(folder, split="val", count=2, size=48)
    return folder


def test_a_terminated_command_names_the_line_that_goes_on_and_its_reader_may_leave(world, tmp_path):
    """Standard output is a pipe that is closed after a line about a step, as `| head` does."""
    out = tmp_path / "run of mine"
    process = start(world, out, "--run.steps", "400", "--run.log-every", "1")
    heading = [process.stdout.readline() for _ in range(3)]
    assert heading[1].startswith("1/4 tags: ")
    assert any("step" in process.stdout.readline() for _ in range(3))
    process.stdout.close()
    end = time.monotonic() + 120
    while not any((out / "tags" / "checkpoints").glob("step_*.pt")) and time.monotonic() < end:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    err = process.stderr.read()
    assert process.wait(timeout=120) == 143, err
    assert "the run goes on" in err
    last = err.splitlines()[-1]
    assert "ended by SIGTERM after step" in last
    words = shlex.split(last.split("Go on with: ")[1])
    assert words[:5] == ["python", "-m", "wsss_lab", "train", "cam_baseline"]
    assert words[5:] == ["--out", str(out), "--resume"]
    record = json.loads((out / "tags" / "stage.json").read_text())
    assert record["used"][0]["threads"] == 1
    assert not list(out.rglob("*.tmp"))
    newest = checkpoint_files(out / "tags")[-1]
    step = int(newest.stem[5:])
    assert f"after step {step} of 400" in last
    assert torch.load(newest, weights_only=True)["step"] == step


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_full_log_disk_does_not_end_a_command():
    script = (
        "from wsss_lab.train.log import steadfast; log = steadfast(print)\n"
        "for n in range(3): log(n)\n"
        "import sys; print('done', file=sys.stderr)"
    )
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-c", script], stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert done.returncode == 0
    assert done.stderr.splitlines()[-1] == "done"
    assert "No space left on device; the run goes on" in done.stderr
