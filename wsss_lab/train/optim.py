"""Optimisers and learning rate schedules: sane ones, and exactly those of the released codes.

What the four released codes do differs from what their arguments suggest. All of it is expressed by
values of `OptimConfig`, which stand in each method's `config` as `OPTIM`:

* TSCD, CoSA: the warm-up rises from 1e-6 of the rate, and the polynomial decay is counted from step
  0, so that the rate drops when the warm-up ends (`decay_from="start"`).
* ACR, ASDT: the number named weight decay reaches SGD as its *momentum*, and 0.9 is only the power
  of the decay. So the momentum is 5e-4 (ACR) or 1e-5 (ASDT). ACR has no weight decay at all, ASDT
  sets one per parameter group.
* ACR, ASDT: one step more than the schedule has; it repeats the last rate (`decay_steps`).
* All four: after its last step the schedule keeps the last rate above zero, not zero.
"""

import math
from collections.abc import Sequence

import torch

from wsss_lab.config import OptimConfig
from wsss_lab.methods.common.base import ParamGroup


def lr_factor(step: int, total: int, optim: OptimConfig) -> float:
    """Factor on the peak learning rate at a step; a pure function, so resuming needs no state.

    Args:
        step: 0-based step whose update uses the rate. Steps past the end get the last step's.
        total: steps of the run; `optim.decay_steps` overrides it as the schedule's length.
        optim: uses `schedule`, `power`, `warmup`, `warmup_start`, `decay_from`, `decay_steps`.

    Returns:
        A factor in [0, 1].
    """
    total = optim.decay_steps or total
    step = min(step, total - 1)
    rise = warmup_steps(total, optim)
    if step < rise:
        if optim.warmup_start is None:
            return (step + 1) / rise
        return 1 - (1 - step / rise) * (1 - optim.warmup_start)
    begin = rise if optim.decay_from == "warmup" else 0
    done = (step - begin) / max(1, total - begin)
    if optim.schedule == "cosine":
        # in float32: the book's stored outputs were trained with these very numbers
        return 0.5 * (1 + torch.cos(torch.tensor(math.pi * done)).item())
    if optim.schedule == "poly":
        return (1 - done) ** optim.power
    return 1.0


def warmup_steps(total: int, optim: OptimConfig) -> int:
    """Number of steps with rising learning rate: `optim.warmup` as a share or as a number."""
    if optim.warmup >= 1:
        return round(optim.warmup)
    return max(1, round(total * optim.warmup)) if optim.warmup > 0 else 0


def build_optimizer(
    groups: Sequence[ParamGroup], optim: OptimConfig, *, fused: bool = False
) -> torch.optim.Optimizer:
    """The optimiser of a run.

    Args:
        groups: a method's `param_groups`: `params`, `lr`, `weight_decay`.
        optim: uses `name`, `betas`, `momentum`.
        fused: one kernel for the whole update, which can also be told on the device to leave the
            weights alone (see `wsss_lab.train.guard`); for GPUs.

    Returns:
        AdamW or SGD; every group remembers its peak rate as `peak_lr`.

    Raises:
        ValueError: if no parameter is to be trained.
    """
    used = [{**group, "peak_lr": group["lr"]} for group in groups if group["params"]]
    if not used:
        raise ValueError("groups: expected parameters to train, got none; are all frozen?")
    one_kernel = True if fused else None
    if optim.name == "adamw":
        return torch.optim.AdamW(used, betas=optim.betas, fused=one_kernel)
    optimizer = torch.optim.SGD(used, lr=optim.lr, momentum=optim.momentum, fused=one_kernel)
    if fused and optim.momentum:  # else a masked first step leaves these uninitialised
        for group in groups:
            for weight in group["params"]:
                optimizer.state[weight]["momentum_buffer"] = torch.zeros_like(weight)
    return optimizer


def set_learning_rate(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Give every group its peak rate times a factor."""
    for group in optimizer.param_groups:
        group["lr"] = group["peak_lr"] * factor
