import dataclasses

import pytest
import torch
from torch import nn

from wsss_lab.config import OptimConfig, RunConfig
from wsss_lab.data.augment import augment
from wsss_lab.data.loader import StepSampler
from wsss_lab.losses import tag_loss
from wsss_lab.methods.common.base import Method, StepOutput, split_decay
from wsss_lab.train.devices import make_fabric, require_devices
from wsss_lab.train.fit import fit, in_memory

CONFIG = RunConfig(steps=40, batch=8, log_every=10)
OPTIM = OptimConfig(lr=2e-2)


class Colours(Method):
    """Tags can be read off the mean colour, so a linear layer must learn them."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(3, 2)

    def training_step(self, batch, step):
        loss = tag_loss(self.head(batch["images"].mean((2, 3))), batch["tags"])
        return StepOutput(loss, {"tags": loss})

    def param_groups(self, lr, head_lr, weight_decay):
        return split_decay(self, head_lr, weight_decay)


def data():
    g = torch.Generator().manual_seed(0)
    tags = torch.randint(0, 2, (64, 2), generator=g).float()
    images = torch.zeros(64, 3, 8, 8, dtype=torch.uint8)
    images[:, :2] = (tags * 200).to(torch.uint8)[:, :, None, None]
    return images, tags


def run(config=CONFIG, optim=OPTIM, **options):
    torch.manual_seed(config.seed)
    method = Colours()
    images, tags = data()
    batches = in_memory(images, tags, StepSampler(64, config.batch, config.seed), **options)
    return method, fit(method, batches, config, optim, log=None)


def test_it_learns():
    _, history = run(dataclasses.replace(CONFIG, steps=80), OptimConfig(lr=0.1))
    assert history[-1]["loss"] < 0.5 * history[0]["loss"]
    assert [entry["step"] for entry in history] == [0, 10, 20, 30, 40, 50, 60, 70, 79]


def test_two_runs_are_equal_bit_for_bit():
    first, _ = run(transform=augment)
    second, _ = run(transform=augment)
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_loss_that_is_not_finite_is_named():
    class Broken(Colours):
        def training_step(self, batch, step):
            output = super().training_step(batch, step)
            return StepOutput(output.loss * float("nan"), output.parts)

    images, tags = data()
    batches = in_memory(images, tags, StepSampler(64, 8))
    with pytest.raises(FloatingPointError, match="step 0 is not finite"):
        fit(Broken(), batches, CONFIG, OPTIM, log=None)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("steps", 0, "steps: expected at least 1"),
        ("batch", 0, "batch: expected at least 1"),
        ("keep", 0, "keep: expected at least 1"),
        ("save_every", -1, "save_every: expected at least 0"),
        ("precision", "bf16", "precision: expected one of 32-true, bf16-mixed, 16-mixed"),
        ("accelerator", "gpu", "accelerator: expected one of auto, cpu, cuda, mps, got 'gpu'"),
        ("nonfinite", "ignore", "nonfinite: expected one of stop, skip"),
    ],
)
def test_bad_settings(field, value, message):
    with pytest.raises(ValueError, match=message):
        RunConfig(**{field: value})


def test_log_lines_name_step_loss_and_speed():
    lines = []
    images, tags = data()
    fit(Colours(), in_memory(images, tags, StepSampler(64, 8)), CONFIG, OPTIM, log=lines.append)
    assert len(lines) == 5
    assert "10/40" not in lines[0]
    assert lines[0].startswith("step     1/40  loss ")
    assert "images/s" in lines[0]


def test_accumulated_parts_give_the_gradient_of_the_whole_batch():
    whole, _ = run()
    parts, _ = run(dataclasses.replace(CONFIG, accumulate=4))
    for a, b in zip(whole.parameters(), parts.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_gradients_are_clipped():
    """A plain SGD step of rate 1 moves the weights by the gradient, at most `clip` long."""
    moved = {}
    for clip in (0.0, 1e-3):
        optim = OptimConfig("sgd", 1.0, 1.0, 0.0, schedule="constant", warmup=0, clip=clip)
        torch.manual_seed(0)
        method = Colours()
        start = torch.cat([p.detach().flatten().clone() for p in method.parameters()])
        images, tags = data()
        batches = in_memory(images, tags, StepSampler(64, 8))
        fit(method, batches, dataclasses.replace(CONFIG, steps=1), optim, log=None)
        end = torch.cat([p.detach().flatten() for p in method.parameters()])
        moved[clip] = (end - start).norm().item()
    assert moved[1e-3] == pytest.approx(1e-3, rel=1e-3)
    assert moved[0.0] > 0.05


def test_bf16_learns_too():
    _, history = run(dataclasses.replace(CONFIG, precision="bf16-mixed"), OptimConfig(lr=0.1))
    assert history[-1]["loss"] < 0.7 * history[0]["loss"]


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_the_step_computes_in_the_precision_asked_for(precision):
    class Watched(Colours):
        def training_step(self, batch, step):
            found.append((self.head(batch["images"].mean((2, 3))).dtype, batch["images"].dtype))
            return super().training_step(batch, step)

    found = []
    config = dataclasses.replace(CONFIG, steps=2, precision=precision)
    images, tags = data()
    fit(Watched(), in_memory(images, tags, StepSampler(64, 8)), config, OptimConfig(), log=None)
    wanted = torch.bfloat16 if precision == "bf16-mixed" else torch.float32
    assert found == [(wanted, torch.float32)] * 2


def test_several_processes_do_not_round_the_batch():
    rounding = make_fabric(dataclasses.replace(CONFIG, precision="bf16-mixed")).strategy.precision
    batch = {"images": torch.rand(2)}
    assert rounding.convert_input((batch, 3)) == (batch, 3)
    assert rounding.convert_input(batch)["images"].dtype == torch.float32


def test_bf16_needs_a_gpu_that_has_it(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: False)
    with pytest.raises(ValueError, match=r"Ampere.*--run.precision 16-mixed"):
        require_devices(RunConfig(precision="bf16-mixed"))
    require_devices(RunConfig(precision="bf16-mixed", accelerator="cpu"))


def test_on_step_sees_every_step_after_its_update():
    images, tags = data()
    method, seen = Colours(), []

    def look(step, output):
        seen.append((step, method.head.weight.detach().clone()))
        method.eval()

    batches = in_memory(images, tags, StepSampler(64, 8))
    fit(method, batches, CONFIG, OPTIM, log=None, on_step=look)
    assert [step for step, _ in seen] == list(range(40))
    assert not torch.equal(seen[0][1], seen[1][1])
    assert torch.equal(seen[-1][1], method.head.weight)
    assert not method.training


def test_on_step_sees_the_whole_batch_under_accumulation():
    """Loss and terms are those of all parts, as in the log; panels are the last part's."""
    images, tags = data()
    batches = in_memory(images, tags, StepSampler(64, 8))
    seen = {}

    class Shown(Colours):
        def training_step(self, batch, step):
            output = super().training_step(batch, step)
            return StepOutput(output.loss, output.parts, {"images": batch["images"]})

    def trained(accumulate):
        torch.manual_seed(0)
        outputs = seen[accumulate] = []
        config = dataclasses.replace(CONFIG, accumulate=accumulate, log_every=1, steps=5)
        look = lambda step, output: outputs.append(output)  # noqa: E731
        return fit(Shown(), batches, config, OPTIM, log=None, on_step=look)

    history = trained(4)
    trained(1)
    for entry, parts, whole in zip(history, seen[4], seen[1], strict=True):
        assert float(parts.loss) == pytest.approx(entry["loss"])
        assert float(parts.parts["tags"]) == pytest.approx(entry["tags"])
        torch.testing.assert_close(parts.loss, whole.loss, rtol=1e-5, atol=1e-6)
        assert not parts.loss.requires_grad
        assert torch.equal(parts.panels["images"], whole.panels["images"][3::4])


def test_batches_of_another_size_than_the_run_are_refused():
    images, tags = data()
    batches = in_memory(images, tags, StepSampler(64, 4))
    with pytest.raises(ValueError, match="batches: expected 8 images per step and process"):
        fit(Colours(), batches, CONFIG, OPTIM, log=None)


def test_in_memory_batches_name_their_images():
    images, tags = data()
    batch = in_memory(images, tags, StepSampler(64, 4))(3)
    assert batch["names"] == [str(i) for i in StepSampler(64, 4)[3].tolist()]
    listed = in_memory(images, tags, [[5, 1]])(0)
    assert torch.equal(listed["tags"], tags[[5, 1]])
    assert listed["names"] == ["5", "1"]
