"""Random images of a data set's size and number, to time a run without the data set."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import Dataset

from wsss_lab.data.catalog import (
    COCO_CLASSES,
    DATASETS,
    STUFF_182_NAMES,
    STUFF_CLASSES,
    TOY_CLASSES,
    VOC_CLASSES,
)
from wsss_lab.data.config import DataConfig
from wsss_lab.data.sample import Sample

SIZES: dict[str, tuple[int, int]] = {
    "voc": (375, 500),
    "voc-mini": (240, 320),
    "coco": (480, 640),
    "stuff10k": (480, 640),
}
"""Height and width of the most usual image, px."""
TAGS: dict[str, float] = {"toy": 2.0, "voc": 1.56, "voc-mini": 1.39, "coco": 2.9, "stuff10k": 8.0}
"""Approximate tags per image. VOC: counted over the training lists; the others are rough."""
DIFFERENT = 16
"""Number of images drawn; a longer list repeats them."""


class RandomImages(Dataset[Sample]):
    """List of smooth random images with random tags, in memory.

    They are smooth, because the cost of a CRF grows with the number of neighbouring colours: on
    white noise it would be far higher than on photos.

    Args:
        size: height and width, px.
        count: length of the list.
        class_names: k foreground classes.
        tags: mean number of tags of an image, at least 1.
        masks: samples carry random masks.
        seed: seed of images, tags and masks.
    """

    def __init__(
        self,
        size: tuple[int, int],
        count: int,
        class_names: Sequence[str],
        tags: float = 1.5,
        masks: bool = False,
        seed: int = 0,
    ):
        generator = torch.Generator().manual_seed(seed)
        self.class_names, self.num_classes = tuple(class_names), len(class_names)
        self.count = count
        drawn = min(count, DIFFERENT)
        self.images = torch.stack([_picture(size, generator) for _ in range(drawn)])
        lengths = 1 + torch.poisson(torch.full((drawn,), max(0.0, tags - 1)), generator)
        order = torch.rand(drawn, self.num_classes, generator=generator).argsort(1).argsort(1)
        self.tags = (order < lengths[:, None]).float()
        self.masks = self._masks(size, generator) if masks else None

    def _masks(self, size: tuple[int, int], generator: torch.Generator) -> Tensor:
        """Draw blocks of background and of the tagged classes."""
        weights = torch.cat([torch.ones(len(self.tags), 1), self.tags], 1)
        blocks = torch.multinomial(weights, 36, replacement=True, generator=generator)
        whole = F.interpolate(blocks.float().view(-1, 1, 6, 6), size)
        return whole[:, 0].to(torch.uint8)

    @property
    def names(self) -> list[str]:
        """Image names, in order."""
        return [f"random_{i:06d}" for i in range(self.count)]

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Sample:
        at = index % len(self.images)
        sample: Sample = {
            "image": self.images[at],
            "tags": self.tags[at].clone(),
            "name": f"random_{index:06d}",
        }
        if self.masks is not None:
            sample["mask"] = self.masks[at].long()
        return sample


def _picture(size: tuple[int, int], generator: torch.Generator) -> Tensor:
    """Draw coarse and fine blobs of colour with a little noise, uint8 (3, h, w)."""
    total = torch.zeros(3, *size)
    for cells, height in ((4, 60.0), (24, 25.0)):
        small = torch.randn(1, 3, cells, cells, generator=generator)
        total += height * F.interpolate(small, size, mode="bicubic")[0]
    total += 127 + 3 * torch.randn(3, *size, generator=generator)
    return total.clamp(0, 255).to(torch.uint8)


def random_data(data: DataConfig) -> tuple[RandomImages, RandomImages]:
    """Make lists to train and evaluate on, of a data set's length and classes.

    Args:
        data: the data set; its files are not read.

    Raises:
        ValueError: your own folder or list, whose size and length are unknown without its files.
    """
    names = {
        "toy": TOY_CLASSES,
        "voc": VOC_CLASSES,
        "voc-mini": VOC_CLASSES,
        "coco": COCO_CLASSES,
        "stuff10k": {"171": STUFF_CLASSES, "182": STUFF_182_NAMES, "things": COCO_CLASSES}[
            data.convention
        ],
    }
    if data.name not in names:
        raise ValueError(
            f"data.name: expected one of {', '.join(names)} for random images, got {data.name!r}, "
            "whose numbers are not known; take the one whose photos are of about your size"
        )
    size = SIZES.get(data.name, (data.size, data.size))
    lists = []
    for role in ("train", "val"):
        if data.name == "toy":
            count = data.val_count if role == "val" else data.count
        else:
            known = DATASETS[data.name].counts
            if data.split_of(role) not in known:
                raise ValueError(
                    f"{role}_split: expected one of {', '.join(known)} for random images, got "
                    f"{data.split_of(role)!r}"
                )
            count = known[data.split_of(role)]
        lists.append(RandomImages(size, count, names[data.name], TAGS[data.name], role == "val"))
    return lists[0], lists[1]
