"""The stage that trains, and the images it takes; it may be killed and started again.

The stage that labels is `wsss_lab.runs.labels`, scores are `wsss_lab.runs.scoring`.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor
from torch.utils.data import Dataset

from wsss_lab.config import OptimConfig, RunConfig
from wsss_lab.data.class_names import require_same_classes
from wsss_lab.data.config import DataConfig, build_dataset
from wsss_lab.data.loader import StepLoader
from wsss_lab.data.masks import read_mask
from wsss_lab.data.sample import Sample
from wsss_lab.data.sampling import weights_of
from wsss_lab.data.toy import ToyWorld
from wsss_lab.data.transform import TrainingTransform
from wsss_lab.methods.common.base import Method, StepOutput
from wsss_lab.models.weights import load_strictly
from wsss_lab.runs.folder import RunFolder
from wsss_lab.runs.stage_record import note_conditions, note_weights, require_own_weights
from wsss_lab.runs.weights_file import read_tensors, save_weights
from wsss_lab.train.conditions import conditions
from wsss_lab.train.devices import make_fabric, require_even_shares
from wsss_lab.train.fit import fit
from wsss_lab.train.hang import HangWatch
from wsss_lab.train.log import steadfast
from wsss_lab.train.stop import held_back

Log = Callable[[str], None]
OnStep = Callable[[int, StepOutput], None]
"""See `wsss_lab.train.fit.fit`."""


class InMemory(Dataset[Sample]):
    """A toy world drawn once and kept; it would draw every scene again for every epoch.

    Args:
        world: which scenes; samples carry masks if its own do, and the extras, without `part`.
        workers: processes that draw.
    """

    def __init__(self, world: ToyWorld, workers: int = 2):
        drawn = world.tensors(workers)
        self.image, self.tags = drawn["image"], drawn["tags"]
        self.mask = drawn["mask"] if world.masks else None
        names = ("distinctive", "context", "instance") if world.extras else ()
        self.extras: dict[str, Tensor] = {name: drawn[name] for name in names}  # type: ignore
        self.names = [world.name(i) for i in range(len(world))]
        self.class_names, self.num_classes = world.class_names, world.num_classes

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Sample:
        sample: Sample = {
            "image": self.image[index],
            "tags": self.tags[index],
            "name": self.names[index],
        }
        if self.mask is not None:
            sample["mask"] = self.mask[index].long()
        sample.update({name: rows[index] for name, rows in self.extras.items()})  # type: ignore
        return sample


class CachedToyWorld(Dataset[Sample]):
    """A toy world whose scenes are drawn at their first use, and then kept.

    Args:
        world: which scenes.
    """

    def __init__(self, world: ToyWorld):
        self.world = world
        self.names = [world.name(i) for i in range(len(world))]
        self.class_names, self.num_classes = world.class_names, world.num_classes
        self._drawn: dict[int, Sample] = {}

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Sample:
        if index not in self._drawn:
            self._drawn[index] = self.world[index]
        return self._drawn[index].copy()


def load_data(
    data: DataConfig, split: str, *, masks: bool | None = None, wanted: int | None = None
) -> Any:
    """`build_dataset`, with toy scenes kept in memory.

    Args:
        data: which one.
        split: see `build_dataset`.
        masks: see `build_dataset`.
        wanted: images that will be asked for, if that is known; a short run on the toy world draws
            no scene that it does not need.
    """
    dataset = build_dataset(data, split, masks=masks)
    if not isinstance(dataset, ToyWorld):
        return dataset
    few = wanted is not None and wanted < len(dataset)
    return CachedToyWorld(dataset) if few else InMemory(dataset)


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


def require_images(images: Any, batch: int) -> None:
    """Refuse a training list that does not fill one batch.

    Raises:
        ValueError: names both numbers.
    """
    if len(images) < batch:
        raise ValueError(
            f"run.batch: {batch} images per step, but the training list has only {len(images)}; "
            "use a smaller batch"
        )


def require_one_list_of_classes(images: Any, val: Any) -> None:
    """Refuse to train on one list of classes and score on another.

    Args:
        images: data set to train on.
        val: data set to score on.

    Raises:
        DataError: the classes differ in a name or in their order.
    """
    remedy = "Give both lists the same classes in the same order, for example by classes.txt"
    require_same_classes(
        tuple(images.class_names),
        tuple(val.class_names),
        "the training list",
        "the validation list",
        remedy,
    )


class PseudoLabelled(Dataset[Sample]):
    """A data set whose masks are label images in a folder, `NAME.png`: pseudo-labels.

    Args:
        images: gives images, tags and names; masks of its own are replaced.
        folder: label images.
        num_classes: `k1`, background included.
    """

    def __init__(self, images: Any, folder: Path, num_classes: int):
        self.images, self.folder, self.num_classes = images, folder, num_classes

    @property
    def tags(self) -> Tensor | None:
        """Those of the data set, (n, k), where it has a table of them."""
        return getattr(self.images, "tags", None)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Sample:
        sample: Sample = dict(self.images[index])  # type: ignore[assignment]
        label = read_mask(self.folder / f"{sample['name']}.png", self.num_classes)
        sample["mask"] = torch.from_numpy(label).long()
        return sample


class FirstImages(Dataset[Sample]):
    """The first images of a data set."""

    def __init__(self, images: Any, count: int):
        self.images, self.count = images, min(count, len(images))

    @property
    def class_names(self) -> tuple[str, ...]:
        """Those of the data set."""
        return self.images.class_names

    @property
    def num_classes(self) -> int:
        """Those of the data set, without background."""
        return self.images.num_classes

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Sample:
        return self.images[index]


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


__all__ = [
    "CachedToyWorld",
    "FirstImages",
    "InMemory",
    "OnStep",
    "PseudoLabelled",
    "fit_stage",
    "launch",
    "load_data",
    "require_images",
    "require_one_list_of_classes",
    "seeded",
    "silent",
]
