"""Some images with the labels, maps and predictions of a finished run, for galleries."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from wsss_lab.data.masks import read_mask
from wsss_lab.evaluate.large import at_rows, label_by_band, look
from wsss_lab.runs.weights import load_trained


@torch.no_grad()
def examples(
    images: Any,
    indices: Sequence[int],
    network: Path | None,
    *,
    maps: Path | None = None,
    labels: Path | None = None,
    tell_tags: bool = False,
) -> list[dict[str, Any]]:
    """Predict some images of a data set.

    Args:
        images: data set of samples; masks are shown where it has them.
        indices: which ones.
        network: the run's folder or a weights file: makes the `prediction`; None leaves out
            predictions and maps.
        maps: weights file of what makes class maps; None takes those of the network, if any.
        labels: folder of pseudo-labels `NAME.png`; those that are there are shown.
        tell_tags: maps of the true tags only, for training images. Otherwise maps of the tags that
            the network names itself.

    Returns:
        Per image `name`, `image` uint8 (3, h, w), `cam` (h, w) in 0..1, the largest value over
        classes, `pseudo_label`, `prediction` and `truth`, int (h, w); None where there is none.
    """
    segmenter = load_trained(network) if network else None
    mapper = load_trained(maps) if segmenter and maps else segmenter
    found = []
    for index in indices:
        sample = images[index]
        photo, size = sample["image"][None], tuple(sample["image"].shape[-2:])
        cam = prediction = None
        if segmenter and mapper:
            tags = sample["tags"][None] if tell_tags and mapper.method.uses_tags else None
            _, output = look(mapper.method.predict, photo, mapper.views, tags)
            cam = _strongest(output, sample["tags"] if tell_tags else None)
            if cam is not None:
                cam = at_rows(cam[None, None], size, slice(0, size[0]))[0, 0]
            logits = look(segmenter.method.predict, photo, segmenter.views)[1].logits
            if logits is not None:
                prediction = label_by_band(logits, size, lambda s: s.argmax(1))[0]
        file = labels / f"{sample['name']}.png" if labels else None
        found.append(
            {
                "name": sample["name"],
                "image": sample["image"],
                "cam": cam,
                "pseudo_label": (
                    read_mask(file, images.num_classes + 1) if file and file.is_file() else None
                ),
                "prediction": prediction,
                "truth": sample.get("mask"),
            }
        )
    return found


def _strongest(output: Any, tags: torch.Tensor | None) -> torch.Tensor | None:
    """The largest map value at each pixel, over the classes that count."""
    if output.cam is None:
        return None
    if tags is None:
        tags = output.tag_logits[0] > 0 if output.tag_logits is not None else None
    cam = output.cam[0] if tags is None else output.cam[0] * (tags > 0)[:, None, None]
    return cam.amax(0).clamp(0, 1)
