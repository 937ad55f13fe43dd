"""Pictures of the page `side_by_side`: the same open photos through every network of a gallery."""

import io
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from statistics import fmean

import numpy as np
import torch
from PIL import Image
from side_photos import NAMES, galleries
from side_rows import NONE, half_width, plus_minus
from side_toy import table
from torch import Tensor

from wsss_lab import viz
from wsss_lab.data.catalog import VOC_CLASSES
from wsss_lab.data.open_photos import OpenPhoto, open_photos
from wsss_lab.metrics import tag_oracle
from wsss_lab.studies.photos.gallery import Seen, agreement, load_gallery

FOLDER = Path(__file__).parents[1] / "side_by_side"
"""Folder of the pictures, beside the page."""
PHOTOS = 8
SEEN = 0.01
"""A class counts as painted from this share of a photo on."""
KINDS = {"labels": "maps, true tags", "mask": "segmentation"}
STATES = {
    "tags": "tag classifier, before any method",
    "asdt_released_exponents": "ASDT, released exponents",
    "acr_released_powers": "ACR, released powers",
    "cosa_warm": "CoSA, half way: tags alone",
}
"""Galleries that are not those of a method's run to its end."""
WORDS = {"diningtable": "dining table", "pottedplant": "potted plant", "tvmonitor": "TV monitor"}
BOX = 0.5
"""Share of a photo that the box of the sanity row covers."""
gallery = cache(load_gallery)


def chosen() -> list[OpenPhoto]:
    """Choose photos with a mask, by file name, each with a class that none before it shows.

    Licences that ask for the same licence are left out, because the pictures are derived works.
    """
    found: list[OpenPhoto] = []
    shown: set[int] = set()
    for photo in open_photos(masked_only=True):
        if not set(photo.tags) <= shown and "SA" not in photo.licence:
            found.append(photo)
            shown |= set(photo.tags)
    return found[:PHOTOS]


@dataclass(frozen=True)
class Panel:
    """One picture."""

    photo: OpenPhoto
    network: str
    """Name of a gallery; "" for the photo and its truth."""
    kind: str
    """Key of `KINDS`, or `photo` or `truth`."""

    @property
    def file(self) -> Path:
        """Where it is drawn."""
        name = "-".join(filter(None, (self.photo.name, self.network, self.kind)))
        return FOLDER / f"{name}.webp"

    @property
    def labels(self) -> Tensor | None:
        """Its classes (h, w), 0 background; None for the photo alone."""
        if self.kind == "truth":
            return self.photo.mask()
        if not self.network:
            return None
        return getattr(gallery(self.network)[self.photo.name], self.kind)

    def title(self) -> str:
        """What it is."""
        if not self.network:
            return {"photo": "photograph", "truth": "true mask"}[self.kind]
        return f"{name_of(self.network, short=True)}, {KINDS[self.kind]}"

    def found(self) -> str:
        """Numbers below it: IoU of the photo's classes, and classes painted that are not there."""
        labels = self.labels
        if labels is None:
            return ""
        if self.kind == "truth":
            return listed(shares(labels, SEEN, only=self.photo.tags), "of the photo")
        scores = {name(tag): value for tag, value in agreement(labels, self.photo).items()}
        text = listed(scores, "IoU")
        wrong = extra(labels, self.photo)
        return f"{text}; not there: {listed(wrong, 'of the photo')}" if wrong else text

    def alt(self) -> str:
        """Sentence that replaces the picture."""
        what = " and ".join(map(name, self.photo.tags))
        if self.kind == "photo":
            return f"The photograph itself; it shows {what}."
        title = self.title()
        return f"{title[:1].upper()}{title[1:]}, photograph of {what}: {self.found()}."


def name(tag: int) -> str:
    """Name of a 0-based class, in words."""
    return WORDS.get(VOC_CLASSES[tag], VOC_CLASSES[tag])


def name_of(network: str, short: bool = False) -> str:
    """Name of a gallery's network."""
    if network == "tags" and short:
        return "tag classifier"
    return NAMES.get(network) or STATES.get(network) or f"`{network}`"


def shares(labels: Tensor, least: float, only: tuple[int, ...] | None = None) -> dict[str, float]:
    """Share of a photo that each class is painted on, from the least one on."""
    total = labels.numel()
    counts = {tag: float((labels == tag + 1).sum()) / total for tag in range(len(VOC_CLASSES))}
    return {
        name(tag): share
        for tag, share in counts.items()
        if (tag in only if only is not None else share >= least)
    }


def extra(labels: Tensor, photo: OpenPhoto) -> dict[str, float]:
    """Classes painted on a photo that does not show them, with their share."""
    there = {name(tag) for tag in photo.tags}
    return {key: share for key, share in shares(labels, SEEN).items() if key not in there}


def listed(numbers: dict[str, float], what: str) -> str:
    """Names with numbers in percent, such as `cat 41, dog 3 % IoU`."""
    return ", ".join(f"{key} {percent(value)}" for key, value in numbers.items()) + f" % {what}"


def percent(value: float) -> str:
    """A share in percent; what is not nothing is not shown as nothing."""
    return "below 1" if 0 < value < 0.005 else f"{100 * value:.0f}"


def panels(photo: OpenPhoto) -> Iterator[Panel]:
    """All pictures of a photo: itself, the truth, and every method's network after the start."""
    yield Panel(photo, "", "photo")
    yield Panel(photo, "", "truth")
    for network in galleries():
        if network == "tags" or network in NAMES:
            for kind in KINDS:
                if getattr(gallery(network)[photo.name], kind) is not None:
                    yield Panel(photo, network, kind)


