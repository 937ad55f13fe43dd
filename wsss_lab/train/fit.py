"""The training loop, to be read from top to bottom.

Lightning Fabric places the model, chooses the arithmetic and scales the loss where it has to; all
that happens in a step is visible here.
"""

import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from wsss_lab.config import OptimConfig, RunConfig
from wsss_lab.methods.common.base import Batch, Method, StepOutput
from wsss_lab.models.state import require_finite
from wsss_lab.progress import in_terminal
from wsss_lab.train import hang
from wsss_lab.train.checkpoint import CheckpointError, require_same_run
from wsss_lab.train.conditions import other_shares, remarks
from wsss_lab.train.devices import forks, make_fabric, process_share, require_even_shares
from wsss_lab.train.fabric import Fabric
from wsss_lab.train.guard import Guard, batch_parts, looks_late
from wsss_lab.train.log import History, Journal, progress_bar, steadfast
from wsss_lab.train.memory import kept_memory
from wsss_lab.train.norms import kept_on_host, parts_of, synchronise
from wsss_lab.train.optim import build_optimizer, lr_factor, set_learning_rate
from wsss_lab.train.resume import find_checkpoint, restore_state, save_state
from wsss_lab.train.stop import Terminated, must_stop

Log = Callable[[str], None]


@kept_memory()
def fit(
    method: Method,
    batches: Callable[[int], Batch],
    run: RunConfig,
    optim: OptimConfig,
    *,
    fabric: Fabric | None = None,
    out: Path | None = None,
    resume: bool = True,
    log: Log | None = print,
    on_step: Callable[[int, StepOutput], None] | None = None,
) -> History:
    """Train a method for `run.steps` steps.

    With a folder `out`, a killed run goes on from its newest checkpoint and ends with the same
    weights, bit for bit on a CPU. Freed memory is kept meanwhile, see `wsss_lab.train.memory`.

    Args:
        method: a module with `training_step(batch, step)` and `param_groups(lr, head_lr,
            weight_decay)`; see `wsss_lab.methods.common.base.Method`. Trained in place. All its
            state must be parameters and buffers.
        batches: step -> this process's share of the batch (see `wsss_lab.train.devices`); a
            function of the step, so that any step can be repeated.
        run: length, batch, arithmetic, devices, what to log and to save.
        optim: optimiser and learning rate.
        fabric: launched already; made from `run` if not given.
        out: folder for `checkpoints/`, `log.csv` and what the guard saves; None writes nothing.
        resume: go on from the newest sound checkpoint in `out`; if False, one there is an error.
        log: gets one line of text every `run.log_every` steps; None for silence.
        on_step: called with step and output after every update. Loss and parts are those of this
            process's whole share of the batch, detached: means over the accumulated parts; panels
            are those of the last part. On a GPU, steps that follow one with a loss that is not
            finite may be called again.

    Returns:
        One entry per logged step: step, loss, its parts, learning rate factor and images/s.

    Raises:
        FloatingPointError: a loss or gradient that is not finite, if `run.nonfinite` is "stop";
            names step, terms and images. See `wsss_lab.train.guard`. Or weights that are not finite
            where they would be saved; names the tensors.
        ValueError: devices that are not there, a batch that cannot be shared equally, a checkpoint
            of another run (`CheckpointError`).
        OutputError: a folder that cannot be written.
        Terminated: SIGTERM came; a checkpoint was written. See `wsss_lab.train.stop`.
    """
    if fabric is None:
        fabric = make_fabric(run)
        if forks(fabric):
            return _fit_in_forks(fabric, method, batches, run, optim, out, resume, log, on_step)
        fabric.launch()
    require_even_shares(run, fabric.world_size)
    log = steadfast(log) if log and fabric.is_global_zero else None
    saved = find_checkpoint(fabric, out, resume, log)
    if saved:
        require_same_run(saved, method, run, optim)
        if problem := other_shares(method.train(), run, saved["config"]["run"]):
            raise CheckpointError(problem)

    model, optimizer = _set_up(fabric, method, run, optim, saved)
    parts = parts_of(method, run)
    guard = Guard(method, optimizer.optimizer, fabric, run, batches, out, log)
    step, history = (saved["step"], saved["history"]) if saved else (0, [])
    for remark in remarks(method, run) if log else ():
        log(remark)  # type: ignore[misc]
    journal = Journal(run, optim.lr, out if fabric.is_global_zero else None, log, history)
    shown = fabric.is_global_zero and (run.progress or (bool(log) and in_terminal()))
    bar = progress_bar(run, step, shown)

    while step < run.steps:
        factor = lr_factor(step, run.steps, optim)
        set_learning_rate(optimizer, factor)
        batch = fabric.to_device(batches(step))
        _require_share(batch, run, fabric)
        guard.open(step)
        hang.mark(step)

        # forward and backward, in parts if memory is short; processes meet in the last part
        found = []
        for number, part in enumerate(batch_parts(batch, parts), 1):
            waits = fabric.no_backward_sync(model, enabled=number < parts)
            with waits, kept_on_host(fabric, parts < run.accumulate):
                with fabric.autocast():
                    output = model.training_step(part, step)
                fabric.backward(output.loss / parts)
            found.append(_detached(output))
        numbers = _means(found)

        # update, unless loss or gradient is not finite
        most = optim.clip or torch.inf
        norm = fabric.clip_gradients(model, optimizer, max_norm=most, error_if_nonfinite=False)
        if guard.allows_update(numbers, cast(Tensor, norm)):
            optimizer.step()
            method.after_step(step)
        guard.close()
        optimizer.zero_grad()

        # reading a number waits for the device: every step on a CPU, else only when it is due
        last = step == run.steps - 1
        log_due = bool(run.log_every) and (step % run.log_every == 0 or last)
        save_due = bool(out and run.save_every) and not last and (step + 1) % run.save_every == 0
        due = log_due or save_due or last or guard.must_look()
        stop = must_stop(fabric, due)
        if due or stop:
            bad = guard.first_bad()
            if bad is not None:
                step = guard.resolve(bad)
                continue

        journal.count(run.batch)
        if on_step:
            on_step(step, _of_all_parts(numbers, output))
            model.train()
        if log_due:
            journal.enter(step, _as_floats(fabric, numbers), factor)
        step += 1
        bar.update(step - bar.n)
        if last or (out and (save_due or stop)):
            require_finite(method.state_dict(), f"weights after step {step - 1}")
        if (save_due or stop) and out:
            save_state(step, method, optimizer.optimizer, fabric, run, optim, out, journal.history)
        if stop:
            journal.close()
            fabric.barrier()  # none ends before the first has written
            kept = "its checkpoint is written" if out else "there is no folder to keep it in"
            raise Terminated(f"ended by SIGTERM after step {step} of {run.steps}; {kept}")
    if out and (saved is None or saved["step"] < run.steps):
        save_state(step, method, optimizer.optimizer, fabric, run, optim, out, journal.history)
    bar.close()
    journal.close()
    method.eval()
    return journal.history


