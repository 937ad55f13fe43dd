"""Where a run happens: one process, several on this machine, or several machines.

| started as | what happens |
|---|---|
| `python train.py` with `devices=1` | one process |
| `torchrun --nproc-per-node 4 train.py` with `devices=4` | the four processes find each other |
| `python train.py` with `devices=4` | the script is started three more times |
| a notebook cell with `devices=4` | `fit` forks (`ddp_notebook`); leave the GPUs alone before |

Every process gets the images at positions `rank::world` of the global batch, computes a gradient,
and all take the mean of their gradients. A loss that is a mean over *images* so has exactly the
value of one big batch. A loss that is a mean over *labelled pixels* is averaged per process first:
an image on a process with few labelled pixels weighs more than it would in one big batch. The
released codes of TSCD and CoSA do the same (2 images per GPU). A method whose results do not depend
on that has `mean_over_images`; a run of any other goes on with the devices it began with. Dropout
draws its own numbers in every process. Accumulated parts are treated like processes.

Buffers are those of the first process: they are handed on before every forward pass. BatchNorm uses
the statistics of all processes, on CPUs too, and a network that has one is not cut into accumulated
parts: see `wsss_lab.train.norms`.
"""

import os
from typing import Any

import torch

from wsss_lab.config import RunConfig
from wsss_lab.data.workers import end_with_parent
from wsss_lab.train.environment import require_fitting_environment
from wsss_lab.train.fabric import Fabric


def make_fabric(run: RunConfig) -> Fabric:
    """Make the Fabric for the devices and the arithmetic of a run; not launched yet.

    Raises:
        ValueError: if this machine has not got the devices, or not the arithmetic.
    """
    require_devices(run)
    # costs as much as torch again, which no other command is to pay
    from lightning_fabric import Fabric
    from lightning_fabric.strategies import DDPStrategy
    from lightning_fabric.utilities import imports

    from wsss_lab.train.autocast import Autocast

    if os.environ.get("LOCAL_RANK", "0") != "0":
        end_with_parent()  # a process for one more device
    strategy: Any = "auto"
    if run.devices * run.nodes > 1:
        start: Any = "fork" if imports._IS_INTERACTIVE else "popen"
        # losses that begin later leave parameters without gradient
        strategy = DDPStrategy(start_method=start, find_unused_parameters=True)
    mixed = run.precision != "32-true"
    return Fabric(
        accelerator=run.accelerator,
        devices=run.devices,
        num_nodes=run.nodes,
        plugins=[Autocast(run.precision, device_type(run))] if mixed else None,  # type: ignore[arg-type]
        strategy=strategy,
    )


def device_type(run: RunConfig) -> str:
    """Return the kind of device of a run: `cuda`, `mps` or `cpu`."""
    if run.accelerator != "auto":
        return run.accelerator
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def require_devices(run: RunConfig) -> None:
    """Refuse devices that are not there, rather than training somewhere else.

    Raises:
        ValueError: names what was asked for and what there is; or the environment is of another
            run, see `wsss_lab.train.environment`.
    """
    require_fitting_environment(run)
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if run.accelerator == "cuda" and gpus < run.devices:
        raise ValueError(f"devices: {run.devices} GPUs asked for, but this machine has {gpus}")
    if run.accelerator == "auto" and run.devices > max(1, gpus):
        raise ValueError(
            f"devices: {run.devices} asked for, but this machine has {gpus} GPUs; "
            'accelerator="cpu" runs as many CPU processes'
        )
    if run.accelerator == "mps" and not torch.backends.mps.is_available():
        raise ValueError('accelerator: "mps" asked for, but this machine has none')
    if run.precision == "16-mixed" and (run.accelerator == "cpu" or not gpus):
        raise ValueError(
            'precision: "16-mixed" needs a GPU; "bf16-mixed" and "32-true" run on a CPU'
        )
    if (
        run.precision == "bf16-mixed"
        and gpus
        and device_type(run) == "cuda"
        and not torch.cuda.is_bf16_supported(including_emulation=False)
    ):
        raise ValueError(
            'precision: "bf16-mixed" needs a GPU of the Ampere generation or later; '
            'on this one take "16-mixed" (--run.precision 16-mixed) or "32-true"'
        )


def require_even_shares(run: RunConfig, world: int, setting: str = "batch") -> None:
    """Refuse a batch that processes and accumulated parts cannot share equally.

    Args:
        run: uses `batch` and `accumulate`.
        world: number of processes.
        setting: name of the batch in the message.

    Raises:
        ValueError: names the batch and what it must be a multiple of.
    """
    shares = world * run.accumulate
    if run.batch % shares:
        raise ValueError(
            f"{setting}: {run.batch} images cannot be shared equally by {world} processes with "
            f"{run.accumulate} accumulated parts each; take a multiple of {shares}"
        )


def process_share() -> slice:
    """Positions of the global batch that this process trains on: `rank::world`."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return slice(torch.distributed.get_rank(), None, torch.distributed.get_world_size())
    return slice(None)


def forks(fabric: Fabric) -> bool:
    """Whether this fabric's processes are to be forked from here, as in a notebook."""
    return getattr(fabric.strategy, "_start_method", "") == "fork" and not fabric._launched
