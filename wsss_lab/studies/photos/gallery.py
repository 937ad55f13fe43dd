"""Keep results of trained networks on the open photos, for the book.

    python -m wsss_lab.studies.photos.gallery cosa runs/photo_cosa --note "preset voc-mini"

No network of the presets `voc-mini` comes with the package, so chapters show what they computed:
class maps with the true tags, labels cut from these maps, and the segmentation without tags, of
every photo of `wsss_lab.data.open_photos`; of a run in stages, each from the stage that makes it.
Nobody trained on these photos. The record is one file per network, `gallery/NAME.npz` of
`wsss_lab.records`, with its card `gallery/NAME.json`.
"""

import dataclasses
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from jaxtyping import Float, Int
from torch import Tensor

from wsss_lab import IGNORE
from wsss_lab.config import provenance, write_atomically, write_json
from wsss_lab.data.catalog import VOC_CLASSES
from wsss_lab.data.class_names import require_same_classes
from wsss_lab.data.open_photos import OpenPhoto, open_photos
from wsss_lab.evaluate.inference import multi_scale_predict, resize_bilinear
from wsss_lab.evaluate.map_refinement import MapRefinement, map_refinement
from wsss_lab.evaluate.trained import Trained
from wsss_lab.metrics import strongest_class
from wsss_lab.ranges import Settings, Share
from wsss_lab.records import RECORDS, load_record, record_file
from wsss_lab.runs.settings import plain
from wsss_lab.runs.weights import load_trained
from wsss_lab.studies.scorers import MAP_THRESHOLD, weights_of

FOLDER = "gallery"
SHRINK = 2
"""Kept maps have one value per so many pixels in height and width: enough for a figure."""


@dataclass(frozen=True)
class Seen:
    """Result of one network on one photo.

    Attributes:
        maps: class -> map in 0..1 (h, w); classes in the photo, 0-based, maps with the true tags.
        labels: classes of these maps above the background score, 0 background, (h, w).
        mask: classes of the segmentation without tags, (h, w); None for networks without one.
        probs: probability of every tag, (k); None for networks that name no tags.
    """

    maps: Mapping[int, Float[Tensor, "h w"]]
    labels: Int[Tensor, "h w"] | None
    mask: Int[Tensor, "h w"] | None
    probs: Float[Tensor, "k"] | None


@torch.no_grad()
def look(
    trained: Trained, photo: OpenPhoto, threshold: float, refinement: MapRefinement | None = None
) -> Seen:
    """Run a network on a photo under the views of its own run.

    Args:
        trained: a network of the 20 classes of VOC.
        photo: an open photo.
        threshold: background score of the labels, 0..1.
        refinement: of the maps, as in the network's run; None for none.
    """
    pixels = (255 * photo.image()).round().to(torch.uint8)[None]
    tags = torch.zeros(1, len(VOC_CLASSES))
    tags[0, list(photo.tags)] = 1
    method, images = trained.method, pixels.float() / 255
    # a method may use tags in its segmentation as well: the mask comes from a pass without them
    found = multi_scale_predict(method.predict, images, trained.views)
    helped = (
        multi_scale_predict(method.predict, images, trained.views, tags)
        if method.uses_tags
        else found
    )
    maps, labels = {}, None
    if helped.cam is not None:
        cam = helped.cam if refinement is None else refinement(pixels, helped.cam, tags)
        best, winner = strongest_class(cam, tags)
        labels = ((winner + 1) * (best > threshold))[0]
        maps = {tag: cam[0, tag] for tag in photo.tags}
    return Seen(
        maps,
        labels,
        None if found.logits is None else found.logits.argmax(1)[0],
        None if found.tag_logits is None else found.tag_logits[0].sigmoid(),
    )


