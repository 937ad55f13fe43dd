"""Images that a stage takes: toy scenes kept in memory, pseudo-labels as masks, the first few."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from wsss_lab.data.config import DataConfig, build_dataset
from wsss_lab.data.masks import read_mask
from wsss_lab.data.sample import Sample
from wsss_lab.data.toy import ToyWorld


class InMemory(Dataset[Sample]):
    """A toy world drawn once and kept; it would draw every scene again for every epoch.

    Args:
        world: which scenes; samples carry masks if its own do, and the extras, without `part`.
        workers: processes that draw.
    """

    def __init__(self, world: ToyWorld, workers: int = 2):
        drawn = world.tensors(workers)
        self.image, self.tags = drawn["image"], drawn["tags"]
        self.mask = drawn["mask"] if world.masks else None
        names = ("distinctive", "context", "instance") if world.extras else ()
        self.extras: dict[str, Tensor] = {name: drawn[name] for name in names}  # type: ignore
        self.names = [world.name(i) for i in range(len(world))]
        self.class_names, self.num_classes = world.class_names, world.num_classes

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Sample:
        sample: Sample = {
            "image": self.image[index],
            "tags": self.tags[index],
            "name": self.names[index],
        }
        if self.mask is not None:
            sample["mask"] = self.mask[index].long()
        sample.update({name: rows[index] for name, rows in self.extras.items()})  # type: ignore
        return sample


class CachedToyWorld(Dataset[Sample]):
    """A toy world whose scenes are drawn at their first use, and then kept.

    Args:
        world: which scenes.
    """

    def __init__(self, world: ToyWorld):
        self.world = world
        self.names = [world.name(i) for i in range(len(world))]
        self.class_names, self.num_classes = world.class_names, world.num_classes
        self._drawn: dict[int, Sample] = {}

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Sample:
        if index not in self._drawn:
            self._drawn[index] = self.world[index]
        return self._drawn[index].copy()


def load_data(
    data: DataConfig, split: str, *, masks: bool | None = None, wanted: int | None = None
) -> Any:
    """`build_dataset`, with toy scenes kept in memory.

    Args:
        data: which one.
        split: see `build_dataset`.
        masks: see `build_dataset`.
        wanted: images that will be asked for, if that is known; a short run on the toy world draws
            no scene that it does not need.
    """
    dataset = build_dataset(data, split, masks=masks)
    if not isinstance(dataset, ToyWorld):
        return dataset
    few = wanted is not None and wanted < len(dataset)
    return CachedToyWorld(dataset) if few else InMemory(dataset)


class PseudoLabelled(Dataset[Sample]):
    """A data set whose masks are label images in a folder, `NAME.png`: pseudo-labels.

    Args:
        images: gives images, tags and names; masks of its own are replaced.
        folder: label images.
        num_classes: `k1`, background included.
    """

    def __init__(self, images: Any, folder: Path, num_classes: int):
        self.images, self.folder, self.num_classes = images, folder, num_classes

    @property
    def tags(self) -> Tensor | None:
        """Those of the data set, (n, k), where it has a table of them."""
        return getattr(self.images, "tags", None)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Sample:
        sample: Sample = dict(self.images[index])  # type: ignore[assignment]
        label = read_mask(self.folder / f"{sample['name']}.png", self.num_classes)
        sample["mask"] = torch.from_numpy(label).long()
        return sample


class FirstImages(Dataset[Sample]):
    """The first images of a data set."""

    def __init__(self, images: Any, count: int):
        self.images, self.count = images, min(count, len(images))

    @property
    def class_names(self) -> tuple[str, ...]:
        """Those of the data set."""
        return self.images.class_names

    @property
    def num_classes(self) -> int:
        """Those of the data set, without background."""
        return self.images.num_classes

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Sample:
        return self.images[index]
