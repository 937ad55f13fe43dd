"""The toy world as a data set, as stacked tensors, and as a folder in the layout of PASCAL VOC."""

import csv
import io
import multiprocessing
import sys
import warnings
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NotRequired, TypedDict

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from wsss_lab.config import write_atomically, write_text_atomically
from wsss_lab.data.catalog import TOY_CLASSES, voc_palette
from wsss_lab.data.sample import Sample
from wsss_lab.data.toy.knobs import ToyKnobs
from wsss_lab.data.toy.scene import SPLITS, Scene, scene
from wsss_lab.data.workers import worker_pool

TOY_VERSION = "toy-1"
"""Version of the scenes; changed whenever a pixel of any scene changes."""


TAGS_HEADER = ",".join(["name", *TOY_CLASSES]) + "\n"


class ToySample(Sample):
    """`Sample` of a toy world, with further pixel truth if made with `extras=True`."""

    distinctive: NotRequired[Bool[Tensor, "h w"]]
    """Pixels of distinctive parts."""
    context: NotRequired[UInt8[Tensor, "h w"]]
    """0 none, 1 water, 2 rails."""
    instance: NotRequired[UInt8[Tensor, "h w"]]
    """0 no object, 1..4 objects."""
    part: NotRequired[UInt8[Tensor, "h w"]]
    """Index into `PART_KINDS`."""


class ToyTensors(TypedDict):
    """Rendered split in memory; every entry has one row per scene."""

    image: UInt8[Tensor, "b 3 h w"]
    tags: Float[Tensor, "b k"]
    mask: UInt8[Tensor, "b h w"]
    """0 background, 1..k classes, 255 ignored. uint8: convert with `.long()` where it is used."""
    distinctive: Bool[Tensor, "b h w"]
    context: UInt8[Tensor, "b h w"]
    instance: UInt8[Tensor, "b h w"]


