"""Checks of a run in its first seconds, before scenes are drawn, instead of failures in hours.

Every message begins with the setting that is at fault, by its name on the command line.
"""

import math
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from wsss_lab.config import OptimConfig, OutputError, RunConfig
from wsss_lab.data.config import build_dataset
from wsss_lab.data.errors import DataError
from wsss_lab.data.prepare.check import MOST_CLASSES
from wsss_lab.models.backbones import BACKBONES, build_backbone
from wsss_lab.models.timm_nets import PREFIX
from wsss_lab.models.weights import load_backbone_weights
from wsss_lab.runs.recipe import Log, TrainingStage, find_crf, find_views
from wsss_lab.runs.settings import setting_names
from wsss_lab.train.devices import require_devices, require_even_shares

OPEN_FILES, OPEN_FILES_PER_WORKER = 128, 32
"""Files that a run has open at once: of its own, and for the batches that a worker has ready."""


def preflight(config: Any, out: Path | None, stages: Sequence[TrainingStage], log: Log) -> None:
    """Check everything that a run is going to need.

    Args:
        config: settings of the run.
        out: its folder; None leaves out the disk.
        stages: what it is going to train.
        log: gets a line per warning.

    Raises:
        ValueError, FileNotFoundError, ConnectionError: names the setting at fault and a remedy.
        OutputError: too little space on the disk.
    """
    require_devices(config.run)
    require_known_protocols(config)
    require_tensorboard(config.run)
    for stage in stages:
        require_known_backbone(_setting(config, stage.backbone), stage.backbone)
        require_even_shares(
            stage.run, config.run.devices * config.run.nodes, setting=stage.batch_setting
        )
    classes = require_lists(config, stages)
    networks = [load_network(config, stage, classes) for stage in stages]
    raise_open_files(config.run.workers)
    if out is not None:
        require_disk(out, stages, networks)
    for line in warm_up_warnings(config, stages):
        log(line)


def require_known_protocols(config: Any) -> None:
    """Refuse a post-processing, or scales and flips of a test, that do not exist.

    Raises:
        ValueError: names the setting and what there is.
    """
    for name in setting_names(config):
        last, value = name.rpartition(".")[2], _setting(config, name)
        find = find_crf if last == "crf" or last.endswith("_crf") else find_views
        if not isinstance(value, str) or (find is find_views and name != "test.views"):
            continue
        try:
            find(value)
        except ValueError as error:
            raise ValueError(f"{name}: {str(error).partition(': ')[2]}") from error


def require_tensorboard(run: RunConfig) -> None:
    """Refuse `run.tensorboard` where it is not installed.

    Raises:
        ValueError: says how to install it.
    """
    if not run.tensorboard:
        return
    try:
        import torch.utils.tensorboard  # noqa: F401
    except ImportError as error:
        raise ValueError(
            "run.tensorboard: asked for, but not installed; pip install tensorboard, or leave it "
            "out"
        ) from error


def require_known_backbone(name: str, setting: str) -> None:
    """Refuse a backbone that does not exist.

    Args:
        name: value of the setting.
        setting: its name, for the message.

    Raises:
        ValueError: names the setting and what there is.
    """
    if name.startswith(PREFIX):
        import timm

        if not timm.is_model(name.removeprefix(PREFIX).split(".")[0]):
            raise ValueError(f"{setting}: timm has no network {name.removeprefix(PREFIX)!r}")
        return
    try:
        BACKBONES.find(name)
    except ValueError as error:
        raise ValueError(f"{setting}: {str(error).removeprefix('backbone: ')}") from error


def require_lists(config: Any, stages: Sequence[TrainingStage]) -> int:
    """Refuse lists that are empty or too short; no image is opened and no scene drawn.

    Args:
        config: uses `data`.
        stages: their batches are compared with the training list.

    Returns:
        The number of foreground classes.

    Raises:
        ValueError: an empty list, too many classes, or a batch that the training list cannot fill.
        DataError: the training list, its tags or its images are not there or wrong.
    """
    data = config.data
    try:
        images = build_dataset(data, "train")
    except DataError:
        raise
    except ValueError as error:
        raise ValueError(f"data.{error}") from error
    if not len(images):
        raise ValueError(f"data.train_split: the list {data.split_of('train')!r} is empty")
    if images.num_classes > MOST_CLASSES:
        raise ValueError(
            f"data: {images.num_classes} classes, but label images have room for {MOST_CLASSES} "
            "beside background and 255; join or drop classes"
        )
    for stage in stages:
        if len(images) < stage.run.batch:
            raise ValueError(
                f"{stage.batch_setting}: {stage.run.batch} images per step, but the training list "
                f"has only {len(images)}; use a smaller batch"
            )
    try:
        val = build_dataset(data, "val")
    except DataError:  # the recipe knows whether it can do without
        return images.num_classes
    if not len(val):
        raise ValueError(
            f"data.val_split: the list {data.split_of('val')!r} is empty, so nothing could be "
            "scored; name its images, or another list"
        )
    return images.num_classes