def drawn(panel: Panel) -> np.ndarray:
    """Pixels of a picture, 8 bits (h, w, 3)."""
    labels = panel.labels
    pixels = panel.photo.image()
    if labels is None:
        return (255 * pixels).round().byte().permute(1, 2, 0).numpy()
    found = np.asarray(viz.overlay(pixels, labels, alpha=0.75))
    return found if found.dtype == np.uint8 else (255 * found).round().astype(np.uint8)


def draw() -> None:
    """Draw all pictures anew, and remove those that are none of the page any more."""
    FOLDER.mkdir(exist_ok=True)
    wanted = [panel for photo in chosen() for panel in panels(photo)]
    for file in set(FOLDER.glob("*.webp")) - {panel.file for panel in wanted}:
        file.unlink()
    for panel in wanted:
        buffer = io.BytesIO()
        Image.fromarray(drawn(panel)).save(buffer, "WEBP", quality=65, method=6)
        panel.file.write_bytes(buffer.getvalue())


def grid() -> str:
    """The gallery as grids of sphinx-design: as many columns as there is room for."""
    text = ""
    for photo in chosen():
        title = ", ".join(map(name, photo.tags))
        title = title[:1].upper() + title[1:]
        source = re.match(r"https?://[^\s?]+\?id=(\d+)", photo.source)
        by = f"[Flickr photo {source[1]}](<{source[0]}>)" if source else photo.author
        licence = f"[{photo.licence}](<{photo.licence_url}>)"
        text += f"### {title}\n\nPhotograph: {by}, {licence}.\n\n"
        text += ":::::{grid} 2 2 3 4\n:gutter: 2\n\n"
        for panel in panels(photo):
            text += f"::::{{grid-item}}\n```{{image}} side_by_side/{panel.file.name}\n"
            text += f":alt: {panel.alt()}\n```\n**{panel.title()}**"
            text += (f"\\\n{panel.found()}" if panel.found() else "") + "\n::::\n\n"
        text += ":::::\n\n"
    return text


def numbers() -> str:
    """Table of all galleries: agreement with masks, classes missed, classes that are not there."""
    head = ["network", "output", "IoU, photos with a mask", "classes missed", "not there"]
    head += ["painted"]
    rows = []
    for network in galleries():
        for kind, what in KINDS.items():
            seen = {one.name: getattr(gallery(network)[one.name], kind) for one in open_photos()}
            if not any(labels is None for labels in seen.values()):
                rows.append([name_of(network), what, *judged(seen)])
    boxes = {photo.name: boxed(photo) for photo in open_photos()}
    rows.append(["*true tags in a box, half the photo*", "boxes", *judged(boxes)])
    rows += [[NAMES[method], "not run", *[NONE] * (len(head) - 2)] for method in lacking()]
    return table(head, rows)


def judged(seen: Mapping[str, Tensor]) -> list[str]:
    """Cells of `numbers` for one labelling of every open photo, by the photos' names."""
    pairs = [(photo, seen[photo.name]) for photo in open_photos()]
    scores = [
        100 * fmean(agreement(labels, photo).values()) for photo, labels in pairs if photo.mask_path
    ]
    missed = [
        tag for photo, labels in pairs for tag in photo.tags if not bool((labels == tag + 1).any())
    ]
    classes = sum(len(photo.tags) for photo, _ in pairs)
    wrong = sum(len(extra(labels, photo)) for photo, labels in pairs)
    painted = 100 * fmean(float((labels > 0).float().mean()) for _, labels in pairs)
    half = half_width(scores)
    return [
        plus_minus(f"{fmean(scores):.1f}", half or 0.0), f"{len(missed)} of {classes}", str(wrong),
        f"{painted:.0f}",
    ]  # fmt: skip


def boxed(photo: OpenPhoto) -> Tensor:
    """Label a photo by its true tags in a box in the middle, without looking at it."""
    given = torch.zeros(1, len(VOC_CLASSES))
    given[0, list(photo.tags)] = 1
    height, width = photo.image().shape[-2:]
    return tag_oracle(given, (height, width), area=BOX)[0]


def lacking() -> list[str]:
    """Methods without a gallery."""
    return [method for method in NAMES if method not in galleries()]


def waiting() -> str:
    """Sentence on the methods whose networks have not seen the photos yet."""
    names = ", ".join(NAMES[method] for method in lacking())
    return f"Not run yet: {names}." if names else "Every method is here."


def tags() -> str:
    """Table of the tags that every gallery's network names for the open photos."""
    rows = []
    for network in galleries():
        seen: dict[str, Seen] = gallery(network)
        named = [(photo, seen[photo.name].probs) for photo in open_photos()]
        if any(probs is None for _, probs in named):
            continue
        said = [{int(tag) for tag in (probs > 0.5).nonzero()} for _, probs in named]  # type: ignore[operator]
        true = [set(photo.tags) for photo, _ in named]
        pairs = list(zip(said, true, strict=True))
        right, missed, wrong = (
            str(sum(map(len, sets)))
            for sets in (
                [one & other for one, other in pairs],
                [other - one for one, other in pairs],
                [one - other for one, other in pairs],
            )
        )
        rows.append([name_of(network), right, missed, wrong])
    return table(["network", "right", "missed", "not there"], rows)
