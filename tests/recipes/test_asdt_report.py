"""The report of an ASDT run beyond the evaluation of all methods."""

import dataclasses
import json

import numpy as np
import pytest
from safetensors.numpy import load_file

from wsss_lab.config import RunConfig
from wsss_lab.recipes import asdt
from wsss_lab.studies.rules import miou_of


def settings(**changes):
    toy = asdt.PRESETS["toy"]
    method = dataclasses.replace(
        toy.method, hidden=8, scales=(1.0,), warmup=1, period=4, duty=0.5, **changes
    )
    data = dataclasses.replace(toy.data, size=48, crop=48, count=6, val_count=3)
    run = RunConfig(4, batch=2, log_every=2, save_every=2)
    return dataclasses.replace(
        toy, data=data, run=run, method=method, report=5, watch=2, watch_every=1
    )


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    out = tmp_path_factory.mktemp("asdt") / "run"
    return out, asdt.RECIPE.train(settings(), out, log=lambda _: None)


def test_every_prediction_is_scored(done):
    results = done[1]["results"]
    train, val = results["voices"]["train"], results["voices"]["val"]
    assert set(train) == {
        *("head1", "head2", "fused", "label_a", "label_b"),
        "agreement",
        "protocol",
    }
    assert set(val) == {"head1", "head2", "fused", "protocol"}
    assert (train["protocol"]["images"], val["protocol"]["images"]) == (5, 3)
    assert train["protocol"]["split"] == "toy train, first 5"
    assert 0 <= train["label_a"]["coverage"] <= 1
    assert train["head2"]["coverage"] == 1
    assert set(train["agreement"]) == {"label_a_label_b", "head2_label_a", "head2_label_b"}
    # the fused prediction without CRF is what the general evaluation scores
    assert val["fused"]["miou"] == pytest.approx(results["val"]["seg"]["miou"])


def test_counts_per_image_add_up_to_the_score(done):
    out, metrics = done
    with np.load(out / "per_image.npz") as file:
        assert set(file) == {"head2", "fused"}
        for name in file:
            assert file[name].shape == (5, 3, 11)
            wanted = metrics["results"]["voices"]["train"][name]["miou"]
            assert miou_of(file[name].sum(0)) == pytest.approx(wanted)


def test_samples_are_taken_during_training_and_survive_a_stop(done, tmp_path):
    phase = done[1]["results"]["phase"]
    assert phase["step"] == [0, 1, 2, 3]
    assert all(len(values) == 4 for values in phase.values())
    # a run that lost its last steps takes the same samples again
    out = tmp_path / "run"
    asdt.RECIPE.train(settings(), out, log=lambda _: None)
    for path in (out / "model.safetensors", out / "metrics.json"):
        path.unlink()
    (out / "checkpoints" / "step_00000004.pt").unlink()
    cut = json.loads((out / "phase.json").read_text())
    (out / "phase.json").write_text(json.dumps({k: v[:3] for k, v in cut.items()}))
    again = asdt.RECIPE.train(settings(), out, resume=True, log=lambda _: None)
    assert again["results"] == done[1]["results"]


def test_sampling_does_not_change_the_training(done, tmp_path):
    blind = dataclasses.replace(settings(), watch=0, report=0)
    asdt.RECIPE.train(blind, tmp_path / "run", log=lambda _: None)
    weights = [path / "checkpoints" / "step_00000004.pt" for path in (done[0], tmp_path / "run")]
    import torch

    one, other = (torch.load(file, weights_only=True)["model"] for file in weights)
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert not (tmp_path / "run" / "per_image.npz").exists()


def test_without_student(tmp_path):
    found = asdt.RECIPE.train(settings(selection="none"), tmp_path / "run", log=lambda _: None)
    assert found["results"]["voices"]["train"]["head2"] == {"miou": None}
    assert found["results"]["phase"]["head2_label_a"] == [None] * 4


def test_bad_settings():
    with pytest.raises(ValueError, match="watch_every: expected at least 1"):
        dataclasses.replace(settings(), watch_every=0)
    with pytest.raises(ValueError, match="report: expected at least 0"):
        dataclasses.replace(settings(), report=-1)


def test_an_oracle_trains_on_masks_and_changes_the_student(done, tmp_path):
    """The same run with teacher A's lesson replaced by the truth: the student ends elsewhere."""
    told = settings(oracle="a")
    assert told.trains_on_masks
    assert not settings().trains_on_masks
    metrics = asdt.RECIPE.train(told, tmp_path / "run", log=lambda _: None)
    assert metrics["config"]["method"]["oracle"] == "a"
    files = (done[0] / "model.safetensors", tmp_path / "run" / "model.safetensors")
    plain, oracle = (load_file(file) for file in files)
    heads = [name for name in plain if "student_head" in name]
    assert any(not np.array_equal(plain[name], oracle[name]) for name in heads)
    found = asdt.RECIPE.plan(told, tmp_path / "new", steps=1, images=1)
    assert found.stages
