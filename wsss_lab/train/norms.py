"""Batch normalisation sees the whole batch: over all processes, and however memory is saved.

torch's `SyncBatchNorm` runs on GPUs only, and its conversion replaces layers, so an activation that
is part of one (timm's `BatchNormAct2d`) is lost. Here a layer keeps its tensors and everything it
does besides; only the statistics become those of all processes, forward and backward, on any
device.

Parts of a batch that are computed one after the other cannot share statistics: the first is done
before the last has begun. A network that normalises by its batch is therefore not cut into parts.
To save memory all the same, what its backward pass needs waits in the host's memory.
"""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.overrides import TorchFunctionMode

from wsss_lab.config import RunConfig
from wsss_lab.train.fabric import Fabric

_BatchNorm = nn.modules.batchnorm._BatchNorm


def batch_norms(module: nn.Module) -> list[nn.Module]:
    """Batch normalisations that use the statistics of the batch: those in training mode."""
    return [layer for layer in module.modules() if isinstance(layer, _BatchNorm) and layer.training]


def synchronise(module: nn.Module) -> None:
    """Make all batch normalisations use the statistics of all processes' images, in place.

    Parameters, buffers, hooks and references to the layers stay; in evaluation mode, or with one
    process, nothing changes.

    Args:
        module: any network whose processes all call it equally often.
    """
    for layer in module.modules():
        done = isinstance(layer, Synchronised | nn.SyncBatchNorm)
        if isinstance(layer, _BatchNorm) and not done:
            kind = type(layer)
            layer.__class__ = type(f"Synchronised{kind.__name__}", (Synchronised, kind), {})


class Synchronised(nn.Module):
    """Part of a batch normalisation's class that makes its statistics those of all processes."""

    def forward(self, x: Tensor) -> Tensor:
        """As the layer's own, but for the statistics."""
        if not self.training or not dist.is_initialized() or dist.get_world_size() == 1:
            return super().forward(x)
        with _Replaced():
            return super().forward(x)


class _Replaced(TorchFunctionMode):
    """Inside, `F.batch_norm` is `batch_norm`."""

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        function = batch_norm if func is F.batch_norm else func
        return function(*args, **(kwargs or {}))


def batch_norm(
    x: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """Normalise as `torch.nn.functional.batch_norm` does, by the images of all processes.

    Args:
        x: (b, d, ...); `b` may differ between processes.
        running_mean: (d,); updated in training.
        running_var: (d,); updated in training, by the variance over n - 1.
        weight: (d,), scale.
        bias: (d,), shift.
        training: by the batch; else by the running statistics.
        momentum: share of the batch in the running statistics.
        eps: added to the variance.

    Returns:
        Same shape and dtype as `x`; statistics are float32.
    """
    if not training:
        return F.batch_norm(x, running_mean, running_var, weight, bias, False, momentum, eps)
    made, mean, variance, count = _BatchNormOverAll.apply(x, weight, bias, eps)
    if running_mean is not None and running_var is not None:
        with torch.no_grad():
            running_mean.lerp_(mean.to(running_mean.dtype), momentum)
            unbiased = variance * (count / (count - 1).clamp(min=1))
            running_var.lerp_(unbiased.to(running_var.dtype), momentum)
    return made


class _BatchNormOverAll(torch.autograd.Function):
    """Batch normalisation with one reduction for the mean, one for the variance, one backward.

    Gradients of weight and bias are those of this process's images; those of `x` are of the sum of
    all processes' losses, of which the data-parallel wrapper takes the mean.
    """

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        axes = [axis for axis in range(x.dim()) if axis != 1]
        wide = x.float()
        own = wide.new_full((1,), x.numel() / x.shape[1])
        found = _over_all(torch.cat([own, wide.sum(axes)]))
        count, mean = found[:1], found[1:] / found[:1]
        apart = wide - _shaped(mean, x)
        variance = _over_all(apart.square().sum(axes)) / count
        scale = (variance + eps).rsqrt()
        made = apart * _shaped(scale, x)
        if weight is not None:
            made = made * _shaped(weight.float(), x)
        if bias is not None:
            made = made + _shaped(bias.float(), x)
        ctx.save_for_backward(x, weight, mean, scale, count)
        ctx.mark_non_differentiable(mean, variance, count)
        return made.to(x.dtype), mean, variance, count

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, scale, count = ctx.saved_tensors
        axes = [axis for axis in range(x.dim()) if axis != 1]
        given = gradients[0].float()
        normal = (x.float() - _shaped(mean, x)) * _shaped(scale, x)
        of_bias, of_weight = given.sum(axes), (given * normal).sum(axes)
        first, second = (_over_all(torch.cat([of_bias, of_weight])) / count).chunk(2)
        factor = scale if weight is None else scale * weight.float()
        of_x = (given - _shaped(first, x) - normal * _shaped(second, x)) * _shaped(factor, x)
        if weight is None:
            return of_x.to(x.dtype), None, None, None
        return of_x.to(x.dtype), of_weight.to(weight.dtype), of_bias.to(weight.dtype), None


def _over_all(values: Tensor) -> Tensor:
    """Sum over the processes."""
    dist.all_reduce(values)
    return values


def _shaped(values: Tensor, like: Tensor) -> Tensor:
    """Values (d,) as a map that fits (b, d, ...)."""
    return values.view(1, -1, *[1] * (like.dim() - 2))


def parts_of(method: nn.Module, run: RunConfig) -> int:
    """Into how many parts a process cuts its share of a batch.

    Args:
        method: in training mode, as it trains.
        run: uses `accumulate`.

    Returns:
        `run.accumulate`; 1 if the network normalises by its batch.
    """
    return 1 if batch_norms(method) else run.accumulate


def kind_of_norm(method: nn.Module, world: int) -> str:
    """Return whose statistics batch normalisation uses, in words, for `metrics.json`."""
    layers = [layer for layer in method.modules() if isinstance(layer, _BatchNorm)]
    if not layers:
        return "none"
    if not batch_norms(method):
        return "frozen"
    return "batch" if world == 1 else f"batch of all {world} processes"


@contextlib.contextmanager
def kept_on_host(fabric: Fabric, on: bool) -> Iterator[None]:
    """Inside, what the backward pass needs waits in the host's memory; same numbers.

    Args:
        fabric: on a CPU nothing changes.
        on: False changes nothing.
    """
    if not on or fabric.device.type == "cpu":
        yield
        return
    with torch.autograd.graph.save_on_cpu(pin_memory=fabric.device.type == "cuda"):
        yield
