"""Command line: `python -m wsss_lab {info,data,train,plan,eval,predict}`.

Every command is a dataclass: its fields are the options, the docstrings under them are the help,
`run` does the work and returns the exit code (0 done, 1 problems found, 2 bad input).
"""

import dataclasses
import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from tyro.conf import Positional, subcommand

from wsss_lab.commands import PROGRAM, parse, plan, score, train
from wsss_lab.printable import one_line, printable, printable_output
from wsss_lab.ranges import Count, Range, Seed, Settings, Share

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
class VocMini:
    """2,750 photos of PASCAL VOC at a long side of 320 px, for runs on a CPU."""

    root: Path
    """Folder for the archives and what is made of them."""
    download: bool = True
    """Fetch missing archives; otherwise say what to put where."""

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


@dataclass(frozen=True)
class Eval(Settings):
    """Compare masks with the truth, class by class; or `eval METHOD --weights FILE` a network."""

    pred: Path
    """Folder of predicted masks, `<name>.png`, palette or grey."""
    truth: Path
    """Folder of true masks, `<name>.png`; 255 is left out."""
    list: Path
    """Text file with one image name a line."""
    classes: Annotated[int, Range("[2, 255]")] = 21
    """Number of classes with background."""
    json: bool = False
    """Print machine-readable JSON instead of the table."""

    def run(self) -> int:
        """Print the report."""
        from wsss_lab.evaluate.evaluate import run_eval

        return run_eval(self.pred, self.truth, self.list, self.classes, as_json=self.json)


@dataclass(frozen=True)
class Train:
    """Train a method from data to metrics.json; `train METHOD --help` lists every setting."""

    method: Positional[str]
    """A method of `python -m wsss_lab info`, for example cam_baseline."""
    preset: str
    """Settings to start from: toy, voc, coco or stuff10k, some methods also with -released."""
    out: Path
    """Folder of the run: new, or with --resume that of a run that was interrupted."""
    resume: bool = False
    """Go on with the run in the folder. Without --preset, its own settings hold."""

    def run(self) -> int:
        """Train with the preset as it is."""
        more = ["--resume"] if self.resume else []
        return train([self.method, "--preset", self.preset, "--out", str(self.out), *more])


@dataclass(frozen=True)
class Plan:
    """Hours, memory and disk of a run beforehand; `plan METHOD --help` lists every setting."""

    method: Positional[str]
    """A method of `python -m wsss_lab info`, for example cosa."""

    def run(self) -> int:
        """Plan the preset toy."""
        return plan([self.method])


@dataclass(frozen=True)
class Predict(Settings):
    """Name and outline what is in images: a mask and an overlay per image, no tags needed."""

    images: Positional[Path]
    """An image file, or a folder of them."""
    out: Path
    """Folder for the masks and overlays."""
    weights: Path | None = None
    """Folder of a trained run, its model.safetensors, or a released checkpoint; else the packaged
    toy classifier."""
    threshold: Share = 0.4
    """Background threshold on normalised class activation maps, 0..1."""
    soft: bool = False
    """Also write the class probabilities, <name>.npz."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to compute."""

    def run(self) -> int:
        """Write `<name>.png` and `<name>_overlay.jpg` per image."""
        from wsss_lab.evaluate.predict import predict_folder

        trained = None
        if self.weights is not None:
            from wsss_lab.runs.weights import load_trained

            trained = load_trained(self.weights)
        options: dict[str, Any] = {"trained": trained, "soft": self.soft}
        for line in predict_folder(
            self.images, self.out, self.threshold, device=self.device, **options
        ):
            print(line)
        return 0


@dataclass(frozen=True)
class Info:
    """Methods, presets, versions, backbones and packaged weights, as JSON."""

    weights: Path | None = None
    """Say whose checkpoint this file (or run folder) is instead, and load it strictly; nothing in
    it is run."""

    def run(self) -> int:
        """Print the facts."""
        import json

        if self.weights:
            from wsss_lab.runs.identify import identify

            facts: Any = dataclasses.asdict(identify(self.weights))
        else:
            from wsss_lab.runs.describe import describe

            facts = describe()
        print(json.dumps(facts, indent=2, sort_keys=True))
        return 0


Command = (
    Annotated[Info, subcommand("info")]
    | Annotated[Data, subcommand("data")]
    | Annotated[Train, subcommand("train")]
    | Annotated[Plan, subcommand("plan")]
    | Annotated[Eval, subcommand("eval")]
    | Annotated[Predict, subcommand("predict")]
)


CONFIG = (tyro.conf.OmitSubcommandPrefixes, tyro.conf.OmitArgPrefixes)


def _use(arguments: list[str]) -> list[str]:
    """Run the files of `--use FILE.py` (any number, anywhere); return the other arguments.

    Raises:
        FileNotFoundError: there is no such file.
    """
    from wsss_lab.registry import use_file

    rest, waiting = [], False
    for argument in arguments:
        name, equals, value = argument.partition("=")
        if waiting or (name == "--use" and equals):
            use_file(argument if waiting else value)
            waiting = False
        elif name == "--use":
            waiting = True
        else:
            rest.append(argument)
    if waiting:
        raise ValueError("use: expected a Python file after --use, got nothing")
    return rest


def main(arguments: list[str] | None = None) -> int:
    """Run one command; problems with its input or output end in one line and exit code 2."""
    given = sys.argv[1:] if arguments is None else arguments
    try:
        given = _use(given)
        commands = {"train": train, "plan": plan, "eval": score}
        if given and given[0] in commands and len(given) > 1 and not given[1].startswith("-"):
            with printable_output():
                return commands[given[0]](given[1:])
        command = parse(
            Command,
            given,
            prog=PROGRAM,
            config=CONFIG,
            description="Weakly supervised semantic segmentation, from tags to pixels. With "
            "`--use FILE.py` any command also knows the methods, backbones and data sets that the "
            "file registers.",
        )
        with printable_output():
            return command.run()
    except KeyboardInterrupt as stop:
        if os.environ.get("LOCAL_RANK", "0") != "0":
            return 0  # the first process tells it
        print(printable(str(stop)) or "interrupted", file=sys.stderr)
        return 143 if type(stop).__name__ == "Terminated" else 130
    except BrokenPipeError:  # as `| head` does; training survives it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except Exception as error:
        message = remedy_of(error)
        if message is None:
            raise  # a defect: its traceback is wanted
        print(f"error: {one_line(message)}", file=sys.stderr)
        return 2


EXPECTED = ("OutputError", "OutOfMemoryError")
"""Runtime errors that are the user's to solve."""
NO_MEMORY = re.compile(r"out of memory|not enough memory|can't allocate memory", re.IGNORECASE)
"""PyTorch's words for it, where it has no type of its own."""


def remedy_of(error: Exception) -> str | None:
    """What to print of an error that a user can solve; None for defects of this package."""
    if isinstance(error, MemoryError) or NO_MEMORY.search(str(error)):
        text = " ".join(str(error).partition("\n")[0].split())[:160] or "out of memory"
        return (
            f"the memory is not enough ({text}); use smaller batches (run.batch, test.batch), more "
            "run.accumulate, smaller crops or another machine"
        )
    if isinstance(error, ImportError):
        return str(error) if "pip install" in str(error) else None
    if isinstance(error, RuntimeError) and type(error).__name__ not in EXPECTED:
        return None
    known = (ValueError, OSError, RuntimeError, FloatingPointError, OverflowError)
    return str(error) if isinstance(error, known) else None


if __name__ == "__main__":
    sys.exit(main())
