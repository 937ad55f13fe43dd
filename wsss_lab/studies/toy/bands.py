"""Bands of labels on the toy world, one per refiner, by a rule that sees no arm.

``python -m wsss_lab.studies.toy.bands`` takes the network that all arms of a study start from,
labels training scenes by its maps with every refiner at single thresholds (low = high), and finds
the one with the best mean IoU. The band is that threshold, `WIDTH` to either side. TSCD refines the
probabilities of its maps and labels at half the size, `--method mix` refines the maps themselves.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
import tyro
from jaxtyping import Int
from torch import Tensor

from wsss_lab.data.toy import ToyWorld
from wsss_lab.methods.cosa.labels import label_from_cam
from wsss_lab.metrics import mean_iou
from wsss_lab.ranges import Count, Scales, Settings
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
    """Refiners by name."""
    method: Literal["tscd", "mix"] = "tscd"
    """Method whose labels are made, with its preset `toy` but for its scales."""
    scales: Scales = (1.0, 0.5, 1.5)
    """Scales of the maps."""


@torch.no_grad()
def search(settings: Bands) -> dict[str, Any]:
    """Return for every refiner the best threshold, its mean IoU, and the band."""
    found = {}
    world = ToyWorld("train", settings.scenes, seed=0, masks=True, extras=True).tensors(0)
    batch = {"images": world["image"].float() / 255, "tags": world["tags"]}
    truth = world["mask"].long()
    for refiner in settings.refiners:
        label_at = (_labels_of_tscd if settings.method == "tscd" else _labels_of_mix)(
            settings, refiner, batch
        )
        scores = {
            at: float(mean_iou(confusion_per_scene(label_at(at), truth).sum(0))[1])
            for at in THRESHOLDS
        }
        best = max(scores, key=lambda key: scores[key])
        around = [round(best - WIDTH, 2), round(best + WIDTH, 2)]
        found[refiner] = {"threshold": best, "miou": round(scores[best], 4), "band": around}
        print(refiner, found[refiner], flush=True)
    return found


def _start(settings: Bands, changes: dict[str, Any], classes: int) -> Any:
    """The method with the packaged network, in evaluation mode."""
    recipe = find_recipe(settings.method)
    scales = {"method.scales": list(settings.scales)}
    config = with_changes(recipe.preset("toy"), changes | scales)
    method = recipe.build(config, classes, False)
    start_method(method, "toy", "tscd", config.method.backbone)  # mix starts from it, too
    return method.eval()


def _labels_of_tscd(
    settings: Bands, refiner: str, batch: Any
) -> Callable[[float], Int[Tensor, "b h w"]]:
    method = _start(settings, {"method.refiner": refiner}, batch["tags"].shape[1])
    images = batch["images"]
    valid = torch.ones_like(images[:, 0], dtype=torch.bool)
    cam = method.maps(method.network.backbone.normalize(images), valid)

    def label_at(threshold: float) -> Tensor:
        method.config = replace(method.config, low=threshold, high=threshold)
        return method.pseudo_labels(batch, cam, valid)

    return label_at


def _labels_of_mix(
    settings: Bands, refiner: str, batch: Any
) -> Callable[[float], Int[Tensor, "b h w"]]:
    method = _start(settings, {"method.refine.kind": refiner}, batch["tags"].shape[1])
    images = method.network.backbone.normalize(batch["images"])
    state = method.make_labels(batch, 0, images, method.network(images))

    def label_at(threshold: float) -> Tensor:
        at = torch.tensor(threshold)
        return label_from_cam(state.cam, state.classes, state.present, at, at, state.valid)

    return label_at


if __name__ == "__main__":
    torch.set_num_threads(1)
    search(tyro.cli(Bands, description=__doc__))