def _set_up(
    fabric: Fabric,
    method: Method,
    run: RunConfig,
    optim: OptimConfig,
    saved: dict[str, Any] | None,
) -> tuple[Any, Any]:
    """Model and optimiser on their device, wrapped by Fabric, in the state of a checkpoint."""
    if fabric.world_size > 1:
        synchronise(method)
    # channels_last: a fifth faster on CPUs, twice on GPUs with bf16
    method.to(fabric.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    groups = method.param_groups(optim.lr, optim.lr * optim.head_lr_factor, optim.weight_decay)
    built = build_optimizer(groups, optim, fused=looks_late(fabric))
    model, optimizer = fabric.setup(method, built)
    model.mark_forward_method("training_step")
    model.train()
    if saved:
        restore_state(saved, method, optimizer.optimizer, fabric)
    elif fabric.global_rank:  # the first process draws what a single one would
        torch.manual_seed(run.seed + 1_000_003 * fabric.global_rank)
    return model, optimizer


def _require_share(batch: Batch, run: RunConfig, fabric: Fabric) -> None:
    share = run.batch // fabric.world_size
    if len(batch["images"]) != share:
        raise ValueError(
            f"batches: expected {share} images per step and process ({run.batch} over "
            f"{fabric.world_size}), got {len(batch['images'])}; make them with run.batch"
        )


def _detached(output: StepOutput) -> dict[str, Tensor]:
    """Loss and terms without the graph, which would keep a part's memory."""
    return {name: value.detach() for name, value in {"loss": output.loss, **output.parts}.items()}


def _means(found: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Loss and terms over the accumulated parts of a batch, on the device."""
    return {name: torch.stack([each[name] for each in found]).mean() for name in found[0]}


def _of_all_parts(numbers: dict[str, Tensor], last: StepOutput) -> StepOutput:
    """Loss and terms of all accumulated parts, with the panels of the last one."""
    parts = {name: numbers[name] for name in last.parts}
    return StepOutput(numbers["loss"], parts, last.panels)


def _as_floats(fabric: Fabric, numbers: dict[str, Tensor]) -> dict[str, float]:
    """Loss and terms averaged over the processes; waits for the device."""
    values = torch.stack([value.float() for value in numbers.values()])
    if fabric.world_size > 1:
        values = cast(Tensor, fabric.all_reduce(values, reduce_op="mean"))
    return dict(zip(numbers, values.tolist(), strict=True))


def _fit_in_forks(fabric: Fabric, method: Method, *arguments: Any) -> History:
    """In a notebook: train in forked processes and bring weights and history back by a file."""
    batches, run, optim, out, resume, log, on_step = arguments
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "result.pt"

        def train(fabric: Fabric) -> None:
            options = {"fabric": fabric, "out": out, "resume": resume, "log": log}
            history = fit(method, batches, run, optim, on_step=on_step, **options)
            if fabric.is_global_zero:
                torch.save({"history": history, "model": method.state_dict()}, result)

        fabric.launch(train)
        trained = torch.load(result, map_location="cpu", weights_only=True)
    method.load_state_dict(trained["model"])
    method.eval()
    return trained["history"]


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
        The function `fit` asks for. Several processes each get their share of the one batch, which
        is drawn as a whole, so that their number changes nothing; names are image indices.
    """

    def batch(step: int) -> Batch:
        chosen = torch.as_tensor(order[step])
        pixels = images[chosen].float() / 255
        truth = None if masks is None else masks[chosen].long()
        if transform is not None:
            generator = torch.Generator().manual_seed(seed * 1_000_003 + step)
            pixels, truth = transform(pixels, truth, generator=generator)
        share = process_share()
        pixels = pixels[share].contiguous(memory_format=torch.channels_last)
        names = [str(index) for index in chosen[share].tolist()]
        made: Batch = {"images": pixels, "tags": tags[chosen][share], "names": names}
        if truth is not None:
            made["masks"] = truth[share]
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