def load_network(config: Any, stage: TrainingStage, classes: int) -> nn.Module:
    """Build the network of a stage and load what it starts from, as the stage will do.

    The state of the random generators is left as it is.

    Args:
        config: settings of the run.
        stage: which one.
        classes: foreground classes.

    Raises:
        ValueError, FileNotFoundError, ConnectionError: names the setting of the weights, if it is
            they that cannot be had.
    """
    with torch.random.fork_rng(devices=[]):
        try:
            return stage.build(classes)
        except (ValueError, OSError) as error:
            source = _setting(config, stage.weights)
            try:
                load_backbone_weights(build_backbone(_setting(config, stage.backbone)), source)
            except (ValueError, OSError) as cause:
                if type(cause) is type(error):
                    raise type(error)(f"{stage.weights}: {cause}") from error
            raise


def raise_open_files(workers: int) -> None:
    """Raise the limit of open files to what reading with workers needs, as far as it is allowed.

    Raises:
        ValueError: it is not allowed; names the limit and how to live with it.
    """
    try:
        import resource
    except ImportError:  # Windows
        return
    needed = OPEN_FILES + OPEN_FILES_PER_WORKER * workers if workers else OPEN_FILES // 2
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return
    if hard != resource.RLIM_INFINITY and hard < needed:
        raise ValueError(
            f"run.workers: {workers} need about {needed} open files at once, but this process may "
            f"open {hard}; allow more (ulimit -n {needed}), or take fewer workers"
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))


def require_disk(out: Path, stages: Sequence[TrainingStage], networks: Sequence[nn.Module]) -> None:
    """Refuse a run whose checkpoints and weights do not fit on the disk.

    Args:
        out: folder of the run; what it holds already is counted as its own.
        stages: of training.
        networks: of the stages.

    Raises:
        OutputError: names what is needed and what there is.
    """
    wanted = sum(
        stage_bytes(network, stage.run, stage.optim)
        for stage, network in zip(stages, networks, strict=True)
    )
    place = out.resolve()
    while not place.exists():
        place = place.parent
    held = sum(file.stat().st_size for file in out.rglob("*") if file.is_file())
    free = shutil.disk_usage(place).free
    if wanted - held > free:
        raise OutputError(
            f"out: checkpoints and weights of this run need {wanted / 1e9:.3g} GB, but {out} has "
            f"{free / 1e9:.3g} GB free; free some space, choose another folder, or keep fewer "
            "checkpoints (run.keep)"
        )


def stage_bytes(network: nn.Module, run: RunConfig, optim: OptimConfig) -> int:
    """Compute the most bytes that checkpoints and weights of a stage take at once.

    One more than `run.keep` is there while it is written.
    """
    state = sum(v.numel() * v.element_size() for v in network.state_dict().values())
    trained = sum(p.numel() * 4 for p in network.parameters() if p.requires_grad)
    averages = {"adamw": 2}.get(optim.name, int(optim.momentum > 0))
    written = math.ceil(run.steps / run.save_every) if run.save_every else 1
    return min(written, run.keep + 1) * (state + averages * trained) + state


def warm_up_warnings(config: Any, stages: Sequence[TrainingStage]) -> list[str]:
    """Name warm-ups that do not end within the run, one line each."""
    lines = []
    for stage in stages:
        steps, warmup = stage.run.steps, stage.optim.warmup
        if warmup >= 1 and steps <= warmup:
            lines.append(
                f"WARNING: {stage.steps_setting} is {steps}, not more than the warm-up of the "
                f"learning rate ({stage.optim_setting}.warmup is {warmup:g}), which never reaches "
                "its peak"
            )
    warmup = getattr(getattr(config, "method", None), "warmup", 0)
    if warmup and config.run.steps <= warmup:
        lines.append(
            f"WARNING: run.steps is {config.run.steps}, not more than method.warmup ({warmup}): "
            "the losses that begin after it never do, so this run does not show the method"
        )
    return lines


def _setting(config: Any, name: str) -> Any:
    """Value of a setting by its dotted name."""
    for part in name.split("."):
        config = getattr(config, part)
    return config
