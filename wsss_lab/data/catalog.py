"""Facts about data sets: class names and numbering, palettes, archives, checksums, counts."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np
from jaxtyping import UInt8


def _names(text: str) -> tuple[str, ...]:
    return tuple(text.split(", "))


TOY_CLASSES = ("cat", "dog", "horse", "cow", "bird", "car", "bus", "train", "boat", "plane")
"""Foreground classes of the toy world; mask value of class `c` is `c + 1`."""

TOY_CONTEXTS = {"boat": ("water", 1), "train": ("rails", 2)}
"""Class -> its usual surroundings in the toy world, and their value in a scene's context map."""

VOC_CLASSES = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa"),
    *("train", "tvmonitor"),
)
"""The 20 classes of PASCAL VOC 2012, alphabetical; mask value of class `c` is `c + 1`."""

COCO_CLASSES = _names(
    "person, bicycle, car, motorcycle, airplane, bus, train, truck, boat, traffic light, "
    "fire hydrant, stop sign, parking meter, bench, bird, cat, dog, horse, sheep, cow, "
    "elephant, bear, zebra, giraffe, backpack, umbrella, handbag, tie, suitcase, frisbee, "
    "skis, snowboard, sports ball, kite, baseball bat, baseball glove, skateboard, surfboard, "
    "tennis racket, bottle, wine glass, cup, fork, knife, spoon, bowl, banana, apple, "
    "sandwich, orange, broccoli, carrot, hot dog, pizza, donut, cake, chair, couch, "
    "potted plant, bed, dining table, toilet, tv, laptop, mouse, remote, keyboard, cell phone, "
    "microwave, oven, toaster, sink, refrigerator, book, clock, vase, scissors, teddy bear, "
    "hair drier, toothbrush"
)
"""The 80 classes of COCO in the order of their category ids; mask value of class `c` is `c + 1`."""

_NEVER_IN_MASKS = frozenset((12, 26, 29, 30, 45, 66, 68, 69, 71, 83, 91))

COCO_IDS = tuple(i for i in range(1, 91) if i not in _NEVER_IN_MASKS)
"""Category id (1..90, with gaps) of each class of `COCO_CLASSES`."""

STUFF_CLASSES = COCO_CLASSES + _names(
    "banner, blanket, branch, bridge, building-other, bush, cabinet, cage, cardboard, carpet, "
    "ceiling-other, ceiling-tile, cloth, clothes, clouds, counter, cupboard, curtain, "
    "desk-stuff, dirt, door-stuff, fence, floor-marble, floor-other, floor-stone, floor-tile, "
    "floor-wood, flower, fog, food-other, fruit, furniture-other, grass, gravel, ground-other, "
    "hill, house, leaves, light, mat, metal, mirror-stuff, moss, mountain, mud, napkin, net, "
    "paper, pavement, pillow, plant-other, plastic, platform, playingfield, railing, railroad, "
    "river, road, rock, roof, rug, salad, sand, sea, shelf, sky-other, skyscraper, snow, "
    "solid-other, stairs, stone, straw, structural-other, table, tent, textile-other, towel, "
    "tree, vegetable, wall-brick, wall-concrete, wall-other, wall-panel, wall-stone, "
    "wall-tile, wall-wood, water-other, waterdrops, window-blind, window-other, wood"
)
"""The 171 classes of COCO-Stuff 10K: the 80 things of COCO, then 91 kinds of stuff."""

STUFF_IDS = tuple(i for i in range(1, 183) if i not in _NEVER_IN_MASKS)
"""Value in the official map `S` (1..182) of each class of `STUFF_CLASSES`. The 11 ids left out
(street sign, hat, shoe, eye glasses, plate, mirror, window, desk, door, blender, hair brush) name
things that were dropped from COCO and have no mask anywhere."""

STUFF_182_NAMES = tuple(
    dict(zip(STUFF_IDS, STUFF_CLASSES, strict=True)).get(i, f"unused-{i}") for i in range(1, 183)
)
"""Names by official id minus one, for the 182-way convention."""


@dataclass(frozen=True)
class Archive:
    """One official download, with the size and checksum that verify it."""

    name: str
    """File name on disk."""
    url: str
    size: int | None
    """Bytes; None where no source states the exact number."""
    md5: str | None
    """None where neither the publisher nor independent mirrors state one. `fetch` then records the
    SHA-256 of the first file it downloads and compares later ones with it."""
    licence: str
    about: str
    """Content, with its rough size."""
    limit: int = 4_000_000_000
    """Most bytes that are accepted where `size` is None."""


_FLICKR = "photos: terms of Flickr and of their owners, research use; annotations: CC BY 4.0"