class ToyWorld(Dataset[ToySample]):
    """Split of the toy world, drawn on demand.

    Args:
        split: "train", "val", or "pretrain" (one object a scene); disjoint scenes.
        count: number of scenes.
        seed: seed of the world; another one gives other scenes in every split.
        size: image side in pixels.
        knobs: settings of the scenes.
        masks: add the pixel truth.
        extras: add distinctive parts, contexts, instances and parts.

    Raises:
        ValueError: an argument is out of range.
    """

    classes = TOY_CLASSES
    """Foreground classes; tag `c` belongs to mask value `c + 1`."""

    def __init__(
        self,
        split: str = "train",
        count: int = 6000,
        seed: int = 0,
        size: int = 128,
        knobs: ToyKnobs | None = None,
        masks: bool = False,
        extras: bool = False,
    ) -> None:
        _check_count(count)
        self.split, self.count, self.seed, self.size = split, count, seed, size
        self.knobs, self.masks, self.extras = knobs or ToyKnobs(), masks, extras
        scene(seed, 0, self.knobs, size=size, split=split)  # raises now if an argument is wrong

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the k foreground classes, as `classes`."""
        return self.classes

    @property
    def num_classes(self) -> int:
        """Number k of classes, without background."""
        return len(self.classes)

    @property
    def names(self) -> list[str]:
        """Scene names, in order."""
        return [self.name(i) for i in range(self.count)]

    def __len__(self) -> int:
        return self.count

    def scene(self, index: int) -> Scene:
        """Draw the scene of an index, as arrays."""
        if not 0 <= index < self.count:
            raise IndexError(f"index: expected 0..{self.count - 1}, got {index}")
        return scene(self.seed, index, self.knobs, size=self.size, split=self.split)

    def name(self, index: int) -> str:
        """Return the name of a scene, unique over splits of one seed."""
        return f"{TOY_VERSION}_{self.split}_{index:06d}"

    def __getitem__(self, index: int) -> ToySample:
        drawn = self.scene(index)
        sample: ToySample = {
            "image": torch.from_numpy(np.ascontiguousarray(drawn.image.transpose(2, 0, 1))),
            "tags": torch.from_numpy(drawn.tags.astype(np.float32)),
            "name": self.name(index),
        }
        if self.masks:
            sample["mask"] = torch.from_numpy(drawn.mask.astype(np.int64))
        if self.extras:
            sample["distinctive"] = torch.from_numpy(drawn.distinctive)
            sample["context"] = torch.from_numpy(drawn.context)
            sample["instance"] = torch.from_numpy(drawn.instance)
            sample["part"] = torch.from_numpy(drawn.part)
        return sample

    def tensors(self, workers: int = 2) -> ToyTensors:
        """Draw the whole split into memory with `workers` processes."""
        return render(
            self.split,
            range(self.count),
            seed=self.seed,
            size=self.size,
            knobs=self.knobs,
            workers=workers,
        )


def _check_count(count: int) -> None:
    if count < 1:
        raise ValueError(f"count: expected at least 1 scene, got {count!r}")


def _stack(
    indices: Sequence[int], seed: int, size: int, knobs: ToyKnobs | None, split: str
) -> dict[str, np.ndarray]:
    """Draw the scenes of some indices, stacked."""
    scenes = [scene(seed, i, knobs, size=size, split=split) for i in indices]
    stacked = {
        name: np.stack([getattr(s, name) for s in scenes])
        for name in ("mask", "distinctive", "context", "instance")
    }
    stacked["image"] = np.stack([s.image.transpose(2, 0, 1) for s in scenes])
    stacked["tags"] = np.stack([s.tags for s in scenes]).astype(np.float32)
    return stacked


def render(
    split: str,
    indices: Sequence[int],
    *,
    seed: int = 0,
    size: int = 128,
    knobs: ToyKnobs | None = None,
    workers: int = 2,
) -> ToyTensors:
    """Draw scenes once, for training from memory.

    Args:
        split: one of `SPLITS`.
        indices: indices of the scenes, in this order.
        seed: seed of the world.
        size: image side in pixels.
        knobs: settings of the scenes.
        workers: processes; 0 or 1 draws in this process. The result does not depend on it.

    Returns:
        Stacked tensors, about `7 * size * size` bytes per scene.

    Raises:
        ValueError: an argument is out of range.
    """
    _check_count(len(indices))
    draw = partial(_stack, seed=seed, size=size, knobs=knobs, split=split)
    chunks = [indices[k : k + 64] for k in range(0, len(indices), 64)]
    if workers <= 1 or len(chunks) == 1:
        stacks = [draw(chunk) for chunk in chunks]
    else:
        draw(indices[:1])  # raises here if an argument is wrong; children inherit the textures
        method = "fork" if sys.platform == "linux" else "spawn"
        with warnings.catch_warnings():
            # the children touch numpy only, so threads of the parent do not matter to them
            warnings.filterwarnings("ignore", message=".*fork.*", category=DeprecationWarning)
            context = multiprocessing.get_context(method)
            with worker_pool(workers, context) as pool:
                stacks = list(pool.map(draw, chunks))
    tensors = {
        name: torch.from_numpy(np.concatenate([stack.pop(name) for stack in stacks]))
        for name in list(stacks[0])
    }
    return ToyTensors(**tensors)  # type: ignore[typeddict-item]


def write_voc(
    out: str | Path,
    split: str = "train",
    count: int = 6000,
    seed: int = 0,
    size: int = 128,
    knobs: ToyKnobs | None = None,
) -> Path:
    """Write a split as a folder in the layout of PASCAL VOC.

    `JPEGImages/*.jpg` (quality 95), `SegmentationClass/*.png` (palette),
    `ImageSets/Segmentation/<split>.txt`, `tags.csv` (name and one 0/1 column a class; splits
    written later are appended) and `classes.txt` (background first).

    Args:
        out: folder; new, empty, or a toy world that lacks this split.
        split: one of `SPLITS`.
        count: number of scenes.
        seed: seed of the world.
        size: image side in pixels.
        knobs: settings of the scenes.

    Returns:
        The folder.

    Raises:
        ValueError: an argument is out of range.
        FileExistsError: the folder has other content, or this split already.
    """
    world = ToyWorld(split, count, seed, size, knobs, masks=True)
    out = Path(out)
    _check_target(out, split)
    folders = [out / "JPEGImages", out / "SegmentationClass", out / "ImageSets" / "Segmentation"]
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)
    write_text_atomically(out / "classes.txt", "\n".join(("background", *TOY_CLASSES)) + "\n")
    palette = voc_palette().ravel().tolist()
    rows = []
    for index in range(count):
        drawn, name = world.scene(index), world.name(index)
        mask = Image.fromarray(drawn.mask, mode="P")
        mask.putpalette(palette)
        _write_picture(folders[0] / f"{name}.jpg", Image.fromarray(drawn.image), quality=95)
        _write_picture(folders[1] / f"{name}.png", mask)
        rows.append([name, *drawn.tags.tolist()])
    text, tags = io.StringIO(newline=""), out / "tags.csv"
    text.write(tags.read_text() if tags.exists() else TAGS_HEADER)
    known = {line.partition(",")[0] for line in text.getvalue().splitlines()}
    csv.writer(text, lineterminator="\n").writerows(row for row in rows if row[0] not in known)
    write_text_atomically(tags, text.getvalue())
    write_text_atomically(folders[2] / f"{split}.txt", "".join(f"{row[0]}\n" for row in rows))
    return out


def _write_picture(path: Path, picture: Image.Image, **options: Any) -> None:
    """Write an image file atomically; one that an interrupted export has left may be there.

    Raises:
        FileExistsError: another file of this name is there.
    """
    content = io.BytesIO()
    picture.save(content, "JPEG" if path.suffix == ".jpg" else "PNG", **options)
    if path.exists():
        if path.read_bytes() != content.getvalue():
            raise FileExistsError(f"out: {path} is another picture; choose a new or empty folder")
        return
    write_atomically(path, lambda file: file.write(content.getvalue()))


def _check_target(out: Path, split: str) -> None:
    """Raise FileExistsError if writing would mix with or replace other files."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    listed = out / "ImageSets" / "Segmentation" / f"{split}.txt"
    if listed.exists():
        raise FileExistsError(f"out: {out} already has a split {split!r}; choose another folder")
    classes = out / "classes.txt"
    tags = out / "tags.csv"
    ours = classes.is_file() and classes.read_text().split() == ["background", *TOY_CLASSES]
    if not ours or (tags.exists() and not tags.read_text().startswith(TAGS_HEADER)):
        raise FileExistsError(f"out: {out} has other content; choose a new or empty folder")


__all__ = ["SPLITS", "TOY_VERSION", "ToySample", "ToyTensors", "ToyWorld", "render", "write_voc"]
