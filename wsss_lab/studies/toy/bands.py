"""Bands of TSCD's labels on the toy world, one per refiner, by a rule that sees no arm.

``python -m wsss_lab.studies.toy.bands`` takes the network that all arms of a study start from,
labels training scenes by its maps with every refiner at single thresholds (low = high), and finds
the one with the best mean IoU. The band is that threshold, `WIDTH` to either side.
"""

from dataclasses import dataclass
from typing import Any

import torch
import tyro

from wsss_lab.data.toy import ToyWorld
from wsss_lab.metrics import mean_iou
from wsss_lab.ranges import Count, Settings
from wsss_lab.runs.recipe import find_recipe
from wsss_lab.runs.settings import with_changes
from wsss_lab.runs.start import start_method
from wsss_lab.studies.toy.label_scores import confusion_per_scene

WIDTH = 0.1
"""Half-width of the band, map values."""
THRESHOLDS = tuple(round(0.2 + 0.05 * i, 2) for i in range(13))
"""Background scores that are tried."""


@dataclass(frozen=True)
class Bands(Settings):
    """Settings of the search."""

    scenes: Count = 24
    """Training scenes, the first ones."""
    refiners: tuple[str, ...] = ("none", "par", "varm")
    """Refiners of TSCD."""


@torch.no_grad()
def search(settings: Bands) -> dict[str, Any]:
    """Return for every refiner the best threshold, its mean IoU, and the band."""
    recipe, found = find_recipe("tscd"), {}
    world = ToyWorld("train", settings.scenes, seed=0, masks=True, extras=True).tensors(0)
    images, tags, truth = world["image"].float() / 255, world["tags"], world["mask"].long()
    cam = None
    for refiner in settings.refiners:
        scores = {}
        for at in THRESHOLDS:
            band = {"method.refiner": refiner, "method.low": at, "method.high": at}
            config = with_changes(recipe.preset("toy"), band)
            method: Any = recipe.build(config, tags.shape[1], False)
            start_method(method, "toy", "tscd", config.method.backbone)
            method.eval()
            valid = torch.ones_like(truth, dtype=torch.bool)
            if cam is None:
                inputs = method.network.backbone.normalize(images)
                cam = method.maps(inputs, valid)
            label = method.pseudo_labels({"images": images, "tags": tags}, cam, valid)
            scores[at] = float(mean_iou(confusion_per_scene(label, truth).sum(0))[1])
        best = max(scores, key=lambda key: scores[key])
        around = [round(best - WIDTH, 2), round(best + WIDTH, 2)]
        found[refiner] = {"threshold": best, "miou": round(scores[best], 4), "band": around}
        print(refiner, found[refiner], flush=True)
    return found


if __name__ == "__main__":
    torch.set_num_threads(1)
    search(tyro.cli(Bands, description=__doc__))
