"""Two processes compute what one does; devices that are not there are refused."""

import dataclasses

import pytest
import torch
from test_resume import script

from wsss_lab.config import RunConfig
from wsss_lab.train.devices import make_fabric, require_even_shares


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    return script("two_processes.py", tmp_path_factory.mktemp("pair"))


def test_two_processes_end_with_the_weights_of_one(found):
    assert found["exit"] == [0] * 6
    assert found["weights_moved"] > 0.01
    assert found["torchrun"] < 1e-5
    assert found["losses"] < 1e-5
    assert found["steps"] == [0, 4, 8, 9]


def test_accumulated_parts_end_with_the_weights_of_one_batch(found):
    assert found["accumulated"] < 1e-5
    assert found["one_is_deterministic"]


def test_a_notebook_forks_and_gets_weights_and_history_back(found):
    assert found["notebook"] < 1e-5
    assert found["notebook_steps"] == [0, 4, 8, 9]


def test_two_processes_resume_exactly_with_their_own_random_numbers(found):
    assert found["resumed_equal"]
    assert found["rows"] == 5


def test_a_loss_that_is_not_finite_on_one_process_stops_both(found):
    assert found["broken_exit"] == [3, 3]
    assert "the loss or gradient of some process of step 5 is not finite" in found["broken"][0]
    assert "the loss of step 5 is not finite in the term 'tags', 'follow'" in found["broken"][1]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"accelerator": "cuda"}, "devices: 1 GPUs asked for, but this machine has 0"),
        ({"devices": 2}, "devices: 2 asked for, but this machine has 0 GPUs"),
        ({"precision": "16-mixed"}, 'precision: "16-mixed" needs a GPU'),
        ({"accelerator": "mps"}, 'accelerator: "mps" asked for'),
    ],
)
def test_devices_that_are_not_there(settings, message, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(ValueError, match=message):
        make_fabric(dataclasses.replace(RunConfig(), **settings))


def test_as_many_processes_as_were_started(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "4")
    with pytest.raises(ValueError, match="devices: 4 processes were started, expected 1 devices"):
        make_fabric(RunConfig())


@pytest.mark.parametrize(("batch", "accumulate", "world"), [(8, 1, 3), (4, 4, 2), (9, 2, 1)])
def test_a_batch_that_cannot_be_shared(batch, accumulate, world):
    run = RunConfig(batch=batch, accumulate=accumulate)
    with pytest.raises(ValueError, match=f"take a multiple of {accumulate * world}"):
        require_even_shares(run, world)
    require_even_shares(dataclasses.replace(run, batch=accumulate * world), world)
