"""A step whose loss or gradient is not finite never reaches the weights, and is named.

On a CPU every step is looked at before its update. On a GPU looking means waiting, so it is done at
log lines and checkpoints only, and until then the device itself keeps watch: a flag that stays up
from the first bad step on makes the (fused) optimiser leave the weights alone, and the rest of the
method's state is put back after every step. When the flag is found, the method is therefore exactly
as it was before the bad step; training stops there, or goes on with the step after it.

With 16-mixed a gradient that overflows is normal: the loss scaler skips that update and lowers its
scale. Only the loss is watched then, every step, because the scaler waits for the device anyway.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from wsss_lab.config import RunConfig, write_atomically
from wsss_lab.methods.common.base import Batch, Method, StepOutput
from wsss_lab.models.state import read_file
from wsss_lab.train.checkpoint import random_state, require_same_shapes, set_random_state
from wsss_lab.train.fabric import Fabric
from wsss_lab.train.norms import parts_of

PATIENCE = 20
"""So many bad steps in a row end a run that may skip them."""
AHEAD = 50
"""A GPU is looked at after so many steps at the latest."""


@dataclass
class Watched:
    """Record of a step until it is checked; nothing here waits for the device."""

    step: int
    rng: dict[str, Any]
    bad: Tensor
    numbers: dict[str, Tensor]


def looks_late(fabric: Fabric) -> bool:
    """Return whether a check at every step costs time: on a GPU, unless a loss scaler waits."""
    return fabric.device.type == "cuda" and _scaler(fabric) is None


class Guard:
    """Watches the steps of one run.

    Args:
        method: its state (buffers and parameters that are not trained) is put back after a bad
            step. Entries must keep their shapes.
        optimizer: fused, if the guard looks late.
        fabric: device, arithmetic and processes.
        run: uses `nonfinite` and `accumulate`.
        batches: gives the batch of a bad step again.
        out: folder for reproducers; None keeps none.
        log: told about skipped steps.
    """

    def __init__(
        self,
        method: Method,
        optimizer: torch.optim.Optimizer,
        fabric: Fabric,
        run: RunConfig,
        batches: Callable[[int], Batch],
        out: Path | None = None,
        log: Callable[[str], None] | None = None,
    ):
        self.method, self.optimizer, self.fabric, self.run = method, optimizer, fabric, run
        self.batches, self.out, self.log = batches, out, log
        self.late = looks_late(fabric)
        self.pending: list[Watched] = []
        self.bad = torch.zeros((), device=fabric.device)
        self.skipped: list[int] = []

    def open(self, step: int) -> None:
        """Before a step: note the random generators and copy the state that is not trained."""
        self.step, self.rng = step, random_state(self.fabric.device)
        self.saved = [value.clone() for value in self._state()]

    @torch.no_grad()
    def allows_update(self, numbers: dict[str, Tensor], norm: Tensor) -> bool:
        """After the backward pass: whether to call the optimiser.

        Where the guard looks late the answer is always yes, and the device decides.

        Args:
            numbers: `loss` and its terms, on the device.
            norm: of the gradient.
        """
        finite = torch.isfinite(numbers["loss"])
        if _scaler(self.fabric) is None:
            finite = finite & torch.isfinite(norm)
        bad = (~finite).float()
        if self.fabric.world_size > 1:
            bad = self.fabric.all_reduce(bad, reduce_op="sum").clamp(max=1)  # type: ignore[union-attr]
        self.bad = torch.maximum(self.bad, bad)
        numbers = {**numbers, "gradient norm": norm}
        self.pending.append(Watched(self.step, self.rng, self.bad, numbers))
        if self.late:
            self.optimizer.found_inf = self.bad  # type: ignore[attr-defined]
            return True
        sound = not bool(self.bad)
        if not sound and (scaler := _scaler(self.fabric)):
            scaler.update()
        return sound

    @torch.no_grad()
    def close(self) -> None:
        """After the update: put the state back if a step was bad."""
        if self.late:
            now = self._state()
            bad = self.bad > 0
            kept = [torch.where(bad, old, new) for old, new in zip(self.saved, now, strict=True)]
            _copy(now, kept)
        elif self.pending and bool(self.bad):
            _copy(self._state(), self.saved)

    def must_look(self) -> bool:
        """Whether it is time to look, whatever the log does."""
        return not self.late or len(self.pending) >= AHEAD

    def first_bad(self) -> Watched | None:
        """Look, i.e. wait for the device: the first bad step since the last look."""
        pending, self.pending = self.pending, []
        if not pending:
            return None
        flags = torch.stack([watched.bad for watched in pending]).tolist()
        if not flags[-1]:
            self.skipped = []
            return None
        first = flags.index(1.0)
        if first + 1 < len(pending):  # later steps changed nothing but the generators
            set_random_state(pending[first + 1].rng, self.fabric.device)
        self.bad = torch.zeros_like(self.bad)
        return pending[first]

    def resolve(self, bad: Watched) -> int:
        """Report a bad step and keep its reproducer.

        Returns:
            The step to go on with.

        Raises:
            FloatingPointError: if the run is to stop, or has skipped `PATIENCE` steps in a row.
        """
        batch = self.batches(bad.step)
        message = describe(bad, batch, self.fabric.world_size)
        if self.out:
            name = f"nonfinite_step{bad.step}_rank{self.fabric.global_rank}.pt"
            self._save(self.out / name, bad, batch)
            message += f"; wsss_lab.train.guard.replay runs it again from {self.out / name}"
        self.skipped.append(bad.step)
        if self.run.nonfinite == "stop" or len(self.skipped) >= PATIENCE:
            raise FloatingPointError(
                f"{message}. Lower the learning rate or look at these images: batches({bad.step})"
            )
        if self.log:
            self.log(f"skipped: {message}")
        return bad.step + 1

    def _state(self) -> list[Tensor]:
        frozen = [weight.data for weight in self.method.parameters() if not weight.requires_grad]
        return [*self.method.buffers(), *frozen]

    def _save(self, path: Path, bad: Watched, batch: Batch) -> None:
        content = {
            "format": 1,
            "method": type(self.method).__name__,
            "step": bad.step,
            "accumulate": parts_of(self.method, self.run),
            "precision": self.run.precision,
            "batch": dict(batch),
            "model": self.method.state_dict(),
            "rng": bad.rng,
        }
        write_atomically(path, lambda file: torch.save(content, file))


def describe(bad: Watched, batch: Batch, world: int = 1) -> str:
    """One sentence: step, the terms that are not finite, the images.

    Gradients are means over `world` processes, so one that is not finite is so on all of them.
    """
    values = {name: float(value) for name, value in bad.numbers.items()}
    broken = [name for name, value in values.items() if value - value != 0]  # inf and nan
    terms = [name for name in broken if name not in {"loss", "gradient norm"}]
    shown = ", ".join(f"{name}={value:.4g}" for name, value in values.items())
    what = "loss" if "loss" in broken else "gradient"
    if world > 1 and "loss" not in broken:
        what = "loss or gradient of some process"
    named = f" in the term {', '.join(map(repr, terms))}" if terms else ""
    images = batch.get("names") or []
    listed = f"; images {', '.join(images[:8])}{' ...' if len(images) > 8 else ''}"
    return f"the {what} of step {bad.step} is not finite{named} ({shown}){listed if images else ''}"


def replay(path: Path | str, method: Method) -> StepOutput:
    """Run a bad step again: same weights, state, batch and random numbers.

    Args:
        path: reproducer that `fit` wrote: `nonfinite_step7_rank0.pt`.
        method: built as in the run; its state is overwritten. Stays on its device.

    Returns:
        Output of the first accumulated part whose loss is not finite, else of the last, with its
        graph, so that `backward()` works.

    Raises:
        ValueError: if the reproducer is of another method.
    """
    content = read_file(Path(path))
    wanted = {"method", "step", "accumulate", "precision", "batch", "model", "rng"}
    if not isinstance(content, dict) or not wanted <= content.keys():
        raise ValueError(f"path: {path} is no reproducer of a step that was not finite")
    if content["method"] != type(method).__name__:
        raise ValueError(
            f"method: the reproducer is of {content['method']}, got {type(method).__name__}"
        )
    require_same_shapes(content["model"], method)
    method.load_state_dict(content["model"])
    device = next(method.parameters()).device
    batch = {k: v.to(device) if isinstance(v, Tensor) else v for k, v in content["batch"].items()}
    set_random_state(content["rng"], device)
    method.train()
    dtype = torch.float16 if content["precision"] == "16-mixed" else torch.bfloat16
    for part in batch_parts(batch, content["accumulate"]):  # type: ignore[arg-type]
        with torch.autocast(device.type, dtype, enabled="mixed" in content["precision"]):
            output = method.training_step(part, content["step"])
        if not torch.isfinite(output.loss):
            break
    return output


def batch_parts(batch: Batch, count: int) -> list[Batch]:
    """Cut a batch: part `m` gets the images at positions `m::count`."""
    if count == 1:
        return [batch]
    size = len(batch["images"])

    def cut(value: Any, m: int) -> Any:
        whole = isinstance(value, Tensor | list | tuple) and len(value) == size
        return value[m::count] if whole else value

    return [{key: cut(value, m) for key, value in batch.items()} for m in range(count)]  # type: ignore[misc]


def _copy(targets: list[Tensor], sources: list[Tensor]) -> None:
    if targets:
        torch._foreach_copy_(targets, sources)


def _scaler(fabric: Fabric) -> Any:
    return getattr(fabric.strategy.precision, "scaler", None)
