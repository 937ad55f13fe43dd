"""A step that is not finite never reaches the weights, is named, and can be run again."""

import dataclasses

import pytest
import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.precision import MixedPrecision
from tiny_method import OPTIM, Tiny, data, tiny

from wsss_lab.config import OptimConfig, RunConfig
from wsss_lab.data.loader import StepSampler
from wsss_lab.methods.common.base import StepOutput
from wsss_lab.train import fit as fit_module
from wsss_lab.train import guard
from wsss_lab.train.fit import fit, in_memory
from wsss_lab.train.guard import batch_parts, replay

RUN = RunConfig(steps=12, batch=8, log_every=5, save_every=100, accelerator="cpu")
SKIP = dataclasses.replace(RUN, nonfinite="skip")


class Broken(Tiny):
    """One of its terms is not finite in some steps."""

    at = (7,)

    def training_step(self, batch, step):
        output = super().training_step(batch, step)
        if step in self.at:
            self.queue.fill_(float("nan"))
            bad = output.parts["follow"] / 0 * 0
            return StepOutput(output.loss + bad, {**output.parts, "follow": bad})
        return output


class SteepGradient(Tiny):
    """A finite loss whose gradient is infinite: the root of zero."""

    def training_step(self, batch, step):
        output = super().training_step(batch, step)
        root = (self.head.bias - self.head.bias.detach()).sum().abs().sqrt()
        return StepOutput(output.loss + root, output.parts)


def broken(cls=Broken, at=(7,)):
    tiny()  # seeds everything
    method = cls()
    method.at = at
    return method


def batches():
    images, tags = data()
    return in_memory(images, tags, StepSampler(32, 8))


@pytest.fixture(params=["at once", "late"])
def late(request, monkeypatch):
    """Both ways of looking; the late one is a GPU's, here with the CPU's fused optimisers."""
    if request.param == "late":
        for module in (fit_module, guard):
            monkeypatch.setattr(module, "looks_late", lambda fabric: True)
    return request.param == "late"


@pytest.mark.parametrize("optim", [OPTIM, OptimConfig(name="sgd", lr=0.1)], ids=["adamw", "sgd"])
@pytest.mark.parametrize("at", [0, 7])
def test_stop_leaves_everything_as_it_was_before_the_bad_step(late, optim, at):
    method = broken(at=(at,))
    before = []
    record = lambda step, output: before.append(  # noqa: E731
        {key: value.clone() for key, value in method.state_dict().items()}
    )
    start = {key: value.clone() for key, value in method.state_dict().items()}
    with pytest.raises(FloatingPointError, match=f"the loss of step {at} is not finite"):
        fit(method, batches(), RUN, optim, log=None, on_step=record)
    expected = before[at - 1] if at else start
    for key, value in method.state_dict().items():
        assert torch.equal(value, expected[key]), key


def test_the_message_names_term_step_and_images(late):
    with pytest.raises(FloatingPointError) as raised:
        fit(broken(), batches(), RUN, OPTIM, log=None)
    message = str(raised.value)
    assert "step 7 is not finite in the term 'follow'" in message
    assert "tags=0." in message
    names = [str(index) for index in StepSampler(32, 8)[7].tolist()]
    assert f"images {', '.join(names)}" in message


def test_skip_goes_on_as_if_the_update_had_not_been_asked_for(late):
    lines = []
    method = broken(at=(3, 7))
    history = fit(method, batches(), SKIP, OPTIM, log=lines.append)
    skipped = [line for line in lines if line.startswith("skipped")]
    assert [line.split("step ")[1][0] for line in skipped] == ["3", "7"]
    assert method.updates == RUN.steps - 2
    assert all(torch.isfinite(value).all() for value in method.state_dict().values())
    assert [entry["step"] for entry in history] == [0, 5, 10, 11]


def test_both_ways_of_looking_end_alike(monkeypatch):
    """Fused kernels round differently, so not bit for bit."""
    states = []
    for late in (False, True):
        monkeypatch.setattr(fit_module, "looks_late", lambda fabric, late=late: late)
        monkeypatch.setattr(guard, "looks_late", lambda fabric, late=late: late)
        method = broken(at=(3, 7))
        fit(method, batches(), SKIP, OPTIM, log=None)
        states.append(method.state_dict())
    for key in states[0]:
        torch.testing.assert_close(states[0][key], states[1][key], rtol=1e-4, atol=1e-5)


