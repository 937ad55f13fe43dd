"""Bands of TSCD's labels on photographs, one per refiner, by the rule of `toy.bands`.

    python -m wsss_lab.studies.photos.label_bands --root data --weights RUN \
        --out wsss_lab/records/label_bands.json

A refinement changes the values of a map, so each refiner needs a band of its own. The network is
the start of a study, TSCD that has learned tags alone. Middle squares of photos of the list `train`
are labelled at single thresholds with every refiner; the best mean IoU against their masks counts,
and the band reaches `WIDTH` to either side of it. No arm takes part, and no photo of `val`.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import tyro
from jaxtyping import Bool, Int
from torch import Tensor

from wsss_lab.config import provenance, write_json
from wsss_lab.methods.common.base import Batch
from wsss_lab.methods.tscd.method import TSCD
from wsss_lab.metrics import ConfusionMatrix, mean_iou
from wsss_lab.progress import Countdown
from wsss_lab.ranges import Count, Settings
from wsss_lab.runs.images import load_data
from wsss_lab.runs.recipe import find_preset
from wsss_lab.runs.settings import plain
from wsss_lab.runs.weights import load_trained
from wsss_lab.studies.photos.vit_start import square
from wsss_lab.studies.toy.bands import THRESHOLDS, WIDTH
from wsss_lab.train.memory import kept_memory

REFINERS = ("none", "varm")
"""Refiners of the study `photos_vit`."""


@dataclass(frozen=True)
class LabelBands(Settings):
    """Find the bands."""

    root: Path
    """Folder that has `voc-mini`."""
    weights: Path
    """Folder of a run of TSCD that learned tags alone."""
    out: Path = Path("label_bands.json")
    """The record."""
    photos: Count = 96
    """Photos of `train`, the first ones."""
    batch: Count = 8
    """Photos at once."""


@torch.no_grad()
def labels_at(
    method: TSCD, batch: Batch, cam: Tensor, thresholds: tuple[float, ...]
) -> dict[float, Int[Tensor, "b h w"]]:
    """Label images at single thresholds, with the method's refiner.

    Args:
        method: in evaluation mode.
        batch: ``images`` (b, 3, h, w) in 0..1 and ``tags`` (b, k).
        cam: their class maps, see `TSCD.maps`.
        thresholds: background scores, 0..1.

    Returns:
        threshold -> 0 background, else class + 1.
    """
    valid = everywhere(batch)
    found, before = {}, method.config
    for threshold in thresholds:
        method.config = dataclasses.replace(before, low=threshold, high=threshold)
        found[threshold] = method.pseudo_labels(batch, cam, valid)
    method.config = before
    return found


def everywhere(batch: Batch) -> Bool[Tensor, "b h w"]:
    """Return that every pixel of a batch is one of a photo: middle squares have no padding."""
    return torch.ones_like(batch["images"][:, 0], dtype=torch.bool)


def with_refiner(method: TSCD, refiner: Any) -> TSCD:
    """Return a method with the same weights and another refiner, in evaluation mode."""
    network = method.network
    config = dataclasses.replace(method.config, refiner=refiner)
    other = TSCD(network.backbone, network.tag_head.linear.out_features, config)
    other.load_state_dict(method.state_dict())
    return other.eval()


def main(options: LabelBands, say: Any = print) -> None:
    """Label, find the best threshold of every refiner, write the record."""
    torch.set_num_threads(1)
    data = dataclasses.replace(find_preset("tscd", "voc-mini").data, root=options.root)
    samples: Any = load_data(dataclasses.replace(data, val_split="train"), "val", masks=True)
    trained: Any = load_trained(options.weights, "tscd").method
    methods = {refiner: with_refiner(trained, refiner) for refiner in REFINERS}
    counts = {
        (refiner, at): ConfusionMatrix(samples.num_classes + 1)
        for refiner in REFINERS
        for at in THRESHOLDS
    }
    progress = Countdown("labels", options.photos, say)
    with kept_memory(), torch.no_grad():
        for first in range(0, options.photos, options.batch):
            some = range(first, min(first + options.batch, options.photos))
            chosen = [samples[i] for i in some]
            batch: Batch = {
                "images": torch.cat([square(s["image"][None].float() / 255) for s in chosen]),
                "tags": torch.stack([s["tags"] for s in chosen]).float(),
            }
            truth = [square(s["mask"][None, None].float(), nearest=True) for s in chosen]
            masks = torch.cat(truth)[:, 0].long()
            # the same for every refiner, which comes after them
            cam = trained.maps(trained.normalize(batch["images"]), everywhere(batch))
            for refiner, method in methods.items():
                for at, labels in labels_at(method, batch, cam, THRESHOLDS).items():
                    counts[refiner, at].update(labels, masks)
            progress.add(len(chosen))
    found = {
        refiner: best_of({at: float(mean_iou(counts[refiner, at].counts)[1]) for at in THRESHOLDS})
        for refiner in REFINERS
    }
    for refiner, one in found.items():
        say(f"{refiner}: {one}")
    named: dict[str, Any] = {"root": Path("VOC_MINI"), "weights": Path("START"), "out": Path()}
    settings = plain(dataclasses.replace(options, **named))
    facts = provenance(settings, seed=0, device="cpu")
    write_json(options.out, {"bands": found, **facts})


def best_of(scores: Mapping[float, float]) -> dict[str, Any]:
    """Return the best of some thresholds, its mean IoU (0..1), the band around it, all scores."""
    best = max(scores, key=lambda at: scores[at])
    band = [round(best - WIDTH, 2), round(best + WIDTH, 2)]
    return {
        "threshold": best,
        "miou": scores[best],
        "band": band,
        "scores": {f"{at:.2f}": miou for at, miou in scores.items()},
    }


if __name__ == "__main__":
    main(tyro.cli(LabelBands, description=__doc__))
