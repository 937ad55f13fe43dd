"""Score a method on a data set, with the protocol in the report.

Two folders of label images are compared in `wsss_lab.evaluate.directories`; its functions can be
imported from here too.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, runtime_checkable
from typing import Protocol as Shape

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Subset

from wsss_lab.data.errors import DataError
from wsss_lab.data.reported import Reported, raising
from wsss_lab.data.sample import Sample
from wsss_lab.data.workers import LoaderWorker
from wsss_lab.evaluate.counting import Crf, RefineMaps, count, refined
from wsss_lab.evaluate.directories import SHOWN, evaluate_directories, read_names
from wsss_lab.evaluate.eval_command import run_eval
from wsss_lab.evaluate.grouping import by_shape
from wsss_lab.evaluate.inference import MultiScale
from wsss_lab.evaluate.large import group_size, look
from wsss_lab.evaluate.regions import regions_of
from wsss_lab.evaluate.scores import Evaluation, Scores, summarise
from wsss_lab.methods.common.base import Method
from wsss_lab.metrics import Protocol
from wsss_lab.models.folded import folded
from wsss_lab.progress import Countdown

__all__ = [
    "SHOWN",
    "Crf",
    "Images",
    "RefineMaps",
    "by_shape",
    "evaluate",
    "evaluate_directories",
    "read_names",
    "run_eval",
    "score_shard",
]


@runtime_checkable
class Images(Shape):
    """Map-style data set of samples with masks, to be evaluated."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Sample: ...


@torch.no_grad()
def score_shard(
    method: Method,
    dataset: Images,
    views: MultiScale,
    num_classes: int,
    *,
    thresholds: Sequence[float],
    cam_threshold: float | None = None,
    batch: int = 8,
    tags_at_test: bool = False,
    crf: Crf | None = None,
    refine: RefineMaps | None = None,
    rank: int = 0,
    world: int = 1,
    workers: int = 0,
    log: Callable[[str], None] | None = None,
) -> Scores:
    """Counts of the images `rank, rank + world, ...`: nothing padded, nothing counted twice.

    Arguments as in `evaluate`.
    """
    if not 0 <= rank < world:
        raise ValueError(f"rank must be in 0..{world - 1}, got {rank}")
    device = next(method.parameters()).device
    scores = Scores(num_classes, thresholds)
    mine: Any = Subset(dataset, range(rank, len(dataset), world))  # type: ignore[arg-type]
    read: Any = Reported(mine, _small)
    options: Any = {"num_workers": workers, "worker_init_fn": LoaderWorker()}
    loader: Any = raising(DataLoader(read, batch_size=None, **options))
    was_training = method.training
    progress = Countdown("scores", len(mine), None if rank else log)
    method.eval()
    with folded(method):
        for group in by_shape(loader, group_size(batch, views, device)):
            photos = torch.stack([s["image"] for s in group])
            tags = torch.stack([s["tags"] for s in group]).to(device)
            images, output = look(method.predict, photos, views, None, device)
            truth = _masks(group)  # 8 bits, and on the CPU, where images were too large to look at
            if images.shape[-2:] == photos.shape[-2:]:
                truth = truth.to(device).long()
            regions = regions_of(group, truth, tags.to(truth.device))
            told = output
            if tags_at_test and method.uses_tags:
                _, told = look(method.predict, photos, views, tags, device)
            if refine is not None:
                output, told = refined(refine, images, output, told, tags, tags_at_test)
            count(scores, output, images, truth, None, crf, regions, cam_threshold)
            if tags_at_test:
                count(scores, told, images, truth, tags, crf, regions, cam_threshold)
            if output.tag_logits is not None:
                scores.add_tags(output.tag_logits, tags)
            scores.images += len(group)
            progress.add(len(group))
    method.train(was_training)
    return scores


