"""Labels from ACR's maps, through a CRF or a walk along affinities, and their scores.

Three rules make a label image of maps (`LabelRule`):

=================  ===============================================================================
`label_rule`       sure labels, 255 between: what the CRF stage writes and affinities learn from
`map_rule`         every pixel labelled, one background score, with or without a CRF: for comparison
`walk_rule`        the same after a walk along learned affinities: what the second route writes
=================  ===============================================================================
"""

import dataclasses
import json
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor
from torch.utils.data import DataLoader, Subset

from wsss_lab import IGNORE
from wsss_lab.cam.maps import present_classes
from wsss_lab.data.errors import DataError
from wsss_lab.data.masks import read_mask
from wsss_lab.data.reported import Reported, raising
from wsss_lab.data.workers import LoaderWorker
from wsss_lab.evaluate.evaluate import Crf, by_shape
from wsss_lab.evaluate.inference import VIEWS
from wsss_lab.evaluate.large import enlarged_label, group_size, look
from wsss_lab.evaluate.scores import Scores
from wsss_lab.methods.common.affinity_net import AffinityNetwork
from wsss_lab.methods.common.base import Method
from wsss_lab.metrics import Protocol, Report
from wsss_lab.progress import Countdown
from wsss_lab.recipes.acr.config import Config
from wsss_lab.runs.images import FirstImages, load_data
from wsss_lab.runs.labels import LabelRule
from wsss_lab.runs.recipe import find_crf
from wsss_lab.runs.scoring import bounded, protocol_of
from wsss_lab.runs.stages import Log
from wsss_lab.train.fabric import Fabric


@dataclasses.dataclass(frozen=True)
class Present:
    """Maps of the tagged classes only, padded to the image with most tags."""

    cam: Float[Tensor, "b m h w"]
    """0..1; 0 where there is no such class."""
    names: Int[Tensor, "b m1"]
    """Label value of background and of every map."""
    real: Bool[Tensor, "b m1"]
    """Which of them are no padding; background always is."""

    @classmethod
    def of(cls, cam: Float[Tensor, "b k h w"], tags: Float[Tensor, "b k"]) -> "Present":
        """Pick the maps by the tags."""
        index, present = present_classes(tags)
        picked = cam.gather(1, index[:, :, None, None].expand(-1, -1, *cam.shape[2:]))
        names = torch.cat([torch.zeros_like(index[:, :1]), index + 1], 1)
        real = torch.cat([torch.ones_like(present[:, :1]), present], 1)
        return cls((picked * present[:, :, None, None]).clamp(0, 1), names, real)

    def scores(self, exponent: float) -> Float[Tensor, "b m1 h w"]:
        """Stack the background score, (1 - largest map value)^exponent, and the maps."""
        background = (1 - self.cam.amax(1, keepdim=True)) ** exponent
        return torch.cat([background, self.cam], 1)

    def winner(
        self, images: UInt8[Tensor, "b 3 h w"], scores: Float[Tensor, "b m1 h w"], crf: Crf | None
    ) -> Int[Tensor, "b h w"]:
        """Find the channel with the largest score, after a CRF if there is one; padding never."""
        if crf is not None:
            scores = crf(images, scores)
        return scores.masked_fill(~self.real[:, :, None, None], -1).max(dim=1).indices

    def label(self, winner: Int[Tensor, "b h w"]) -> Int[Tensor, "b h w"]:
        """Look up the label values of channels."""
        return self.names.gather(1, winner.flatten(1)).view_as(winner)


def label_rule(config: Config) -> LabelRule:
    """Make the rule of sure labels, `IGNORE` elsewhere, by two background scores and a CRF.

    Args:
        config: uses `label_crf` and `background`.
    """
    crf = find_crf(config.label_crf)

    def rule(images: Tensor, cam: Tensor, tags: Tensor) -> Tensor:
        present = Present.of(cam, tags)
        low, high = (present.winner(images, present.scores(e), crf) for e in config.background)
        return torch.where((low == 0) & (high > 0), IGNORE, present.label(low))

    return rule


def map_rule(config: Config, crf_name: str = "none") -> LabelRule:
    """Make the rule that labels every pixel, by the background score that is also propagated.

    Args:
        config: uses `exponent`.
        crf_name: CRF in between.
    """
    crf = find_crf(crf_name)

    def rule(images: Tensor, cam: Tensor, tags: Tensor) -> Tensor:
        present = Present.of(cam, tags)
        return present.label(present.winner(images, present.scores(config.exponent), crf))

    return rule


def walk_rule(config: Config, network: AffinityNetwork) -> LabelRule:
    """Make the rule that labels every pixel by maps and background propagated along affinities.

    Args:
        config: uses `exponent` and, of `affinity`, `power`, `walk` and `crf`.
        network: trained, in eval mode.
    """
    walk = config.affinity
    crf = find_crf(walk.crf)

    def rule(images: Tensor, cam: Tensor, tags: Tensor) -> Tensor:
        present = Present.of(cam, tags)
        scores = present.scores(config.exponent)
        propagated = network.propagate(images.float() / 255, scores, walk.power, walk.walk)
        return present.label(present.winner(images, propagated.clamp(0, 1), crf))

    return rule


