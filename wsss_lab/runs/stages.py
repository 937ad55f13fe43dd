"""The stage that trains; it may be killed and started again.

Its images are made by `wsss_lab.runs.images`; the stage that labels is `wsss_lab.runs.labels`,
scores are `wsss_lab.runs.scoring`.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from wsss_lab.config import OptimConfig, RunConfig
from wsss_lab.data.config import DataConfig
from wsss_lab.data.loader import StepLoader
from wsss_lab.data.sampling import weights_of
from wsss_lab.data.transform import TrainingTransform
from wsss_lab.methods.common.base import Method, StepOutput
from wsss_lab.models.weights import load_strictly
from wsss_lab.runs.folder import RunFolder
from wsss_lab.runs.stage_record import note_conditions, note_weights, require_own_weights
from wsss_lab.runs.weights_file import read_tensors, save_weights
from wsss_lab.train.conditions import conditions
from wsss_lab.train.devices import make_fabric, require_even_shares
from wsss_lab.train.fabric import Fabric
from wsss_lab.train.fit import fit
from wsss_lab.train.hang import HangWatch
from wsss_lab.train.log import steadfast
from wsss_lab.train.stop import held_back

Log = Callable[[str], None]
OnStep = Callable[[int, StepOutput], None]
"""See `wsss_lab.train.fit.fit`."""


def launch(run: RunConfig, log: Log) -> tuple[Fabric, Log]:
    """Start the processes of a run; only the first one logs.

    Raises:
        ValueError: devices that are not there, or a batch that they cannot share equally.
    """
    fabric = make_fabric(run)
    fabric.launch()
    require_even_shares(run, fabric.world_size)
    return fabric, steadfast(log) if fabric.is_global_zero else silent


def silent(line: str) -> None:
    """A log that keeps nothing."""


def fit_stage(
    folder: RunFolder,
    part: str,
    method: Method,
    dataset: Any,
    run: RunConfig,
    optim: OptimConfig,
    *,
    data: DataConfig,
    fabric: Fabric,
    weights: Path,
    facts: dict[str, Any],
    log: Log,
    on_step: OnStep | None = None,
) -> Method:
    """Train one network, or take it from its weights file if it is done.

    Args:
        folder: of the run.
        part: name of the stage and of its sub-folder for checkpoints and log; "" for the run's own.
        method: freshly built, seeded.
        dataset: map-style, of samples.
        run: length and batch.
        optim: optimiser.
        data: crops and colours of the training samples.
        fabric: launched.
        weights: file that marks the stage as done, written at its end.
        facts: what the weights file says about itself.
        log: gets lines of text.
        on_step: looks on.

    Returns:
        The trained method in eval mode, on the fabric's device.

    Raises:
        ValueError: the weights file is not of this run.
        Terminated: SIGTERM came; a checkpoint was written.
    """
    if weights.is_file():
        require_own_weights(weights, folder.path / part, facts)
        log(f"{part or 'training'}: done already, {weights.name}")
        load_strictly(method, read_tensors(weights), what=str(weights))
        # laid out as `fit` leaves it: the layout decides the last bit of a convolution
        method.to(fabric.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        return method.eval()
    loader = StepLoader(
        dataset,
        run.batch,
        run.seed,
        TrainingTransform(data, method.input_mean),
        rank=fabric.global_rank,
        world=fabric.world_size,
        workers=run.workers,
        weights=weights_of(dataset) if data.balance else None,
    )
    stage = folder.path / part
    noted = False

    def at_step(step: int, output: StepOutput) -> None:
        nonlocal noted
        if fabric.is_global_zero and not noted:  # not before: a refused resume changes nothing
            note_conditions(stage, conditions(fabric, method.train(), run))
        noted = True
        if on_step:
            on_step(step, output)

    with held_back(), HangWatch(fabric), loader:
        batches: Any = loader
        fit(
            method,
            batches,
            run,
            optim,
            fabric=fabric,
            out=stage,
            log=log,
            on_step=at_step,
        )
    if fabric.is_global_zero:
        save_weights(weights, method, facts, lambda digest: note_weights(stage, digest))
    fabric.barrier()
    return method.eval()


def seeded(seed: int) -> None:
    """Seed torch before new heads are made, so that a stage does not depend on the one before."""
    torch.manual_seed(seed)
