"""Command line: `python -m wsss_lab {info,data,eval,predict}`.

Every command is a dataclass: its fields are the options, the docstrings under them are the help,
`run` does the work and returns the exit code (0 done, 1 problems found, 2 bad input).
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro
from tyro.conf import Positional, subcommand

Split = Literal["pretrain", "train", "val"]


@dataclass(frozen=True)
class Toy:
    """Write part of the toy world in VOC layout: JPEGImages, SegmentationClass, tags.csv."""

    out: Path
    """Folder to write to; must be new, empty, or hold the same export."""
    split: Split = "train"
    """`pretrain` has one object an image, `train` and `val` one to four."""
    count: int = 100
    """Number of images."""
    seed: int = 0
    """Same seed, same images, on every machine."""
    size: int = 128
    """Side of the square images in px."""

    def run(self) -> int:
        """Write the images and say where."""
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
    """Fetch missing archives; otherwise say what to put where."""

    def run(self) -> int:
        """Prepare the data set and print a summary."""
        from wsss_lab.data.prepare import prepare_voc

        print(prepare_voc(self.root, download=self.download))
        return 0


@dataclass(frozen=True)
class Coco:
    """MS COCO 2014: fetch, verify, and draw 80-class masks from the annotations."""

    root: Path
    """Folder for the archives and what is made of them."""
    download: bool = True
    """Fetch missing archives; otherwise say what to put where."""

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
    """Fetch the archive if it is missing; otherwise say what to put where."""

    def run(self) -> int:
        """Prepare the data set and print a summary."""
        from wsss_lab.data.prepare import prepare_stuff10k

        print(prepare_stuff10k(self.root, download=self.download))
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
        | Annotated[Coco, subcommand("coco")]
        | Annotated[Stuff10k, subcommand("stuff10k")]
        | Annotated[Check, subcommand("check")]
    )

    def run(self) -> int:
        """Pass on to the chosen data set."""
        return self.what.run()


@dataclass(frozen=True)
class Eval:
    """Compare predicted masks with the truth, class by class, and say under which protocol."""

    pred: Path
    """Folder of predicted masks, `<name>.png`, palette or grey."""
    truth: Path
    """Folder of true masks, `<name>.png`; 255 is left out."""
    list: Path
    """Text file with one image name a line."""
    classes: int = 21
    """Number of classes with background."""
    json: bool = False
    """Print machine-readable JSON instead of the table."""

    def run(self) -> int:
        """Print the report."""
        from wsss_lab.engine.evaluate import run_eval

        return run_eval(self.pred, self.truth, self.list, self.classes, as_json=self.json)


@dataclass(frozen=True)
class Predict:
    """Name and outline what is in images, with a toy network: one mask PNG per image."""

    images: Positional[Path]
    """An image file, or a folder of them. No tags are needed."""
    out: Path
    """Folder for the masks and overlays."""
    threshold: float = 0.4
    """Background threshold on the normalised class activation map, 0..1."""

    def run(self) -> int:
        """Write `<name>.png` and `<name>_overlay.jpg` per image."""
        from wsss_lab.engine.predict import predict_folder

        for line in predict_folder(self.images, self.out, threshold=self.threshold):
            print(line)
        return 0


@dataclass(frozen=True)
class Info:
    """Versions, backbones and packaged weights, as JSON."""

    def run(self) -> int:
        """Print the facts."""
        import json

        from wsss_lab.engine.predict import describe

        print(json.dumps(describe(), indent=2, sort_keys=True))
        return 0


Command = (
    Annotated[Info, subcommand("info")]
    | Annotated[Data, subcommand("data")]
    | Annotated[Eval, subcommand("eval")]
    | Annotated[Predict, subcommand("predict")]
)


def main(arguments: list[str] | None = None) -> int:
    """Run one command; problems with its input end in one line and exit code 2."""
    command = tyro.cli(
        Command,  # type: ignore[arg-type]
        args=arguments,
        prog="python -m wsss_lab",
        config=(tyro.conf.OmitSubcommandPrefixes, tyro.conf.OmitArgPrefixes),
        description="Weakly supervised semantic segmentation, from tags to pixels.",
    )
    try:
        return command.run()
    except (ValueError, FileNotFoundError, FileExistsError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