@torch.no_grad()
def score_labels(
    localiser: Method, folders: dict[str, Path], config: Config, fabric: Fabric, log: Log
) -> dict[str, Any]:
    """Score labels of training images, whose tags are given, against their truth, if there is one.

    Nothing is chosen by it: training has not seen these masks. "maps" and "maps+crf" are made
    here, by one background score; "sure" (pixels at 255 left out) and "propagated" are read from
    the folders that the stages wrote.

    Args:
        localiser: gives maps; in eval mode.
        folders: label images by kind.
        config: uses `report_train`, `data`, `test.batch`, `run.workers` and the rules' settings.
        fabric: launched; every process takes its share of the images.
        log: takes the scores, or a line that there is no truth.

    Returns:
        Kind -> report for `metrics.json`; with "labelled", the share of pixels that have a label.
    """
    if not config.report_train:
        return {}
    data = config.data.with_masks()
    data = dataclasses.replace(data, count=min(data.count, config.report_train))
    try:
        images = load_data(data, "train", masks=True)
    except DataError as error:
        log(f"no report on the labels of the training images: {error}")
        return {}
    some = FirstImages(images, config.report_train)
    rules = {"maps": map_rule(config)}
    if config.label_crf != "none":
        rules["maps+crf"] = map_rule(config, config.label_crf)
    counts = _count(localiser, some, rules, folders, config, fabric, log)
    stated = _protocols(config, len(some))
    whole, shown = int(counts.labels["maps"].compute().sum()), {}
    for kind, matrix in counts.labels.items():
        names = ("background", *images.class_names)
        report = Report.from_confusion(matrix.compute(), stated[kind], names)
        share = sum(report.pixels) / max(1, whole)
        shown[kind] = json.loads(report.to_json()) | {"labelled": share}
        log(
            f"labels of training images, {kind}: mIoU {100 * report.miou:.2f} %, "
            f"{100 * share:.1f} % of the pixels labelled"
        )
    return shown


def _count(
    localiser: Method,
    images: FirstImages,
    rules: dict[str, LabelRule],
    folders: dict[str, Path],
    config: Config,
    fabric: Fabric,
    log: Log,
) -> Scores:
    """Count the confusion of every kind of label; a pixel without label is left out."""
    classes = images.images.num_classes + 1
    scores, device = Scores(classes, []), next(localiser.parameters()).device
    mine: Any = Subset(images, range(fabric.global_rank, len(images), fabric.world_size))
    read: Any = Reported(mine)
    options: Any = {"num_workers": config.run.workers, "worker_init_fn": LoaderWorker()}
    loader: Any = raising(DataLoader(read, batch_size=None, **options))
    progress = Countdown("label scores", len(mine), log if fabric.is_global_zero else None)
    views = bounded(VIEWS["single"], config.test)
    for group in by_shape(loader, group_size(config.test.batch, views, device)):
        progress.add(len(group))
        photos = torch.stack([s["image"] for s in group])
        tags = torch.stack([s["tags"] for s in group]).to(device)
        truth = torch.stack([s["mask"] for s in group]).long()
        size = (truth.shape[-2], truth.shape[-1])
        seen, output = look(localiser.predict, photos, views, tags, device)
        for kind, rule in rules.items():
            label = rule(seen, output.cam, tags)  # type: ignore[arg-type]
            scores.add_labels(kind, enlarged_label(label, size).cpu(), truth)
        for kind, folder in folders.items():
            read = [read_mask(folder / f"{s['name']}.png", classes) for s in group]
            label = torch.stack([torch.from_numpy(mask).long() for mask in read])
            missing = label == IGNORE
            scores.add_labels(
                kind, label.masked_fill(missing, 0), truth.masked_fill(missing, IGNORE)
            )
    return scores.gather()


def _protocols(config: Config, count: int) -> dict[str, Protocol]:
    """Describe how each kind of label was made."""
    plain = protocol_of(config.data.with_masks(), "train")
    base = dataclasses.replace(
        plain,
        split=f"{plain.split}, first {count}",
        images=count,
        scales=(1.0,),
        flip=True,
        crf="none",
        tags_at_test=True,
        thresholds=f"fixed: background (1 - largest map)^{config.exponent:g}",
        resolution="original",
    )
    low, high = config.background
    return {
        "maps": base,
        "maps+crf": dataclasses.replace(base, crf=config.label_crf),
        "sure": dataclasses.replace(
            base,
            crf=config.label_crf,
            unlabelled="ignored",
            thresholds=f"fixed: background (1 - largest map)^{low:g} and ^{high:g}, else ignored",
        ),
        "propagated": dataclasses.replace(base, crf=config.affinity.crf),
    }
