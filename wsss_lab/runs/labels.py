"""The stage that labels training images with a trained network, and pictures of the labels."""

import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn
from torch.utils.data import DataLoader, Subset

from wsss_lab.cam import cam_to_label
from wsss_lab.data.class_names import BACKGROUND
from wsss_lab.data.masks import read_mask, save_label
from wsss_lab.data.reported import Reported, raising
from wsss_lab.data.workers import LoaderWorker
from wsss_lab.evaluate.evaluate import RefineMaps, by_shape
from wsss_lab.evaluate.inference import MultiScale
from wsss_lab.evaluate.large import enlarged_label, group_size, label_by_band, look
from wsss_lab.evaluate.overlays import write_overlay
from wsss_lab.methods.common.base import Method, SegOutput
from wsss_lab.models.folded import folded
from wsss_lab.progress import Countdown
from wsss_lab.runs.stage_record import network_digest, note_labels, require_own_labels
from wsss_lab.runs.stages import Log
from wsss_lab.train.fabric import Fabric

CHUNK = 64
"""Images that are labelled together; all or none of them are done again after a kill."""
PICTURES = 200
"""Training images of which overlays are written, at most."""

LabelRule = Callable[
    [UInt8[Tensor, "b 3 h w"], Float[Tensor, "b k h w"], Float[Tensor, "b k"]],
    Int[Tensor, "b h w"],
]
"""(images 0..255, class maps 0..1, true tags) -> labels, 255 where undecided."""


@torch.no_grad()
def label_stage(
    method: Method,
    dataset: Any,
    out: Path,
    *,
    views: MultiScale,
    threshold: float = 0.4,
    band: tuple[float, float] | None = None,
    refine: RefineMaps | None = None,
    rule: LabelRule | None = None,
    segment: bool = False,
    also: Sequence[nn.Module] = (),
    batch: int,
    workers: int,
    fabric: Fabric,
    log: Log,
) -> None:
    """Write the class maps of a data set, made into labels, as palette PNGs `NAME.png`.

    Only tagged classes can win, and truth is not looked at. Images are handled in chunks that are
    the same in every run, because a batch's composition may change the last bit of a result. A
    chunk whose files are all there is passed over, if it is this network that made them: its hash
    stands in `stage.json` beside them. Labels have the size of their photo; one that is shrunk for
    the network, see `wsss_lab.evaluate.large`, gets them from enlarged scores, or by the nearest
    pixel from a `rule`.

    Args:
        method: gives class maps; in eval mode.
        dataset: images, tags, names.
        out: folder of the label images.
        views: scales and flips.
        threshold: background score, 0..1.
        band: see `cam_to_label`.
        refine: what the maps pass before threshold or band, or None.
        rule: makes labels of maps instead of threshold and band.
        segment: label with the method's segmentation, where it has one, instead of maps.
        also: further networks that the rule uses.
        batch: images per forward pass, at most.
        workers: processes that read images.
        fabric: chunk `c` is done by the process `c % world`.
        log: gets lines with the time left, see `wsss_lab.progress`.

    Raises:
        ValueError: the folder holds labels of another network, or the method gives no maps.
        OutputError: a label cannot be written.
    """
    digest = network_digest(method, *also)
    require_own_labels(out, digest)
    fabric.barrier()  # every process has looked before the first one writes
    if fabric.is_global_zero:
        note_labels(out, digest)
    names = _names(dataset)
    chunks = [range(i, min(i + CHUNK, len(names))) for i in range(0, len(names), CHUNK)]
    mine = chunks[fabric.global_rank :: fabric.world_size]
    todo = [c for c in mine if not all((out / f"{names[i]}.png").is_file() for i in c)]
    device = next(method.parameters()).device
    wanted: Any = Reported(Subset(dataset, [i for chunk in todo for i in chunk]))
    options: Any = {"num_workers": workers, "worker_init_fn": LoaderWorker()}
    samples: Any = raising(DataLoader(wanted, batch_size=None, **options))
    classes = _classes_of(dataset)
    progress = Countdown("labels", sum(map(len, todo)), log if fabric.is_global_zero else None)
    if len(todo) < len(mine):
        log(f"labels: {sum(map(len, mine)) - progress.total} images done already")
    together = group_size(batch, views, device)

    def labelled(
        images: UInt8[Tensor, "b 3 h w"],
        output: SegOutput,
        tags: Float[Tensor, "b k"],
        size: tuple[int, int],
    ) -> Int[Tensor, "b _h _w"]:
        if segment and output.logits is not None:
            return label_by_band(output.logits, size, lambda s: tagged_segmentation(s, tags))
        if output.cam is None:
            raise ValueError(f"{type(method).__name__} gives no class maps to label with")
        if rule is not None:
            return enlarged_label(rule(images, output.cam, tags), size)
        maps = output.cam if refine is None else refine(images, output.cam, tags)
        return label_by_band(maps, size, lambda m: cam_to_label(m, tags, threshold, band=band))

    with folded(method):
        for chunk in todo:
            for group in by_shape(itertools.islice(samples, len(chunk)), together):
                photos = torch.stack([s["image"] for s in group])
                tags = torch.stack([s["tags"] for s in group]).to(device)
                told = tags if method.uses_tags else None
                images, output = look(method.predict, photos, views, told, device)
                made = labelled(images, output, tags, (photos.shape[-2], photos.shape[-1]))
                for sample, label in zip(group, made.to(torch.uint8).cpu(), strict=True):
                    save_label(out / f"{sample['name']}.png", label.numpy(), classes)
                progress.add(len(group))
    fabric.barrier()


def _classes_of(dataset: Any) -> tuple[str, ...] | None:
    """Class names of a data set, background first, where it has any."""
    return (BACKGROUND, *dataset.class_names) if hasattr(dataset, "class_names") else None


def _names(dataset: Any) -> list[str]:
    """Names of all images, without reading them where the data set knows them."""
    names = getattr(dataset, "names", None)
    return list(names) if names is not None else [dataset[i]["name"] for i in range(len(dataset))]


def tagged_segmentation(
    logits: Float[Tensor, "b k1 h w"], tags: Float[Tensor, "b k"]
) -> Int[Tensor, "b h w"]:
    """Label every pixel by the largest logit of background and the tagged classes."""
    absent = F.pad(tags <= 0, (1, 0))[:, :, None, None]
    return logits.masked_fill(absent, torch.finfo(logits.dtype).min).max(dim=1).indices


def write_overlays(dataset: Any, labels: Path, out: Path, *, fabric: Fabric) -> int:
    """Write `NAME_overlay.jpg` of the first images: the image under its label's colours.

    A legend of colours and class names is below each picture.

    Args:
        dataset: images and names, of at most `PICTURES` of which pictures are written.
        labels: folder of the label images.
        out: folder of the pictures.
        fabric: image `i` is done by the process `i % world`.

    Returns:
        Number of pictures, over all processes.
    """
    count, classes = min(PICTURES, len(dataset)), _classes_of(dataset)
    for index in range(fabric.global_rank, count, fabric.world_size):
        sample = dataset[index]
        label = read_mask(labels / f"{sample['name']}.png", 256)
        pixels = sample["image"].permute(1, 2, 0).numpy()
        write_overlay(out / f"{sample['name']}_overlay.jpg", pixels, label, classes)
    fabric.barrier()
    return count