def evaluate(
    method: Method,
    dataset: Images,
    views: MultiScale | None = None,
    *,
    num_classes: int,
    class_names: Sequence[str] | None = None,
    cam_threshold: float | None = None,
    batch: int = 8,
    tags_at_test: bool = False,
    crf: Crf | None = None,
    refine: RefineMaps | None = None,
    rank: int = 0,
    world: int = 1,
    workers: int = 0,
    protocol: Protocol | None = None,
    log: Callable[[str], None] | None = None,
) -> Evaluation:
    """Score segmentation and class maps of a method in one pass over a data set.

    Kinds of scores: "seg" (argmax of the logits), "seg+crf", "cam" (maps of the tags that the
    method itself predicts, at every threshold of 0.00, 0.01 .. 0.99). With `tags_at_test` each
    comes a second time with the true tags of every image, as some released codes report; these
    end in "+true tags", and their protocol says so. Toy scenes also give `context` and `coverage`
    of every kind but "seg+crf", see `wsss_lab.evaluate.regions`; coverage of maps needs
    `cam_threshold`. Images whose truth shows no class give false alarms of the same kinds.

    Args:
        method: gives `predict`; put into eval mode while this runs.
        dataset: samples with masks, images of any size. Images of one size are batched together.
        views: scales, flips and how they are joined; None looks once.
        num_classes: `k1`, background included.
        class_names: `k1` names, background first.
        cam_threshold: background score 0..1, fixed beforehand, at which the maps get a report.
        batch: images per forward pass, at most.
        tags_at_test: score again with the true tags.
        crf: post-processing of the class probabilities, or None; the report calls it as `protocol`
            does, or else by its own name.
        refine: what class maps pass before thresholds, or None; their report calls it by its `str`.
        rank: this process; it takes the images `rank, rank + world, ...` without padding.
        world: number of processes. With an initialised `torch.distributed` group of that size the
            counts are added up, and every process returns the same result.
        workers: processes that read images.
        protocol: what else is known: split, whose masks, policy for absent classes.
        log: gets lines with the time left, in the first process; None for silence.

    Returns:
        Reports, sweeps, tag scores.

    Raises:
        ValueError: samples without masks; a method with another number of classes; bad arguments.
    """
    views = views or MultiScale()
    stated = protocol or Protocol()
    if cam_threshold is not None and not 0 <= cam_threshold <= 1:
        raise ValueError(f"cam_threshold must be in 0..1, got {cam_threshold}")
    extra = [] if cam_threshold is None else [round(cam_threshold, 4)]
    grid = sorted({i / 100 for i in range(100)} | set(extra))
    scores = score_shard(
        method,
        dataset,
        views,
        num_classes,
        thresholds=grid, cam_threshold=cam_threshold, batch=batch, tags_at_test=tags_at_test,
        crf=crf, refine=refine, rank=rank, world=world, workers=workers, log=log,
    ).gather()  # fmt: skip
    stated = replace(
        stated,
        scales=views.scales,
        flip=views.logits.flip or views.cam.flip,
        crf=_name_of(crf, stated),
    )
    if stated.resolution == Protocol().resolution:
        stated = replace(stated, resolution="original")
    refined = "" if refine is None else str(refine)
    return summarise(scores, stated, class_names, cam_threshold, refined)


def _name_of(crf: Crf | None, stated: Protocol) -> str:
    if crf is None:
        return "none"
    return getattr(crf, "__name__", repr(crf)) if stated.crf == Protocol().crf else stated.crf


def _small(sample: Sample) -> Sample:
    """Masks as bytes: eight times as many images may wait for others of their size."""
    if "mask" not in sample:
        raise DataError(
            f"dataset must have masks to be scored, {sample['name']} has none; make it with "
            "masks=True"
        )
    return {**sample, "mask": sample["mask"].to(torch.uint8)}


def _masks(group: Sequence[Sample]) -> Tensor:
    return torch.stack([sample["mask"] for sample in group])