def test_a_step_that_is_logged_and_bad_is_not_logged(late):
    history = fit(broken(at=(5, 11)), batches(), SKIP, OPTIM, log=None)
    assert [entry["step"] for entry in history] == [0, 10]


def test_the_last_checkpoint_is_written_after_a_bad_last_step(late, tmp_path):
    run = dataclasses.replace(SKIP, save_every=4)
    method = broken(at=(7, 11))
    fit(method, batches(), run, OPTIM, log=None, out=tmp_path)
    newest = torch.load(tmp_path / "checkpoints" / "step_00000012.pt", weights_only=True)
    assert newest["step"] == 12
    for key, value in method.state_dict().items():
        assert torch.equal(value, newest["model"][key])


def test_a_gradient_that_is_not_finite_is_named(late):
    method = broken(SteepGradient)
    start = method.head.weight.clone()
    with pytest.raises(
        FloatingPointError, match=r"the gradient of step 0 is not finite .*norm=nan"
    ):
        fit(method, batches(), RUN, OPTIM, log=None)
    assert torch.equal(method.head.weight, start)


def test_skipping_ends_after_twenty_in_a_row(late):
    endless = dataclasses.replace(SKIP, steps=60)
    with pytest.raises(FloatingPointError, match="step 29 is not finite"):
        fit(broken(at=range(10, 60)), batches(), endless, OPTIM, log=None)


def test_the_reproducer_runs_the_step_again(late, tmp_path):
    run = dataclasses.replace(RUN, accumulate=2)
    method = broken()
    with pytest.raises(FloatingPointError, match=r"nonfinite_step7_rank0\.pt"):
        fit(method, batches(), run, OPTIM, log=None, out=tmp_path)
    fresh = broken(at=(7,))
    output = replay(tmp_path / "nonfinite_step7_rank0.pt", fresh)
    assert torch.isnan(output.loss)
    assert torch.isnan(output.parts["follow"])
    again = replay(tmp_path / "nonfinite_step7_rank0.pt", fresh)
    assert torch.equal(again.parts["tags"], output.parts["tags"])  # dropout and all
    for name, weight in method.named_parameters():
        assert torch.equal(weight, fresh.get_parameter(name))


def test_the_reproducer_of_another_method_is_refused(tmp_path):
    with pytest.raises(FloatingPointError):
        fit(broken(), batches(), RUN, OPTIM, log=None, out=tmp_path)
    with pytest.raises(ValueError, match="the reproducer is of Broken, got Tiny"):
        replay(tmp_path / "nonfinite_step7_rank0.pt", tiny())
    with pytest.raises(ValueError, match="does not fit Broken"):
        replay(tmp_path / "nonfinite_step7_rank0.pt", Broken(width=4))


def scaled():
    return Fabric(accelerator="cpu", devices=1, plugins=[MixedPrecision("16-mixed", "cpu")])


def test_an_overflow_that_the_loss_scaler_handles_is_no_error():
    class Overflows(Tiny):
        def training_step(self, batch, step):
            output = super().training_step(batch, step)
            scale = 3e34 if step == 2 else 1.0
            return StepOutput(output.loss * scale, output.parts)

    fabric, method, seen = scaled(), broken(Overflows), []
    keep = lambda step, output: seen.append(method.head.weight.detach().clone())  # noqa: E731
    fit(method, batches(), RUN, OPTIM, fabric=fabric, log=None, on_step=keep)
    assert torch.equal(seen[2], seen[1])
    assert not torch.equal(seen[3], seen[2])
    assert fabric.strategy.precision.scaler.get_scale() == 2**15


def test_a_bad_loss_under_the_loss_scaler_is_skipped():
    method = broken(at=(3, 7))
    fit(method, batches(), SKIP, OPTIM, fabric=scaled(), log=None)
    assert method.updates == RUN.steps - 2
    assert all(torch.isfinite(value).all() for value in method.state_dict().values())


def test_bf16_is_watched_too():
    run = dataclasses.replace(RUN, precision="bf16-mixed")
    with pytest.raises(FloatingPointError, match="step 7"):
        fit(broken(), batches(), run, OPTIM, log=None)


def test_parts_of_a_batch_are_interleaved_and_complete():
    batch = {"images": torch.arange(6), "names": list("abcdef"), "shared": torch.arange(4)}
    first, second = batch_parts(batch, 2)
    assert first["images"].tolist() == [0, 2, 4]
    assert second["names"] == ["b", "d", "f"]
    assert torch.equal(first["shared"], batch["shared"])
    assert batch_parts(batch, 1)[0] is batch
