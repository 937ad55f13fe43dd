"""The training loop, to be read from top to bottom.

Lightning Fabric places the model, chooses the arithmetic and scales the loss where it has to; all
that happens in a step is visible here.
"""

import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric

from wsss_lab.config import OptimConfig, RunConfig
from wsss_lab.engine.optim import build_optimizer, lr_factor, set_learning_rate
from wsss_lab.methods.base import Batch, Method, StepOutput

History = list[dict[str, float]]


def fit(
    method: Method,
    batches: Callable[[int], Batch],
    run: RunConfig,
    optim: OptimConfig,
    *,
    fabric: Fabric | None = None,
    out: Path | None = None,
    resume: bool = True,
    log: Callable[[str], None] | None = print,
    on_step: Callable[[int, StepOutput], None] | None = None,
) -> History:
    """Train a method for `run.steps` steps.

    Args:
        method: a module with `training_step(batch, step)` and `param_groups(lr, head_lr,
            weight_decay)`; see `wsss_lab.methods.base.Method`. Trained in place.
        batches: step number -> batch; a function of the step, so that any step can be repeated.
        run: length, batch, precision and devices.
        optim: optimiser and learning rate.
        fabric: where to run; made from `run.precision` if not given.
        out: folder for checkpoints and log.csv; None writes nothing.
        resume: go on from the newest sound checkpoint in `out`.
        on_step: called with the step and its output after every update.
        log: gets one line of text every `run.log_every` steps; None for silence.

    Returns:
        One entry per logged step: step, loss, its parts, learning rate factor and images/s.

    Raises:
        FloatingPointError: if the loss of a logged step is not finite; names step and parts.
            Steps between two log lines are not looked at, because that would wait for the device.
    """
    fabric = fabric or Fabric(accelerator="auto", devices=1, precision=run.precision)
    head_lr = optim.lr * optim.head_lr_factor
    groups = method.param_groups(optim.lr, head_lr, optim.weight_decay)
    optimizer = build_optimizer(groups, optim)
    method.to(memory_format=torch.channels_last)  # a fifth faster on CPUs, twice on GPUs with bf16
    model, optimizer = fabric.setup(method, optimizer)
    model.mark_forward_method("training_step")
    model.train()

    history: History = []
    seen, clock = 0, time.perf_counter()
    for step in range(run.steps):
        factor = lr_factor(step, run.steps, optim)
        set_learning_rate(optimizer, factor)

        batch = fabric.to_device(batches(step))
        output = model.training_step(batch, step)
        fabric.backward(output.loss)
        fabric.clip_gradients(model, optimizer, max_norm=optim.clip, error_if_nonfinite=False)
        optimizer.step()
        optimizer.zero_grad()
        seen += len(batch["images"])

        # reading a number waits for the device: only here, every log_every steps
        if run.log_every and (step % run.log_every == 0 or step == run.steps - 1):
            entry = _entry(step, output.loss, output.parts, factor)
            entry["images_per_s"] = seen / (time.perf_counter() - clock)
            history.append(entry)
            _require_finite(entry, step)
            if log:
                log(_line(entry, run.steps))
            seen, clock = 0, time.perf_counter()
    method.eval()
    return history


def _entry(step: int, loss: torch.Tensor, parts: dict[str, torch.Tensor], factor: float) -> dict:
    numbers = {name: float(value.detach()) for name, value in parts.items()}
    return {"step": step, "loss": float(loss.detach()), **numbers, "lr_factor": factor}


def _require_finite(entry: dict[str, float], step: int) -> None:
    if not torch.isfinite(torch.tensor(entry["loss"])):
        parts = ", ".join(f"{k}={v:.4g}" for k, v in entry.items() if k != "step")
        raise FloatingPointError(
            f"the loss of step {step} is not finite ({parts}); lower the learning rate or look at "
            "the batch of this step: batches(step) gives it again"
        )


def _line(entry: dict[str, float], steps: int) -> str:
    parts = "  ".join(
        f"{name} {value:.4f}"
        for name, value in entry.items()
        if name not in {"step", "images_per_s", "lr_factor"}
    )
    return f"step {entry['step'] + 1:>5}/{steps}  {parts}  {entry['images_per_s']:.0f} images/s"


def in_memory(
    images: torch.Tensor,
    tags: torch.Tensor,
    order: Any,
    *,
    masks: torch.Tensor | None = None,
    transform: Callable[..., Any] | None = None,
    seed: int = 0,
) -> Callable[[int], Batch]:
    """Batches of a data set that lies in memory as stacked tensors.

    Args:
        images: uint8 (n, 3, h, w).
        tags: float (n, k).
        order: `order[step]` gives the image indices of a step, e.g. a `StepSampler`.
        masks: optional int (n, h, w).
        transform: `transform(images, masks, generator=g)` on images in [0, 1], e.g.
            `wsss_lab.data.augment.augment`; None leaves them alone.
        seed: seed of the transform; step `t` draws from its own stream `(seed, t)`.

    Returns:
        The function `fit` asks for.
    """

    def batch(step: int) -> Batch:
        chosen = order[step]
        pixels = images[chosen].float() / 255
        truth = None if masks is None else masks[chosen].long()
        if transform is not None:
            generator = torch.Generator().manual_seed(seed * 1_000_003 + step)
            pixels, truth = transform(pixels, truth, generator=generator)
        pixels = pixels.contiguous(memory_format=torch.channels_last)
        made: Batch = {"images": pixels, "tags": tags[chosen]}
        if truth is not None:
            made["masks"] = truth
        return made

    return batch


def image_batches(
    images: torch.Tensor, size: int, device: torch.device | str | None = None
) -> Iterable[torch.Tensor]:
    """Cut stacked uint8 images (n, 3, h, w) into float batches in [0, 1] for inference.

    Args:
        images: on the CPU.
        size: images per batch.
        device: where the batches go; None leaves them.
    """
    for start in range(0, len(images), size):
        yield images[start : start + size].to(device).float() / 255
