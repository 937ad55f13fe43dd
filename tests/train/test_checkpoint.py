"""Checkpoints are written whole, read with suspicion, and refused when they are of another run."""

import dataclasses
import errno
import os
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_method import OPTIM, Tiny, data, digest, tiny

from wsss_lab.config import OutputError, RunConfig, write_atomically, write_json
from wsss_lab.data.augment import augment
from wsss_lab.data.loader import StepSampler
from wsss_lab.train.checkpoint import (
    CheckpointError,
    checkpoint_files,
    load_checkpoint,
    newest_checkpoint,
    random_state,
    set_random_state,
)
from wsss_lab.train.fit import fit, in_memory

RUN = RunConfig(steps=9, batch=8, save_every=3, log_every=2, accelerator="cpu")
CPU = torch.device("cpu")


def train(out, method=None, run=RUN, optim=OPTIM, **options):
    method = method or tiny()
    images, tags = data()
    batches = in_memory(images, tags, StepSampler(32, run.batch), transform=augment)
    options = {"log": None, **options}
    return method, fit(method, batches, run, optim, out=out, **options)


@pytest.fixture
def finished(tmp_path):
    train(tmp_path)
    return tmp_path


def no_space(*args, **kwargs):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_checkpoint_loads_without_running_code(finished):
    newest = checkpoint_files(finished)[-1]
    content = torch.load(newest, weights_only=True)
    assert (content["format"], content["method"], content["step"]) == (1, "Tiny", 9)
    assert set(content["model"]) == set(Tiny().state_dict())
    assert content["config"]["optim"]["lr"] == OPTIM.lr
    assert len(content["rng"]) == 1


@pytest.mark.parametrize("keep", [1, 2, 9])
def test_the_newest_are_kept(tmp_path, keep):
    train(tmp_path, run=dataclasses.replace(RUN, keep=keep, save_every=2))
    steps = [int(path.stem[5:]) for path in checkpoint_files(tmp_path)]
    assert steps == [2, 4, 6, 8, 9][-keep:]


def test_resuming_from_the_one_before_gives_the_same_weights_and_log(finished):
    whole = load_checkpoint(checkpoint_files(finished)[-1])
    checkpoint_files(finished)[-1].unlink()
    lines = []
    method, history = train(finished, log=lines.append)
    assert any("goes on after step 6" in line for line in lines)
    assert all(torch.equal(value, whole["model"][k]) for k, value in method.state_dict().items())
    assert [entry["step"] for entry in history] == [0, 2, 4, 6, 8]
    text = (finished / "log.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in text] == ["step", "0", "2", "4", "6", "8"]


def test_a_finished_run_is_not_trained_again(finished):
    method, history = train(finished, on_step=lambda step, output: pytest.fail("it trained"))
    assert digest(method) == digest(train(None)[0])
    assert len(history) == 5


def test_resume_may_use_other_parts_and_intervals(finished, monkeypatch):
    monkeypatch.setattr(Tiny, "mean_over_images", True)
    checkpoint_files(finished)[-1].unlink()
    other = dataclasses.replace(RUN, accumulate=2, log_every=1, save_every=0, keep=1, workers=2)
    _, history = train(finished, run=other)
    assert history[-1]["step"] == 8


def test_resume_may_not_use_other_parts_where_that_changes_results(finished):
    checkpoint_files(finished)[-1].unlink()
    with pytest.raises(CheckpointError, match=r"accumulate was 1, now 2: .* --run.accumulate 1"):
        train(finished, run=dataclasses.replace(RUN, accumulate=2))


def damage(path, how):
    content = path.read_bytes()
    middle = len(content) // 2
    if how == "cut":
        path.write_bytes(content[:middle])
    elif how == "flipped":
        path.write_bytes(content[:middle] + bytes([content[middle] ^ 255]) + content[middle + 1 :])
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "foreign":
        torch.save({"weights": torch.ones(3)}, path)
    elif how == "text":
        path.write_text("not a checkpoint\n")
    elif how == "object":
        torch.save({"format": 1, "method": Path("x")}, path)
    elif how == "format":
        torch.save({**torch.load(path, weights_only=True), "format": 2}, path)


@pytest.mark.parametrize("how", ["cut", "flipped", "empty", "foreign", "text", "object", "format"])
def test_a_damaged_checkpoint_is_refused_and_the_older_one_used(finished, how):
    newest = checkpoint_files(finished)[-1]
    damage(newest, how)
    with pytest.raises(CheckpointError, match=newest.name):
        load_checkpoint(newest)
    lines = []
    method, _ = train(finished, log=lines.append)
    assert lines[0].startswith("passed over")
    assert newest.name in lines[0]
    assert "goes on after step 6" in lines[1]
    assert digest(method) == digest(train(None)[0])


def test_every_cut_is_noticed(finished):
    newest = checkpoint_files(finished)[-1]
    content = newest.read_bytes()
    draw = random.Random(0)
    for length in [1, 4, len(content) - 1, *(draw.randrange(len(content)) for _ in range(20))]:
        newest.write_bytes(content[:length])
        with pytest.raises(CheckpointError, match=r"cut off or not a checkpoint|damaged"):
            load_checkpoint(newest)


def test_no_sound_checkpoint_at_all_is_an_error_not_a_new_start(finished):
    for path in checkpoint_files(finished):
        damage(path, "cut")
    with pytest.raises(CheckpointError, match="no sound checkpoint among 2"):
        train(finished)


def test_without_checkpoints_there_is_none(tmp_path):
    assert newest_checkpoint(tmp_path / "nowhere") is None


class Other(Tiny):
    pass


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": Other()}, "is of method Tiny, this run trains Other"),
        ({"method": Tiny(width=5)}, r"body.0.weight: \(8, 3\) in the checkpoint, \(5, 3\) here"),
        ({"run": dataclasses.replace(RUN, steps=12)}, "steps was 9, now 12"),
        ({"run": dataclasses.replace(RUN, seed=1)}, "seed was 0, now 1"),
        ({"optim": dataclasses.replace(OPTIM, lr=0.5)}, "lr was 0.01, now 0.5"),
        ({"resume": False}, r"holds a run already \(step_00000009.pt\)"),
    ],
    ids=["method", "shapes", "steps", "seed", "lr", "resume"],
)
def test_a_checkpoint_of_another_run_is_refused(finished, options, message):
    before = {path: path.read_bytes() for path in finished.rglob("*") if path.is_file()}
    method = options.get("method") or tiny()
    weights = digest(method)
    with pytest.raises(ValueError, match=message):
        train(finished, **{**options, "method": method})
    assert digest(method) == weights
    assert {path: path.read_bytes() for path in before} == before