def packed(seen: Mapping[str, Seen]) -> dict[str, np.ndarray]:
    """Turn results by photo into arrays by name: maps smaller and in 256 steps, masks in 8 bits."""
    arrays = {}
    for name, one in seen.items():
        for tag, full in one.maps.items():
            size = (-(-full.shape[0] // SHRINK), -(-full.shape[1] // SHRINK))
            small = resize_bilinear(full[None, None], size)[0, 0]
            arrays[f"{name}/map/{tag}"] = (255 * small).round().to(torch.uint8).numpy()
        for key, labels in (("labels", one.labels), ("mask", one.mask)):
            if labels is not None:
                arrays[f"{name}/{key}"] = labels.to(torch.uint8).numpy()
        if one.probs is not None:
            arrays[f"{name}/probs"] = one.probs.half().numpy()
    return arrays


def unpacked(arrays: Mapping[str, np.ndarray]) -> dict[str, Seen]:
    """Turn arrays of `packed` into results by photo; maps at the photo's size again."""
    photos = {photo.name: photo for photo in open_photos()}
    found = {}
    for name in dict.fromkeys(key.partition("/")[0] for key in arrays):
        _, height, width = photos[name].image().shape
        maps = {
            int(key.rpartition("/")[2]): resize_bilinear(
                torch.from_numpy(array)[None, None].float() / 255, (height, width)
            )[0, 0]
            for key, array in arrays.items()
            if key.startswith(f"{name}/map/")
        }
        rest = {key: arrays.get(f"{name}/{key}") for key in ("labels", "mask", "probs")}
        labels, mask, probs = (None if a is None else torch.from_numpy(a) for a in rest.values())
        found[name] = Seen(
            maps,
            None if labels is None else labels.long(),
            None if mask is None else mask.long(),
            None if probs is None else probs.float(),
        )
    return found


def load_gallery(name: str) -> dict[str, Seen]:
    """Load what a network made of the open photos, by the photos' names.

    Args:
        name: of the record, such as `cosa`.

    Raises:
        FileNotFoundError: there is no such record; the message lists those that there are.
    """
    file = record_file(f"{FOLDER}/{name}").with_suffix(".npz")
    with np.load(file) as arrays:
        return unpacked(dict(arrays))


def load_card(name: str) -> Any:
    """Load where a gallery comes from: run, settings, scores, versions."""
    return load_record(f"{FOLDER}/{name}")


def agreement(labels: Int[Tensor, "h w"], photo: OpenPhoto) -> dict[int, float]:
    """Compute the intersection over union of every class of a photo with its mask, 0..1.

    Args:
        labels: 0 background, else class + 1.
        photo: one with a mask.

    Returns:
        0-based class -> its value on the pixels that are not void.

    Raises:
        FileNotFoundError: the photo has no mask.
    """
    truth = photo.mask()
    known = truth != IGNORE
    values = {}
    for tag in photo.tags:
        mine, real = (labels == tag + 1) & known, truth == tag + 1
        union = (mine | real).sum()
        values[tag] = float((mine & real).sum() / union) if union else float("nan")
    return values


@dataclass(frozen=True)
class Gallery(Settings):
    """Keep what one network makes of the open photos."""

    name: tyro.conf.Positional[str]
    """Name of the record."""
    weights: tyro.conf.Positional[Path]
    """Folder of a finished run, or a weights file."""
    threshold: Share | None = None
    """Background score of the labels, 0..1; none takes the run's own where it has one, else that of
    the study `photos`."""
    note: str = ""
    """One sentence for the card."""
    out: Path = RECORDS / FOLDER
    """Folder of the records."""


def settings_of(trained: Trained) -> tuple[float, MapRefinement | None]:
    """Background score and refinement of maps in a network's run."""
    threshold = getattr(trained.config, "threshold", None)
    steps = int(getattr(trained.config, "refine_steps", 0))
    return MAP_THRESHOLD if threshold is None else float(threshold), map_refinement(steps)


def scores_of(folder: Path) -> dict[str, float]:
    """Return the mean IoU on `val`, 0..1, of every score in `metrics.json`; none without the file.

    Args:
        folder: of the weights; the file is a run's, or what `eval --out` wrote there.
    """
    file = folder / "metrics.json"
    if not file.is_file():
        return {}
    results = json.loads(file.read_text(encoding="utf-8"))["results"]
    return {name: one["miou"] for name, one in results.get("val", results).items() if "miou" in one}


def maps_file(weights: Path) -> Path | None:
    """Return the weights of a run's stage that makes maps; None where its last network does.

    Raises:
        ValueError: several stages have weights.
    """
    if not weights.is_dir() or not (weights / "model.safetensors").is_file():
        return None
    found = sorted(weights.glob("*/model.safetensors"))
    if len(found) > 1:
        names = [file.parent.name for file in found]
        raise ValueError(f"weights: expected one stage of {weights} with weights, got {names}")
    return found[0] if found else None


def keep(config: Gallery, say: Callable[[str], None] = print) -> Path:
    """Write the record of one network; return its card's path.

    Raises:
        ValueError: the network knows other classes.
        FileNotFoundError: there are no weights.
    """
    file = weights_of(config.weights) if config.weights.is_dir() else config.weights
    trained = load_trained(file, widen=True)
    wanted = ("background", *VOC_CLASSES)
    require_same_classes(
        trained.classes, wanted, f"those of {file}", "those of the open photos", "Take another"
    )
    own, refinement = settings_of(trained)
    threshold = own if config.threshold is None else config.threshold
    mapper = maps_file(config.weights)
    before = None if mapper is None else load_trained(mapper, widen=True)
    seen = {}
    for photo in open_photos():
        one = look(trained, photo, threshold, refinement)
        if before is not None:  # a run in stages: one network makes maps, the next one masks
            first = look(before, photo, threshold, refinement)
            one = dataclasses.replace(first, mask=one.mask)
        seen[photo.name] = one
        say(photo.name)
    arrays: dict[str, Any] = packed(seen)
    write_atomically(
        config.out / f"{config.name}.npz", lambda target: np.savez_compressed(target, **arrays)
    )
    data = dataclasses.replace(trained.config.data, root=None)  # a folder of one machine
    card = provenance(
        plain(dataclasses.replace(trained.config, data=data)),
        seed=trained.config.run.seed,
        device="cpu",
        method=trained.name,
        labels={"threshold": threshold, "refinement": str(refinement or "none")},
        views=dataclasses.asdict(trained.views),
        val_miou=scores_of(file.parent),
        note=config.note,
    )
    write_json(config.out / f"{config.name}.json", card)
    return config.out / f"{config.name}.json"


if __name__ == "__main__":
    print(keep(tyro.cli(Gallery, description=__doc__)))
