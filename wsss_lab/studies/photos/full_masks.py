"""Full masks as the ceiling of the preset `voc-mini`: the baseline's second stage, with the truth.

    python -m wsss_lab.studies.photos.full_masks --root data --out wsss_lab/records/full_masks.json

The segmentation network of the baseline's preset, its steps, crops and optimiser; but where the
preset learns from pseudo-labels of all photos, it learns from the true masks of those that have
one, the list `train`. No weak supervision: what is left between a method and this row is what its
labels cost, and what is left above is network, steps and number of photos.
"""

import dataclasses
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import tyro

from wsss_lab.config import provenance, write_json
from wsss_lab.data.loader import StepLoader
from wsss_lab.data.sampling import weights_of
from wsss_lab.data.transform import TrainingTransform
from wsss_lab.evaluate.scores import Evaluation
from wsss_lab.ranges import Count, Seed, Settings
from wsss_lab.recipes.cam_baseline import recipe
from wsss_lab.recipes.cam_baseline.config import Config
from wsss_lab.runs.images import load_data
from wsss_lab.runs.recipe import find_preset
from wsss_lab.runs.scoring import score
from wsss_lab.runs.settings import plain
from wsss_lab.train.devices import make_fabric
from wsss_lab.train.fit import fit


@dataclass(frozen=True)
class FullMasks(Settings):
    """Train and score the ceiling."""

    root: Path
    """Folder that has `voc-mini`."""
    out: Path = Path("full_masks.json")
    """The record."""
    steps: Count = find_preset("cam_baseline", "voc-mini").mask_steps
    """Training steps; the preset's."""
    seed: Seed = 0
    """Of decoder and batches."""
    note: str = ""
    """Condition of the machine, for the record."""


def settings_of(options: FullMasks) -> Config:
    """Return the preset's settings with the list of true masks in the place of the photos."""
    preset: Config = find_preset("cam_baseline", "voc-mini")
    data = dataclasses.replace(preset.data, root=options.root).with_masks()
    run = dataclasses.replace(preset.run, seed=options.seed)
    return dataclasses.replace(preset, data=data, run=run, mask_steps=options.steps)


def train(config: Config, photos: Any, say: Callable[[str], None]) -> Any:
    """Train the segmentation network on samples with masks; in eval mode afterwards."""
    network = recipe.build_network(config, photos.num_classes + 1)
    run = recipe.mask_run(config)
    weights = weights_of(photos) if config.data.balance else None
    transform = TrainingTransform(config.data, network.input_mean)
    with StepLoader(photos, run.batch, run.seed, transform, weights=weights) as batches:
        fit(network, batches, run, config.mask_optim, log=say)
    return network.eval()


def evaluate(config: Config, network: Any, photos: Any, say: Callable[[str], None]) -> Evaluation:
    """Score the network on samples with masks, as the preset does."""
    return score(
        network, photos, recipe.seg_views(config), config, make_fabric(config.run), log=say
    )


def main(options: FullMasks, say: Callable[[str], None] = print) -> None:
    """Train, score, write the record."""
    torch.set_num_threads(1)
    config = settings_of(options)
    photos: Any = load_data(config.data, "train", masks=True)
    val: Any = load_data(config.data, "val", masks=True)
    begun = time.monotonic()
    network = train(config, photos, say)
    minutes = (time.monotonic() - begun) / 60
    reports = evaluate(config, network, val, say).reports
    found = {
        "photos": len(photos),
        "steps": options.steps,
        "minutes": round(minutes, 2),
        "note": options.note,
        "val_miou": {name: float(report.miou) for name, report in reports.items()},
    }
    settings = plain(dataclasses.replace(options, root=Path("VOC_MINI"), out=Path()))
    write_json(options.out, found | provenance(settings, seed=options.seed, device="cpu"))


if __name__ == "__main__":
    main(tyro.cli(FullMasks, description=__doc__))
