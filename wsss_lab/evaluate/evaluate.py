"""Score a method on a data set, with the protocol in the report.

Two folders of label images are compared in `wsss_lab.evaluate.directories`; its functions can be
imported from here too.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, runtime_checkable
from typing import Protocol as Shape

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, UInt8
from torch import Tensor
from torch.utils.data import DataLoader, Subset

from wsss_lab.data.errors import DataError
from wsss_lab.data.reported import Reported, raising
from wsss_lab.data.sample import Sample
from wsss_lab.data.workers import LoaderWorker
from wsss_lab.evaluate.directories import SHOWN, evaluate_directories, read_names
from wsss_lab.evaluate.eval_command import run_eval
from wsss_lab.evaluate.grouping import by_shape
from wsss_lab.evaluate.inference import MultiScale, multi_scale_predict
from wsss_lab.evaluate.regions import Regions, regions_of
from wsss_lab.evaluate.scores import ORACLE, Evaluation, Scores, shows_nothing, summarise
from wsss_lab.methods.common.base import Method, SegOutput
from wsss_lab.metrics import Protocol, strongest_class
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

Crf = Callable[[UInt8[Tensor, "b 3 h w"], Float[Tensor, "b k1 h w"]], Float[Tensor, "b k1 h w"]]
"""(images 0..255, class probabilities) -> better class probabilities."""
RefineMaps = Callable[
    [UInt8[Tensor, "b 3 h w"], Float[Tensor, "b k h w"], Float[Tensor, "b k"] | None],
    Float[Tensor, "b k h w"],
]
"""(images 0..255, class maps 0..1, tags that may win) -> better class maps."""


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
    for group in by_shape(loader, batch):
        images = torch.stack([s["image"] for s in group]).to(device)
        truth = _masks(group).to(device).long()
        tags = torch.stack([s["tags"] for s in group]).to(device)
        pixels = images.float() / 255
        output = multi_scale_predict(method.predict, pixels, views)
        regions = regions_of(group, truth, tags)
        _count(scores, output, images, truth, None, crf, refine, regions, cam_threshold)
        if tags_at_test:
            told = output
            if method.uses_tags:
                told = multi_scale_predict(method.predict, pixels, views, tags)
            _count(scores, told, images, truth, tags, crf, refine, regions, cam_threshold)
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


def _count(
    scores: Scores,
    output: SegOutput,
    images: UInt8[Tensor, "b 3 h w"],
    truth: Int[Tensor, "b h w"],
    tags: Float[Tensor, "b k"] | None,
    crf: Crf | None,
    refine: RefineMaps | None,
    regions: Regions | None,
    cam_threshold: float | None,
) -> None:
    """Add one group; `tags` are the true ones, or None."""
    _require_classes(output, scores.num_classes)
    end = "" if tags is None else ORACLE
    negatives = bool(shows_nothing(truth).any())
    if output.logits is not None:
        logits = output.logits
        if tags is not None:
            absent = F.pad(tags <= 0, (1, 0))[:, :, None, None]
            logits = logits.masked_fill(absent, torch.finfo(logits.dtype).min)
        label = logits.max(dim=1).indices
        scores.add_labels(f"seg{end}", label, truth)
        if negatives:
            scores.add_alarms(f"seg{end}", label, truth)
        if regions:
            scores.regions[f"seg{end}"].add(regions, label)
        if crf is not None:
            scores.add_labels(
                f"seg+crf{end}", crf(images, logits.softmax(1)).max(dim=1).indices, truth
            )
    if output.cam is not None:
        allowed = tags
        if tags is None and output.tag_logits is not None:
            allowed = (output.tag_logits > 0).float()
        cam = output.cam if refine is None else refine(images, output.cam, allowed)
        scores.add_cam(f"cam{end}", cam, allowed, truth)
        made = None
        if cam_threshold is not None and (regions or negatives):
            best, winner = strongest_class(cam, allowed)
            made = (winner + 1).masked_fill_(best <= cam_threshold, 0)
        if negatives and made is not None:
            scores.add_alarms(f"cam{end}", made, truth)
        if regions:
            maps = cam if allowed is None else cam * allowed[:, :, None, None]
            scores.regions[f"cam{end}"].add(regions, made, maps)


def _require_classes(output: SegOutput, num_classes: int) -> None:
    for what, found, more in (("logits", output.logits, 0), ("cam", output.cam, 1)):
        if found is not None and found.shape[1] + more != num_classes:
            raise ValueError(
                f"the method's {what} are for {found.shape[1] + more} classes with background, "
                f"the data set has {num_classes}; were these weights trained on another data set?"
            )


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
