"""Settings of data set, split and cropping, and the data set built from them."""

import dataclasses
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol

from wsss_lab.data.class_names import require_foreground
from wsss_lab.data.datasets import ImageTagDataset
from wsss_lab.data.errors import Problem
from wsss_lab.data.layouts import folder_classes
from wsss_lab.data.toy import ToyWorld
from wsss_lab.data.voc_mini import index_voc_mini
from wsss_lab.ranges import Count, Pixels, Range, Seed, Settings, Share
from wsss_lab.registry import Registry


class Reader(Protocol):
    """Build the data set of one list; `masks`: samples carry pixel truth."""

    def __call__(self, data: "DataConfig", split: str, masks: bool) -> Any: ...  # noqa: D102


@dataclasses.dataclass(frozen=True)
class DataSet:
    """A kind of data set, as `DataConfig.name` selects it."""

    read: Reader
    """(settings, name of a list, masks) -> map-style data set of `wsss_lab.data.sample.Sample` with
    `class_names` (k foreground classes), `num_classes` (k) and `names`."""
    splits: tuple[str, str] = ("train", "val")
    """Lists to train on and to evaluate on, where the settings name none."""
    needs_root: str = ""
    """How to get the folder `data.root`; "" where the data set needs none."""
    masked_train: str = ""
    """List of training images with masks, for reports; "" where the list to train on has them."""
    truth: str = "the data set's masks"
    """Where the pixel truth comes from, for reports."""


@dataclasses.dataclass(frozen=True)
class DataConfig(Settings):
    """Data set, and the views of its images that training uses.

    The defaults are ours and fit the toy world; the presets of the methods hold their papers'.
    """

    name: str = "toy"
    """toy, voc (PASCAL VOC 2012 or its layout), voc-mini (2,750 of its photos), coco (2014),
    stuff10k (COCO-Stuff), folder (yours), or a data set that `register_dataset` added."""
    root: Path | None = None
    """Folder of the data set; the toy world needs none. `folder`: has `images/`, `tags_train.csv`
    (or `tags.csv`), `tags_val.csv`, `classes.txt`, and `masks/` for evaluation; without any mask a
    run ends unscored. Images without a class (a row of 0s) are negatives."""
    train_split: str = ""
    """List to train on; empty takes the usual one of the data set."""
    val_split: str = ""
    """List to evaluate on; empty takes the usual one."""
    tags: str = "auto"
    """Source of VOC's tags, see `ImageTagDataset.voc`."""
    balance: bool = False
    """Draw images of rare classes more often: in proportion to the square root of 1 over the number
    of images of their rarest class. Otherwise every epoch takes every image once."""
    convention: Literal["171", "182", "things"] = "171"
    """Classes of COCO-Stuff 10K, see `ImageTagDataset.stuff10k`."""

    crop: Pixels = 128
    """Side of the square crop, px. TSCD: 512 (its author; its script ran 320), ASDT: 321 (released
    code), ACR: 384 (released script), CoSA: 448 (released code)."""
    resize: Literal["scale", "long_side"] = "scale"
    """`scale`: image size times a factor from `scale` (TSCD, ASDT, CoSA). `long_side`: the long
    side becomes `crop` times a factor from `scale` (ACR)."""
    scale: Annotated[tuple[float, float], Range("(0, 100)", rising=True)] = (0.75, 1.25)
    """Smallest and largest factor, drawn uniformly. Released codes: TSCD and CoSA 0.5..2, ASDT
    0.7..1.3, ACR 0.9..1/0.875 of the crop."""
    scale_per: Literal["image", "batch"] = "image"
    """One factor an image, or one for all images of a step (ASDT, released code)."""
    flip: Share = 0.5
    """Probability of a left-right mirror; 0.5 in all four released codes."""
    pad: Literal["black", "mean"] = "black"
    """Padding outside the image: black (TSCD, CoSA), or the mean that the network's images are
    normalised by (ImageNet's, but for networks that declare another), which is 0 for it (ASDT,
    ACR)."""
    jitter: Annotated[float, Range("[0, 1)")] = 0.0
    """Brightness, contrast and saturation vary by up to this share. None of the four uses it."""
    blur: Share = 0.0
    """Probability of a Gaussian blur with a radius of 0.1..2 px; CoSA's released code 0.5."""
    strong: bool = False
    """A second view of the same crop in other colours: one of nine operations at a magnitude of
    1..9 (CoSA, released code); see `wsss_lab.data.transform`."""
    form: Literal["ours", "released"] = "ours"
    """Resampling. `released`: as in the authors' code, bit for bit (Pillow on the whole image;
    `long_side` bilinear without a wider filter). `ours`: torch on the pixels under the crop, up to
    about one grey level and half a source pixel off, and faster."""

    count: Count = 3000
    """Toy scenes to train on."""
    val_count: Count = 400
    """Toy scenes to evaluate on."""
    size: Annotated[int, Range("[1, 4096]")] = 128
    """Side of a toy scene, px."""
    seed: Seed = 0
    """Seed of the toy world; the order of the images comes from the run's seed."""

    def require(self) -> None:
        """Refuse data sets that are not known."""
        DATA_SETS.find(self.name)

    def with_masks(self) -> "DataConfig":
        """Return these settings with the training list that has masks, for reports on it.

        Where images with tags alone are on the usual list, the data set names another one.
        """
        found = DATA_SETS[self.name]
        usual = self.train_split in ("", found.splits[0])
        listed = found.masked_train if usual else ""
        return dataclasses.replace(self, train_split=listed) if listed else self

    def split_of(self, role: str) -> str:
        """Return the list name for "train" or "val"; any other name is returned unchanged."""
        usual = DATA_SETS[self.name].splits
        if role == "train":
            return self.train_split or usual[0]
        return (self.val_split or usual[1]) if role == "val" else role


