"""Record of what a training used: arithmetic, processes, threads, parts and batch statistics."""

from typing import Any

import torch
from torch import nn

from wsss_lab.config import RunConfig
from wsss_lab.methods.common.base import Method
from wsss_lab.train.fabric import Fabric
from wsss_lab.train.norms import kind_of_norm, parts_of


def conditions(fabric: Fabric, method: Method, run: RunConfig) -> dict[str, Any]:
    """Collect what a stage is computed with, as `metrics.json` records it.

    Args:
        fabric: launched.
        method: in training mode, as it trains.
        run: settings; what is recorded is what becomes of them here.

    Returns:
        `device`, `processes`, `precision`, `accumulate` (parts that are really computed;
        `accumulate_asked` were asked for), `batch_norm` (whose statistics), `loss` (over what it is
        averaged), and `threads` and `interop_threads` of torch on the CPU, whose number may change
        the last bit of a sum.
    """
    cuda = fabric.device.type == "cuda"
    parts = parts_of(method, run)
    return {
        "device": torch.cuda.get_device_name(fabric.device) if cuda else fabric.device.type,
        "processes": fabric.world_size,
        "precision": str(fabric.strategy.precision.precision),
        "accumulate": parts,
        "accumulate_asked": run.accumulate,
        "batch_norm": kind_of_norm(method, fabric.world_size),
        "loss": "batch" if method.mean_over_images else _shares(fabric.world_size * parts),
        "threads": torch.get_num_threads(),
        "interop_threads": torch.get_num_interop_threads(),
    }


def remarks(method: Method, run: RunConfig) -> list[str]:
    """Lines for the start: which settings do not do what their name promises.

    Args:
        method: in training mode, as it trains.
        run: settings.
    """
    lines = []
    parts, world = parts_of(method, run), run.devices * run.nodes
    if run.accumulate > parts:
        lines.append(
            f"accumulate: {run.accumulate} parts asked for, but the network normalises by its "
            "batch, which parts cannot share: every step computes its whole batch at once, and on "
            "a GPU what its backward pass needs waits in the host's memory. Same results as 1"
        )
    if world * parts > 1 and (why := _depends_on_shares(method)):
        lines.append(
            f"devices, accumulate: {why}, so results are those of {world * parts} shares of "
            f"{run.batch // (world * parts)} images, not those of one batch of {run.batch}"
        )
    return lines


def other_shares(method: Method, run: RunConfig, before: dict[str, Any]) -> str | None:
    """Find why a run may not go on with other devices or parts than it had, if so.

    Args:
        method: in training mode, as it trains.
        run: settings now.
        before: settings of the run at its checkpoint, as plain values.

    Returns:
        What differs, why it matters, and the remedy; None where results stay the same.
    """
    names = ("devices", "nodes", "accumulate")
    old = {name: before.get(name, 1) for name in names}
    new = {name: getattr(run, name) for name in names}
    if parts_of(method, run) == 1:
        old["accumulate"] = new["accumulate"] = 1
    if old == new or not (why := _depends_on_shares(method)):
        return None
    changed = ", ".join(f"run.{n} was {old[n]}, now {new[n]}" for n in names if old[n] != new[n])
    back = " ".join(f"--run.{n} {old[n]}" for n in names if old[n] != new[n])
    return f"{changed}: that changes results, because {why}; go on with {back}"


def _depends_on_shares(method: Method) -> str:
    """Why results depend on how many shares a batch is computed in; empty if they do not."""
    name = type(method).__name__
    if not method.mean_over_images:
        return f"the losses of {name} are averaged over each share first"
    if any(_draws(layer) for layer in method.modules()):
        return f"{name} draws random numbers (dropout) for each share"
    return ""


def _draws(layer: nn.Module) -> bool:
    """Whether a layer draws random numbers in training."""
    if isinstance(layer, nn.modules.dropout._DropoutNd):
        return layer.training and layer.p > 0
    return layer.training and bool(getattr(layer, "drop_prob", 0.0))


def _shares(count: int) -> str:
    return "batch" if count == 1 else f"each of {count} shares, then their mean"