ARCHIVES: Mapping[str, Archive] = MappingProxyType(
    {
        archive.name: archive
        for archive in (
            Archive(
                "VOCtrainval_11-May-2012.tar",
                "https://thor.robots.ox.ac.uk/pascal/VOC/voc2012/VOCtrainval_11-May-2012.tar",
                1_999_639_040,
                "6cd6e144f989b92b3379bac3b3de84fd",
                "photos: terms of Flickr and of their owners; see the VOC 2012 page",
                "PASCAL VOC 2012 photos, boxes, masks and lists (2.0 GB)",
            ),
            Archive(
                "VOCtrainval_06-Nov-2007.tar",
                "https://thor.robots.ox.ac.uk/pascal/VOC/voc2007/VOCtrainval_06-Nov-2007.tar",
                460_032_000,
                "c52e279531787c972589f7e41ab4ae64",
                "photos: terms of Flickr and of their owners; see the VOC 2007 page",
                "PASCAL VOC 2007 photos and boxes for training (0.5 GB)",
            ),
            Archive(
                "VOCtest_06-Nov-2007.tar",
                "https://thor.robots.ox.ac.uk/pascal/VOC/voc2007/VOCtest_06-Nov-2007.tar",
                451_020_800,
                "b6e924de25625d8de591ea690078ad9f",
                "photos: terms of Flickr and of their owners; see the VOC 2007 page",
                "PASCAL VOC 2007 photos and boxes for testing (0.5 GB)",
            ),
            Archive(
                "benchmark.tgz",
                "https://www2.eecs.berkeley.edu/Research/Projects/CS/vision/grouping/"
                "semantic_contours/benchmark.tgz",
                1_419_539_633,
                "82b4d87ceb2ed10f6038a1cba92111cb",
                "none stated; asks for citation of Hariharan et al., ICCV 2011",
                "SBD: masks for 11,355 of the VOC photos (1.4 GB)",
            ),
            # the bucket's own address: images.cocodataset.org has a certificate of another name
            Archive(
                "train2014.zip",
                "https://s3.amazonaws.com/images.cocodataset.org/zips/train2014.zip",
                13_510_573_713,
                "0da8c0bd3d6becc4dcb32757491aca88",
                _FLICKR,
                "COCO 2014 training photos (13.5 GB)",
            ),
            Archive(
                "val2014.zip",
                "https://s3.amazonaws.com/images.cocodataset.org/zips/val2014.zip",
                6_645_013_297,
                "a3d79f5ed8d289b7a7554ce06a5782b3",
                _FLICKR,
                "COCO 2014 validation photos (6.6 GB)",
            ),
            Archive(
                "annotations_trainval2014.zip",
                "https://s3.amazonaws.com/images.cocodataset.org/annotations/annotations_trainval2014.zip",
                252_872_794,
                "0a379cfc70b0e71301e0f377548639bd",
                _FLICKR,
                "COCO 2014 object annotations (0.25 GB)",
            ),
            Archive(
                "cocostuff-10k-v1.1.zip",
                "https://calvin.inf.ed.ac.uk/wp-content/uploads/data/cocostuffdataset/"
                "cocostuff-10k-v1.1.zip",
                None,
                None,
                _FLICKR,
                "COCO-Stuff 10K v1.1: photos, .mat label maps and lists (2.0 GB)",
            ),
        )
    }
)
"""Official archives by file name. Sizes and MD5 sums were collected from public download scripts
that agree with one another; the COCO-Stuff archive has neither."""


@dataclass(frozen=True)
class DatasetFacts:
    """Classes, archives and image counts of a prepared data set."""

    classes: tuple[str, ...]
    archives: tuple[str, ...]
    counts: Mapping[str, int] = field(default_factory=dict)
    """Images by split, as published."""


DATASETS: Mapping[str, DatasetFacts] = MappingProxyType(
    {
        "voc": DatasetFacts(
            VOC_CLASSES,
            ("VOCtrainval_11-May-2012.tar", "benchmark.tgz"),
            {"train": 1464, "val": 1449, "trainval": 2913, "train_aug": 10582},
        ),
        "voc-mini": DatasetFacts(
            VOC_CLASSES,
            (
                "VOCtrainval_11-May-2012.tar",
                "VOCtrainval_06-Nov-2007.tar",
                "VOCtest_06-Nov-2007.tar",
            ),
            {"train": 550, "tags_only": 1901, "train_tags": 2451, "val": 299},
        ),
        "coco": DatasetFacts(
            COCO_CLASSES,
            ("annotations_trainval2014.zip", "train2014.zip", "val2014.zip"),
            {"train": 82081, "val": 40137},  # images with at least one annotation
        ),
        "stuff10k": DatasetFacts(
            STUFF_CLASSES, ("cocostuff-10k-v1.1.zip",), {"train": 9000, "test": 1000}
        ),
    }
)


def voc_palette(size: int = 256) -> UInt8[np.ndarray, "size 3"]:
    """Colour map of PASCAL VOC: bit `7 - j` of a channel is bit `3 j + channel` of the index.

    Args:
        size: number of entries, 1..256.

    Returns:
        uint8 array (size, 3), RGB. Entry 255 is the near-white of ignored pixels.
    """
    index = np.arange(size, dtype=np.uint8)
    palette = np.zeros((size, 3), dtype=np.uint8)
    for j in range(8):
        for channel in range(3):
            palette[:, channel] |= ((index >> channel) & 1) << (7 - j)
        index >>= 3
    return palette
