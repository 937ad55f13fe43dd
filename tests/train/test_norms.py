"""Batch normalisation sees the whole batch: over processes, and where parts were asked for."""

import dataclasses
import re

import pytest
import torch
from test_resume import script
from tiny_method import OPTIM, Tiny, data, tiny
from torch import nn

from wsss_lab.config import RunConfig
from wsss_lab.data.loader import StepSampler
from wsss_lab.methods.cam_baseline import TagClassifier
from wsss_lab.models.backbones import build_backbone
from wsss_lab.train.conditions import other_shares, remarks
from wsss_lab.train.fit import fit, in_memory
from wsss_lab.train.norms import kept_on_host, kind_of_norm, parts_of

RUN = RunConfig(steps=4, batch=8, accelerator="cpu", log_every=0)
PARTS = dataclasses.replace(RUN, accumulate=2)


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    return script("synchronised_norms.py", tmp_path_factory.mktemp("norms"))


@pytest.mark.parametrize("shares", ["even", "uneven"])
@pytest.mark.parametrize("what", ["outputs", "images", "weights", "state", "eval"])
def test_two_processes_normalise_as_one(found, shares, what):
    assert found[shares][what] < 1e-5


def test_a_share_alone_would_normalise_otherwise(found):
    assert found["own_share"] > 0.1


class Normalised(Tiny):
    """`Tiny` with a batch norm, and a loss that is a mean over images."""

    mean_over_images = True

    def __init__(self):
        super().__init__(noise=False)
        self.body[1] = nn.BatchNorm1d(8)


def trained(run):
    torch.manual_seed(0)
    method = Normalised()
    images, tags = data()
    lines = []
    fit(method, in_memory(images, tags, StepSampler(32, 8)), run, OPTIM, log=lines.append)
    return method, lines


def test_a_network_with_batch_norm_gives_the_same_bytes_with_accumulated_parts():
    (whole, silent), (parts, lines) = trained(RUN), trained(PARTS)
    state = parts.state_dict()
    assert all(torch.equal(value, state[key]) for key, value in whole.state_dict().items())
    assert not silent
    assert len(lines) == 1
    assert "accumulate: 2 parts asked for, but the network normalises by its batch" in lines[0]


def test_only_batch_norms_that_use_the_batch_forbid_parts():
    method = Normalised().train()
    assert (parts_of(method, PARTS), kind_of_norm(method, 1)) == (1, "batch")
    assert kind_of_norm(method, 3) == "batch of all 3 processes"
    method.body[1].eval()
    assert (parts_of(method, PARTS), kind_of_norm(method, 1)) == (2, "frozen")
    assert (parts_of(tiny(), PARTS), kind_of_norm(tiny(), 1)) == (2, "none")


def test_a_loss_that_is_averaged_over_shares_is_named_at_the_start():
    (line,) = remarks(tiny().train(), PARTS)
    assert "the losses of Tiny are averaged over each share first" in line
    assert "those of 2 shares of 4 images" in line
    assert not remarks(tiny().train(), RUN)


BEFORE = dataclasses.asdict(RUN)


def test_devices_may_change_where_results_do_not():
    method = TagClassifier(build_backbone("toy_cnn"), 3).train()
    other = dataclasses.replace(RUN, devices=2, accumulate=2)
    assert other_shares(method, other, BEFORE) is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"devices": 2}, "run.devices was 1, now 2: that changes results, because the losses of"),
        ({"accumulate": 4}, "run.accumulate was 1, now 4.*go on with --run.accumulate 1"),
    ],
)
def test_devices_and_parts_may_not_change_where_results_do(changes, message):
    problem = other_shares(tiny().train(), dataclasses.replace(RUN, **changes), BEFORE)
    assert problem
    assert re.search(message, problem)


def test_devices_may_not_change_where_a_layer_draws():
    method = Normalised().train()
    method.body.append(nn.Dropout(0.1))
    other = dataclasses.replace(RUN, devices=2)
    assert "draws random numbers" in other_shares(method, other, BEFORE)
    method.body[-1].p = 0.0
    assert other_shares(method, other, BEFORE) is None


def test_what_waits_on_the_host_gives_the_same_gradients():
    class Elsewhere:
        device = torch.device("meta")

    grads = []
    for on in (False, True):
        x = torch.arange(4.0, requires_grad=True)
        with kept_on_host(Elsewhere(), on):
            (x.exp() * x).sum().backward()
        grads.append(x.grad)
    assert torch.equal(*grads)
