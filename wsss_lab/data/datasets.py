"""One data set class for every set of images with tags: VOC 2012, COCO 2014, COCO-Stuff 10K, yours.

Masks are ground truth that weakly supervised training must not use. They are read only with
`masks=True`, and then every image must have one.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch.utils.data import Dataset

from wsss_lab.data import layouts
from wsss_lab.data.errors import Problem
from wsss_lab.data.index import Index, load_entry, probe_masks
from wsss_lab.data.sample import Sample


class ImageTagDataset(Dataset[Sample]):
    """Images with tags and, on demand, masks; made with `voc`, `coco`, ... or `folder`.

    Lists and tags are read and checked when the data set is made; pixels when an item is taken.

    Attributes:
        classes: k foreground class names; tag `c` belongs to mask value `c + 1`.
        names: image names, in order.
        tags: float32 (n, k), 0 or 1.
        masks: whether samples carry masks.
    """

    def __init__(self, index: Index, masks: bool = False):
        """Wrap an index.

        Args:
            index: from a function of `wsss_lab.data.layouts`.
            masks: samples carry masks.

        Raises:
            DataError: `masks`, and an image has none.
        """
        lacking = [entry.name for entry in index.entries if entry.mask is None] if masks else []
        if lacking:
            raise Problem(
                f"{lacking[0]}.png",
                f"no mask for {len(lacking)} of {len(index.entries)} images, this is the first",
                "Add the masks, prepare the data set, or take the images off the list",
                missing=True,
            ).error()
        self._index = index
        self.masks = masks
        self.classes = index.classes
        self.names = [entry.name for entry in index.entries]
        self.tags = torch.zeros(len(index.entries), len(index.classes))
        for i, entry in enumerate(index.entries):
            self.tags[i, list(entry.tags)] = 1.0

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the k foreground classes, as `classes`."""
        return self.classes

    @property
    def num_classes(self) -> int:
        """Number k of classes, without background."""
        return len(self.classes)

    def __len__(self) -> int:
        return len(self._index.entries)

    def __getitem__(self, i: int) -> Sample:
        """Read image `i`.

        Raises:
            DataError: an image or mask file is missing, broken, or does not fit the other.
        """
        entry = self._index.entries[i]
        image, mask = load_entry(self._index, entry, self.masks)
        sample: Sample = {
            "image": torch.from_numpy(image).permute(2, 0, 1),  # channels last, as decoded
            "tags": self.tags[i].clone(),
            "name": entry.name,
        }
        if mask is not None:
            sample["mask"] = torch.from_numpy(mask).long()
        return sample

    def probe_masks(self) -> None:
        """Read some masks of a user's own data: a wrong convention shows before hours of training.

        Raises:
            DataError: the first problem of these masks.
        """
        if self._index.own:
            probe_masks(self._index)

    def __repr__(self) -> str:
        return (
            f"ImageTagDataset({len(self)} images, {len(self.classes)} classes, masks={self.masks})"
        )

    @classmethod
    def voc(
        cls,
        root: str | Path,
        split: str = "train_aug",
        *,
        masks: bool = False,
        tags: str = "auto",
        difficult: bool = True,
    ) -> "ImageTagDataset":
        """Read PASCAL VOC 2012, or any folder in its layout (the toy world's exports, for example).

        Reads `JPEGImages/`, `ImageSets/Segmentation/SPLIT.txt`, `SegmentationClass/` and, for
        images that have no mask there, `SegmentationClassAug/` (masks from SBD). So the masks of
        train and val are VOC's own. `classes.txt` replaces the 20 classes if it is there.

        Args:
            root: the folder with `JPEGImages`, or the one above `VOCdevkit`.
            split: name of a list: train_aug (10,582 images, needs `prepare_voc`), train (1464),
                val (1449), trainval, or any other.
            masks: samples carry masks.
            tags: "csv" (`tags.csv`), "boxes" (`Annotations/*.xml`), "masks" (pixel truth: state it
                with every score), "json" (`image_labels.json`, mask values by name), "none" (all
                zero, for prediction only), "auto" = csv if there, else boxes.
            difficult: tags from boxes count objects marked difficult, as the field's lists do.

        Raises:
            DataError: the first problem found, with its remedy.
        """
        return cls(layouts.index_voc(root, split, tags, difficult), masks)

    @classmethod
    def coco(
        cls, root: str | Path, split: str = "train", *, masks: bool = False
    ) -> "ImageTagDataset":
        """Read COCO 2014 after `prepare_coco`: train (82,081 images with objects) or val (40,137).

        80 classes in the order of their category ids; class `c` has mask value `c + 1`.

        Raises:
            DataError: the first problem found, with its remedy.
        """
        return cls(layouts.index_coco(root, split), masks)

    @classmethod
    def stuff10k(
        cls,
        root: str | Path,
        split: str = "train",
        *,
        masks: bool = False,
        convention: str = "171",
    ) -> "ImageTagDataset":
        """Read COCO-Stuff 10K v1.1 after `prepare_stuff10k`: train (9000 images) or test (1000).

        Mask values start at 1 in all conventions and unlabelled pixels are 255, so that tag `c`
        belongs to mask value `c + 1` as everywhere else.

        Args:
            root: prepared folder.
            split: train or test (papers call the latter val).
            masks: samples carry masks.
            convention: "171": the classes that occur, no pixel is background (value 0); for a
                network without a background channel subtract 1. "182": official ids, of which 11
                never occur; mIoU must then be averaged over the classes that have pixels. "things":
                the 80 things, all stuff is background; not comparable with the other two, and some
                images have no tag.

        Raises:
            ValueError: unknown split or convention.
            DataError: the first problem found, with its remedy.
        """
        return cls(layouts.index_stuff10k(root, split, convention), masks)

    @classmethod
    def folder(
        cls,
        images: str | Path,
        tags_csv: str | Path,
        masks_dir: str | Path | None = None,
        classes: Sequence[str] | None = None,
        *,
        allow_empty: bool | None = None,
    ) -> "ImageTagDataset":
        """Read your own images: a folder, and a CSV of tags (both forms in `wsss_lab.data.tags`).

        Images that are not in the CSV are left out. Pixels are taken as they are stored; a photo
        that viewers show turned (EXIF) and whose mask may belong to either view is refused.

        Args:
            images: folder of image files, not searched below its first level.
            tags_csv: header `name,tags` with `;` between class names, or `name,CLASS,...` with 0/1.
            masks_dir: folder of `NAME.png` label maps; giving it makes samples carry masks.
            classes: class names in the order of the mask values 1, 2, ...; else `classes.txt`
                beside the CSV, else the header of the 0/1 form.
            allow_empty: accept images without any class, negatives; None: see
                `wsss_lab.data.tags.read_tags`.

        Raises:
            DataError: the first problem found, with its remedy.
        """
        index = layouts.index_folder(images, tags_csv, masks_dir, classes, allow_empty)
        return cls(index, masks_dir is not None)