def build_dataset(
    data: DataConfig, split: str = "train", *, masks: bool | None = None
) -> ImageTagDataset | ToyWorld:
    """Build the data set of a configuration.

    Args:
        data: the configuration.
        split: "train" and "val" stand for `train_split` and `val_split`; any other name is used
            unchanged.
        masks: samples carry label maps. None: for "val" only, so that training cannot read them.

    Returns:
        Map-style data set of `Sample`, with `class_names` (k foreground classes; tag `c` is mask
        value `c + 1`), `num_classes` (k) and `names`.

    Raises:
        ValueError: no root, or an unknown split.
        DataError: a file is missing or wrong; the message names it and the remedy.
    """
    found = DATA_SETS[data.name]
    if found.needs_root and data.root is None:
        raise ValueError(f"root: expected the folder of {data.name}, got None; {found.needs_root}")
    masks = split == "val" if masks is None else masks
    dataset: Any = found.read(_role(data, split), data.split_of(split), masks)
    require_foreground(dataset.class_names, f"{data.name} {data.split_of(split)}, class names")
    if masks and isinstance(dataset, ImageTagDataset):
        dataset.probe_masks()
    return dataset


def _role(data: DataConfig, split: str) -> DataConfig:
    """Settings in which `count` is the number of scenes of this list."""
    return dataclasses.replace(data, count=data.val_count) if split == "val" else data


def _toy(data: DataConfig, split: str, masks: bool) -> ToyWorld:
    # with masks come the other truths of the toy world: parts and contexts
    return ToyWorld(split, data.count, seed=data.seed, size=data.size, masks=masks, extras=masks)


def _voc(data: DataConfig, split: str, masks: bool) -> ImageTagDataset:
    return ImageTagDataset.voc(_root(data), split, masks=masks, tags=data.tags)


def _voc_mini(data: DataConfig, split: str, masks: bool) -> ImageTagDataset:
    return ImageTagDataset(index_voc_mini(_root(data), split), masks)


def _coco(data: DataConfig, split: str, masks: bool) -> ImageTagDataset:
    return ImageTagDataset.coco(_root(data), split, masks=masks)


def _stuff10k(data: DataConfig, split: str, masks: bool) -> ImageTagDataset:
    return ImageTagDataset.stuff10k(_root(data), split, masks=masks, convention=data.convention)


def _own_folder(data: DataConfig, split: str, masks: bool) -> ImageTagDataset:
    root = _root(data)
    chosen = list(dict.fromkeys((data.split_of("train"), data.split_of("val"), split)))
    # `tags.csv` without a list's name is for training; truth goes with a list of its own
    listed = {
        name: _tags_file(root, name, alone=name == (data.train_split or "train")) for name in chosen
    }
    if not listed[split].is_file():
        raise Problem(
            str(listed[split]),
            f"the tags of the split {split!r} are not there",
            "Write a CSV with the header name,tags and one row for each image",
            missing=True,
        ).error()
    classes = folder_classes(root, list(listed.values()))
    folder = root / "masks" if masks else None
    return ImageTagDataset.folder(root / "images", listed[split], folder, classes)


def _root(data: DataConfig) -> Path:
    return Path(data.root or "")


def _tags_file(root: Path, split: str, alone: bool) -> Path:
    """Tags file of a list; `alone`: fall back to `tags.csv` if the list has none of its own."""
    listed = root / f"tags_{split}.csv"
    usual = root / "tags.csv"
    return usual if alone and not listed.is_file() and usual.is_file() else listed


def _fill(name: str) -> str:
    return f"pass it, and fill it once with: python -m wsss_lab data {name} --root DIR"


DATA_SETS: Registry[DataSet] = Registry("name", "wsss_lab.datasets")
"""Name -> data set."""
for _name, _set in {
    "toy": DataSet(_toy, truth="procedural truth"),
    "voc": DataSet(_voc, ("train_aug", "val"), _fill("voc")),
    "voc-mini": DataSet(_voc_mini, ("train_tags", "val"), _fill("voc-mini"), masked_train="train"),
    "coco": DataSet(_coco, ("train", "val"), _fill("coco")),
    # CoSA calls its test list val
    "stuff10k": DataSet(_stuff10k, ("train", "test"), _fill("stuff10k")),
    "folder": DataSet(
        _own_folder, ("train", "val"), "pass the folder that holds images/ and tags.csv"
    ),
}.items():
    DATA_SETS.register(_name, _set)
DATA_SETS.close()


def register_dataset(
    name: str, read: Reader, splits: tuple[str, str] = ("train", "val"), needs_root: str = ""
) -> None:
    """Make a data set known to every command and preset.

    Args:
        name: value of the setting `data.name`; must be free.
        read: see `DataSet.read`.
        splits: lists to train on and to evaluate on.
        needs_root: how to get the folder `data.root`; "" where none is needed.

    Raises:
        ValueError: this package has a data set of that name.
    """
    DATA_SETS.register(name, DataSet(read, splits, needs_root))
