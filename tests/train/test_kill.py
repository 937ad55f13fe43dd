"""A run that is killed again and again ends with the same bytes as one that is not."""

import hashlib
import os
import random
import signal
import subprocess
import sys
import time

import pytest

from wsss_lab.__main__ import main
from wsss_lab.data.toy import write_voc

STEPS = 6


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A small world on disk: drawing scenes would cost more than training on them."""
    folder = tmp_path_factory.mktemp("world")
    write_voc(folder, split="train", count=70, size=48)
    write_voc(folder, split="val", count=4, size=48)
    return folder


def words(world, out, *more):
    arguments = ["train", "cam_baseline", "--preset", "toy", "--out", str(out)]
    arguments += ["--data.name", "voc", "--data.root", str(world), "--data.train-split", "train"]
    arguments += ["--data.crop", "48", "--report-train", "0", "--cam-scales", "1.0"]
    arguments += ["--run.steps", str(STEPS), "--run.batch", "4", "--run.save-every", "2"]
    return [*arguments, "--mask-steps", str(STEPS), *more]


def start(world, out, *more):
    return subprocess.Popen(
        [sys.executable, "-m", "wsss_lab", *words(world, out, *more)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def finish(process):
    _, err = process.communicate(timeout=300)
    assert process.returncode == 0, err


def kill_when(process, reached, after=0.0):
    """SIGKILL as soon as a condition holds; returns whether that was before the end."""
    while process.poll() is None:
        if reached():
            time.sleep(after)
            process.send_signal(signal.SIGKILL)
            break
        time.sleep(0.002)
    process.communicate()
    return process.returncode == -signal.SIGKILL


def digest(folder):
    files = ["model.safetensors", "tags/model.safetensors"]
    files += sorted(str(f.relative_to(folder)) for f in (folder / "labels").glob("*.png"))
    return {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in files}


def test_killed_runs_end_with_the_same_weights(world, tmp_path, capsys):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    unbroken = start(world, whole)
    moments = [
        lambda: any((broken / "tags" / "checkpoints").glob("step_*.pt")),  # while it trains
        lambda: any((broken / "labels").glob("*.png")),  # while it labels
        lambda: (broken / "masks").is_dir(),  # between two stages
        lambda: any((broken / "masks" / "checkpoints").glob("step_00000002.pt")),
    ]
    hits, first, rng = 0, True, random.Random(1)
    for moment in moments:
        more = () if first else ("--resume",)
        hits += kill_when(start(world, broken, *more), moment, after=rng.uniform(0, 0.02))
        first = False
        assert not (broken / "metrics.json").exists()
    finish(unbroken)
    assert hits == len(moments)
    finish(start(world, broken, "--resume"))
    expected = digest(whole)
    assert len(expected) == 72
    assert digest(broken) == expected
    assert not list(broken.rglob("*.tmp"))
    metrics = [(f / "metrics.json").read_text() for f in (whole, broken)]
    assert metrics[0] == metrics[1]
    # a run that is done has nothing left to do, and so needs no process of its own
    assert main(words(world, broken, "--resume")) == 0
    assert capsys.readouterr().out.count("done already") == 3  # tags, labels, masks
    assert digest(broken) == expected