def test_leftovers_of_killed_writes_are_removed(finished):
    for name in (".log.csv.77.tmp", "checkpoints/.step_00000012.pt.77.tmp"):
        (finished / name).write_bytes(b"half")
    train(finished)
    assert not list(finished.rglob(".*.tmp"))


def test_a_full_disk_stops_with_one_line_and_leaves_what_was_there(tmp_path, monkeypatch):
    images, tags = data()
    inner = in_memory(images, tags, StepSampler(32, 8), transform=augment)

    def batches(step):
        if step == 5:
            monkeypatch.setattr(os, "fsync", no_space)
        return inner(step)

    with pytest.raises(OutputError, match=r"step_00000006\.pt: cannot be .* \(disk full: No space"):
        fit(tiny(), batches, RUN, OPTIM, out=tmp_path, log=None)
    monkeypatch.undo()
    assert [path.name for path in checkpoint_files(tmp_path)] == ["step_00000003.pt"]
    assert not list(tmp_path.rglob(".*.tmp"))
    assert digest(train(tmp_path)[0]) == digest(train(None)[0])


@pytest.mark.parametrize("room", [0, 10, 1000])
def test_a_disk_that_fills_up_inside_torch_save(tmp_path, room):
    class Disk:
        def __init__(self, file):
            self.file, self.room = file, room

        def write(self, content):
            self.room -= len(content)
            if self.room < 0:
                no_space()
            return self.file.write(content)

        def flush(self):
            self.file.flush()

    target = tmp_path / "weights.pt"
    target.write_text("old")
    with pytest.raises(OutputError, match=r"weights\.pt: cannot be written"):
        write_atomically(target, lambda file: torch.save(torch.zeros(5000), Disk(file)))
    assert target.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["weights.pt"]


def test_a_folder_that_cannot_be_written_stops_before_training(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("not a folder")
    untrained = lambda step, output: pytest.fail("it trained")  # noqa: E731
    with pytest.raises(OutputError, match=r"log\.csv: cannot be written \(Not a directory"):
        train(tmp_path / "file" / "run", on_step=untrained)

    def read_only(path, *args, **kwargs):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(Path, "open", read_only)
    with pytest.raises(OutputError, match=r"cannot be written \(Permission denied\)"):
        train(tmp_path / "run", on_step=untrained)


def test_json_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    write_json(tmp_path / "new" / "metrics.json", {"miou": 0.5})
    before = (tmp_path / "new" / "metrics.json").read_text()
    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(OutputError, match="No space left"):
        write_json(tmp_path / "new" / "metrics.json", {"miou": 0.6})
    assert (tmp_path / "new" / "metrics.json").read_text() == before


def test_random_generators_come_back():
    random.seed(3)
    np.random.seed(3)  # noqa: NPY002
    torch.manual_seed(3)
    np.random.randn()  # noqa: NPY002  # leaves half of a pair behind

    def draw():
        ours = (torch.rand(3).tolist(), np.random.randn(3).tolist())  # noqa: NPY002
        return (*ours, random.random(), random.gauss(0, 1))

    state = random_state(CPU)
    first = draw()
    draw()
    set_random_state(state, CPU)
    assert draw() == first
