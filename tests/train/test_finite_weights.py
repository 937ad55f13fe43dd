"""Weights are looked at after their last update, and before every checkpoint."""

import dataclasses
import os
import signal

import pytest
import torch
from tiny_method import OPTIM, data, tiny

from wsss_lab.config import RunConfig
from wsss_lab.data.loader import StepSampler
from wsss_lab.models.state import not_finite
from wsss_lab.train.checkpoint import (
    CheckpointError,
    checkpoint_files,
    load_checkpoint,
    newest_checkpoint,
)
from wsss_lab.train.fit import fit, in_memory
from wsss_lab.train.stop import held_back

RUN = RunConfig(steps=3, batch=8, log_every=0, save_every=1, keep=9, accelerator="cpu")


def train(method, out, run=RUN):
    images, tags = data()
    return fit(method, in_memory(images, tags, StepSampler(len(images), 8, 0)), run, OPTIM, out=out)


class Overflows(type(tiny())):
    """The update after a step with a finite loss and gradient leaves a weight that is infinite."""

    at = 2

    def after_step(self, step):
        super().after_step(step)
        if step == self.at:
            with torch.no_grad():
                next(self.parameters()).view(-1)[0] = float("inf")


def overflowing(at):
    method = tiny()
    method.__class__ = Overflows
    method.at = at
    return method


def test_the_last_update_is_checked_too(tmp_path):
    run = dataclasses.replace(RUN, save_every=0)
    with pytest.raises(FloatingPointError, match=r"weights after step 2: 1 of .* not finite"):
        train(overflowing(2), tmp_path, run)
    assert not checkpoint_files(tmp_path)


def test_no_checkpoint_holds_weights_that_are_not_finite(tmp_path):
    with pytest.raises(FloatingPointError, match="weights after step 1"):
        train(overflowing(1), tmp_path)
    files = checkpoint_files(tmp_path)
    assert [file.name for file in files] == ["step_00000001.pt"]
    assert not not_finite(load_checkpoint(files[0])["model"])


def test_sigterm_leaves_no_checkpoint_that_is_not_finite(tmp_path):
    images, tags = data()
    whole = in_memory(images, tags, StepSampler(len(images), 8, 0))

    def batches(step):
        if step == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return whole(step)

    run = dataclasses.replace(RUN, save_every=0)
    with pytest.raises(FloatingPointError, match="weights after step 1"), held_back():
        fit(overflowing(1), batches, run, OPTIM, out=tmp_path)
    assert not checkpoint_files(tmp_path)
    train(tiny(), tmp_path, run)  # the signal is over: the next training goes to its end


def changed(content, key, value):
    return {**content, key: value}


EDITS = {
    "step": ["3", -1, None, 2.5],
    "model": [None, {}, {1: torch.zeros(1)}, {"a": 5}, []],
    "rng": [None, {}, 5],
    "config": [None, {}, {"run": 1, "optim": 2}],
    "history": [None, 5],
    "optimizer": [None, []],
    "format": [2, "1", [[]]],
    "method": [None, 5],
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    out = tmp_path_factory.mktemp("run")
    train(tiny(), out)
    return torch.load(checkpoint_files(out)[-1], weights_only=True)


@pytest.mark.parametrize(
    ("key", "value"), [(k, v) for k, values in EDITS.items() for v in values], ids=str
)
def test_an_edited_checkpoint_is_refused_by_name(key, value, finished, tmp_path):
    file = tmp_path / "step_00000003.pt"
    torch.save(changed(finished, key, value), file)
    with pytest.raises(CheckpointError, match=r"step_00000003\.pt"):
        load_checkpoint(file)


def test_a_checkpoint_with_nan_is_passed_over(finished, tmp_path):
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    model = {k: v.clone() for k, v in finished["model"].items()}
    torch.save(finished, folder / "step_00000002.pt")
    next(v for v in model.values() if v.is_floating_point()).view(-1)[0] = float("nan")
    torch.save(changed(finished, "model", model), folder / "step_00000003.pt")
    lines = []
    assert not not_finite(newest_checkpoint(tmp_path, lines.append)["model"])
    assert "step_00000003.pt: 1 of its tensors are not finite" in lines[0]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("optimizer", {}),
        ("optimizer", {"param_groups": 5, "state": 5}),
        ("rng", [{}]),
        ("rng", [{"torch": 5}]),
        ("scaler", {"scale": "x"}),
    ],
    ids=str,
)
def test_a_checkpoint_that_cannot_be_restored_ends_in_one_line(key, value, finished, tmp_path):
    (tmp_path / "checkpoints").mkdir()
    content = changed({**finished, "step": 2}, key, value)
    torch.save(content, tmp_path / "checkpoints" / "step_00000002.pt")
    if key == "scaler":  # without a loss scaler nothing reads it
        train(tiny(), tmp_path)
        return
    with pytest.raises(
        CheckpointError, match=r"after step 2 cannot be restored .*delete it|other p"
    ):
        train(tiny(), tmp_path)
