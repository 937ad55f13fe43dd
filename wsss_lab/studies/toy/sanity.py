"""Rows that never see an image, scored on the lists on which studies score their networks.

    python -m wsss_lab.studies.toy.sanity --out wsss_lab/records/sanity.json

Three predictions stand beside trained networks, see `wsss_lab.metrics.baselines`: all background;
noise in place of class maps, with the true tags; the true tags in a box in the middle. Counts,
regions and reports are those of `wsss_lab.evaluate.evaluate`, so a row has the numbers of a run.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
import tyro

from wsss_lab.config import provenance, write_json
from wsss_lab.data.catalog import TOY_CLASSES
from wsss_lab.data.toy import TOY_VERSION, ToyWorld
from wsss_lab.evaluate.counting import count
from wsss_lab.evaluate.grouping import by_shape
from wsss_lab.evaluate.regions import regions_of
from wsss_lab.evaluate.scores import Scores, summarise
from wsss_lab.methods.common.base import SegOutput
from wsss_lab.metrics import Protocol, all_background, random_cam, tag_oracle
from wsss_lab.ranges import Range, Settings, Share

GRID = (16, 16)
"""Cells of the noise: those of the toy networks' maps at 128 px."""
BATCH = 50


@dataclass
class Sanity(Settings):
    """Settings of the record."""

    out: Path = Path("sanity.json")
    """Record to write."""
    lists: Annotated[tuple[int, ...], Range("[1, inf)")] = (120, 200)
    """Numbers of validation scenes: those of the studies, from the first scene on."""
    threshold: Share = 0.4
    """Background score at which the noise is cut, 0..1."""
    area: Share = 0.5
    """Share of the image that the box covers, 0..1."""


def score(scenes: int, settings: Sanity) -> dict[str, Any]:
    """Score all rows on the first scenes of `val`; results by row, as those of a run."""
    k1 = len(TOY_CLASSES) + 1
    grid = [i / 100 for i in range(100)]
    world: Any = ToyWorld("val", scenes, masks=True, extras=True)
    random = torch.Generator().manual_seed(0)
    found = {name: Scores(k1, grid) for name in ("all background", "noise", "box")}
    for group in by_shape((world[i] for i in range(scenes)), BATCH):
        images, tags, truth = (
            torch.stack([sample[key] for sample in group])  # type: ignore[literal-required]
            for key in ("image", "tags", "mask")
        )
        truth = truth.long()
        size = (truth.shape[-2], truth.shape[-1])
        regions = regions_of(group, truth, tags)
        noise = random_cam(tags, GRID, size, generator=random)
        nothing = all_background(len(group), size)
        boxes = tag_oracle(tags, size, area=settings.area)
        outputs: Sequence[tuple[str, SegOutput, Any]] = (
            ("all background", SegOutput(logits=_one_hot(nothing, k1)), None),
            ("noise", SegOutput(cam=noise), tags),
            ("box", SegOutput(logits=_one_hot(boxes, k1)), tags),
        )
        for name, output, told in outputs:
            count(found[name], output, images, truth, told, None, regions, settings.threshold)
            found[name].images += len(group)
    protocol = Protocol(
        split="toy val", label_source="procedural truth", scales=(1.0,), flip=False,
        crf="none", resolution="original",
    )  # fmt: skip
    names = ("background", *TOY_CLASSES)
    return {
        name: summarise(scores, protocol, names, settings.threshold).as_dict()
        for name, scores in found.items()
    }


def _one_hot(labels: torch.Tensor, k1: int) -> torch.Tensor:
    return torch.nn.functional.one_hot(labels, k1).permute(0, 3, 1, 2).float()


def run(settings: Sanity) -> dict[str, Any]:
    """Score every list; write the record."""
    torch.set_num_threads(1)
    record = provenance(settings, seed=0, device="cpu", data=TOY_VERSION)
    record["config"]["out"] = settings.out.name
    record["val"] = {str(scenes): score(scenes, settings) for scenes in settings.lists}
    write_json(settings.out, record)
    return record


if __name__ == "__main__":
    for scenes, rows in run(tyro.cli(Sanity))["val"].items():
        for name, row in rows.items():
            for kind, numbers in row.items():
                print(f"{scenes:>4} {name:15} {kind:15} {100 * numbers['miou']:.1f}")
