"""The command `data`: make, fetch or check a data set."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import subcommand

from wsss_lab.ranges import Count, Range, Seed, Settings

Split = Literal["pretrain", "train", "val"]


@dataclass(frozen=True)
class Toy(Settings):
    """Write part of the toy world in VOC layout: JPEGImages, SegmentationClass, tags.csv."""

    out: Path
    """Folder to write to; must be new, empty, or hold the same export."""
    split: Split = "train"
    """`pretrain` has one object an image, `train` and `val` one to four."""
    count: Count = 100
    """Number of images."""
    seed: Seed = 0
    """Same seed, same images, on every machine."""
    size: Annotated[int, Range("[1, 4096]")] = 128
    """Side of the square images in px."""

    def run(self) -> int:
        """Write the images and print where."""
        from wsss_lab.data.toy import write_voc

        write_voc(self.out, split=self.split, count=self.count, seed=self.seed, size=self.size)
        print(f"{self.count} images of split {self.split} in {self.out}")
        return 0


@dataclass(frozen=True)
class Voc:
    """PASCAL VOC 2012 and SBD: fetch, verify, and build train_aug with tags."""

    root: Path
    """Folder for the archives and what is made of them."""
    download: bool = True
    """Fetch missing archives; otherwise name those that are missing, and their place."""

    def run(self) -> int:
        """Prepare the data set and print a summary."""
        from wsss_lab.data.prepare import prepare_voc

        print(prepare_voc(self.root, download=self.download))
        return 0


@dataclass(frozen=True)
class VocMini:
    """2,750 photos of PASCAL VOC at a long side of 320 px, for runs on a CPU."""

    root: Path
    """Folder for the archives and what is made of them."""
    download: bool = True
    """Fetch missing archives; otherwise name those that are missing, and their place."""

    def run(self) -> int:
        """Prepare the data set and print a summary."""
        from wsss_lab.data.prepare import prepare_voc_mini

        print(prepare_voc_mini(self.root, download=self.download))
        return 0


@dataclass(frozen=True)
class Coco:
    """MS COCO 2014: fetch, verify, and draw 80-class masks from the annotations."""

    root: Path
    """Folder for the archives and what is made of them."""
    download: bool = True
    """Fetch missing archives; otherwise name those that are missing, and their place."""

    def run(self) -> int:
        """Prepare the data set and print a summary."""
        from wsss_lab.data.prepare import prepare_coco

        print(prepare_coco(self.root, download=self.download))
        return 0


@dataclass(frozen=True)
class Stuff10k:
    """COCO-Stuff 10K v1.1: fetch, verify, and map 182 label ids to 171 classes."""

    root: Path
    """Folder for the archive and what is made of it."""
    download: bool = True
    """Fetch the archive if it is missing; otherwise name it, and its place."""
    accept_unverified: bool = False
    """Take what the server sends, although no checksum of this archive is published."""

    def run(self) -> int:
        """Prepare the data set and print a summary."""
        from wsss_lab.data.prepare import prepare_stuff10k

        print(
            prepare_stuff10k(self.root, download=self.download, unverified=self.accept_unverified)
        )
        return 0


@dataclass(frozen=True)
class Check:
    """Look through a prepared data set and list every problem at once."""

    root: Path
    """Folder of the data set."""

    def run(self) -> int:
        """Print the report; exit code 1 if there is a problem."""
        from wsss_lab.data.prepare import check_report

        text, problems = check_report(self.root)
        print(text)
        return 1 if problems else 0


@dataclass(frozen=True)
class Data:
    """Make, fetch or check a data set."""

    what: (
        Annotated[Toy, subcommand("toy")]
        | Annotated[Voc, subcommand("voc")]
        | Annotated[VocMini, subcommand("voc-mini")]
        | Annotated[Coco, subcommand("coco")]
        | Annotated[Stuff10k, subcommand("stuff10k")]
        | Annotated[Check, subcommand("check")]
    )

    def run(self) -> int:
        """Pass on to the chosen data set."""
        return self.what.run()
