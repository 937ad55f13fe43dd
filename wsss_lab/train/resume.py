"""Where a training loop goes on: its checkpoint found, restored and saved by all processes."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from wsss_lab.config import OptimConfig, RunConfig
from wsss_lab.methods.common.base import Method
from wsss_lab.train.checkpoint import (
    CheckpointError,
    checkpoint_files,
    describe_run,
    load_optimizer,
    newest_checkpoint,
    random_state,
    save_checkpoint,
    set_random_state,
)
from wsss_lab.train.fabric import Fabric
from wsss_lab.train.log import History


def find_checkpoint(
    fabric: Fabric, out: Path | None, resume: bool, log: Callable[[str], None] | None
) -> dict[str, Any] | None:
    """Find the newest sound checkpoint, in the first process; all others take the same one.

    Args:
        fabric: launched.
        out: folder of the training; None has no checkpoints.
        resume: whether there may be one.
        log: gets a line if there is one, and one for each that is damaged.

    Returns:
        The content of the checkpoint, or None.

    Raises:
        CheckpointError: there is one, and `resume` is off.
    """
    if out is None:
        return None
    if not resume and (there := checkpoint_files(out)):
        raise CheckpointError(
            f"{out}: holds a run already ({there[-1].name}); resume it or choose another folder"
        )
    found = newest_checkpoint(out, log) if fabric.is_global_zero else None
    found = fabric.broadcast(found) if fabric.world_size > 1 else found
    if found and log:
        log(f"goes on after step {found['step']} of {out}")
    return found


def restore_state(
    saved: dict[str, Any], method: Method, optimizer: torch.optim.Optimizer, fabric: Fabric
) -> None:
    """Bring back everything but the schedule and the data, which are functions of the step.

    Raises:
        CheckpointError: the checkpoint is of another network or optimiser.
    """
    try:
        method.load_state_dict(saved["model"])
        load_optimizer(optimizer, saved["optimizer"])
        fabric.strategy.precision.load_state_dict(saved["scaler"])
        states = saved["rng"]
        if fabric.global_rank < len(states):
            set_random_state(states[fabric.global_rank], fabric.device)
    except CheckpointError:
        raise
    except (LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise CheckpointError(
            f"the checkpoint after step {saved['step']} cannot be restored "
            f"({type(error).__name__}: {' '.join(str(error).split())[:160]}); delete it to go on "
            "from the one before"
        ) from error


def save_state(
    step: int,
    method: Method,
    optimizer: torch.optim.Optimizer,
    fabric: Fabric,
    run: RunConfig,
    optim: OptimConfig,
    out: Path,
    history: History,
) -> None:
    """Write a checkpoint from the first process, with the random generators of all.

    Raises:
        OutputError: it cannot be written.
    """
    states = [random_state(fabric.device)]
    if fabric.world_size > 1:
        states = states * fabric.world_size
        torch.distributed.all_gather_object(states, random_state(fabric.device))
    if fabric.is_global_zero:
        content = {
            "format": 1,
            "method": type(method).__name__,
            "step": step,
            "model": method.state_dict(),
            "optimizer": optimizer.state_dict(),
            "scaler": fabric.strategy.precision.state_dict(),
            "rng": states,
            "config": describe_run(run, optim),
            "history": history,
        }
        save_checkpoint(out, content, run.keep)
