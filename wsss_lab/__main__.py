"""Command line, `python -m wsss_lab` or `wsss-lab`, see `--help` for its commands.

Every command is a dataclass: its fields are the options, the docstrings under them are the help,
`run` does the work and returns the exit code (0 done, 1 problems found, 2 bad input).
"""

import dataclasses
import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro
from tyro.conf import Positional, subcommand

from wsss_lab import __version__
from wsss_lab.commands.data import Data
from wsss_lab.commands.images import Eval, Explain, Predict
from wsss_lab.commands.methods import plan, score, train
from wsss_lab.commands.options import PROGRAM, parse
from wsss_lab.commands.report import Report
from wsss_lab.printable import one_line, printable, printable_output
from wsss_lab.progress import close_bars
from wsss_lab.train.environment import require_readable_environment


@dataclass(frozen=True)
class Train:
    """Train a method and score it; `train METHOD --help` lists every setting."""

    method: Annotated[Positional[str], tyro.conf.arg(metavar="METHOD")]
    """A method of `python -m wsss_lab info`, for example cam_baseline."""
    preset: str
    """Settings to start from: tiny (two minutes on a laptop), toy (10 to 30 minutes), voc-mini,
    voc, coco or stuff10k, some methods also with -released."""
    out: Path
    """Folder of the run: new, or with --resume that of a run that was interrupted."""
    resume: bool = False
    """Go on with the run in the folder. Without --preset, its own settings hold."""
    overwrite: bool = False
    """Replace the run in the folder, if one is."""

    def run(self) -> int:
        """Train with the preset as it is."""
        more = ["--resume"] if self.resume else []
        more += ["--overwrite"] if self.overwrite else []
        return train([self.method, "--preset", self.preset, "--out", str(self.out), *more])


@dataclass(frozen=True)
class Plan:
    """Hours, memory and disk of a run; `plan METHOD --help` lists every setting."""

    method: Annotated[Positional[str], tyro.conf.arg(metavar="METHOD")]
    """A method of `python -m wsss_lab info`, for example cosa."""

    def run(self) -> int:
        """Plan the preset toy."""
        return plan([self.method])


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
    | Annotated[Explain, subcommand("explain")]
    | Annotated[Report, subcommand("report")]
)


DESCRIPTION = """Weakly supervised semantic segmentation, from tags to pixels.

With `--use FILE.py` any command also knows what that file registers: methods,
backbones, data sets. `--version` prints the version.

First steps: `data toy --out toy`, `predict toy/JPEGImages --out masks`,
`train cam_baseline --preset tiny --out run`. For a photo of yours: `explain PHOTO`."""
CONFIG = (tyro.conf.OmitSubcommandPrefixes, tyro.conf.OmitArgPrefixes)


PLACES = {
    "toy": "--out",
    **dict.fromkeys(("voc", "voc-mini", "coco", "stuff10k", "check"), "--root"),
}
"""`data` sub-command -> option of the folder, whose name may be left out."""


def _placed(arguments: list[str]) -> list[str]:
    """Name the folder of `data check FOLDER`, which stands there without its option."""
    if arguments[:1] == ["data"] and len(arguments) > 2 and not arguments[2].startswith("-"):
        option = PLACES.get(arguments[1])
        return [*arguments[:2], option, *arguments[2:]] if option else arguments
    return arguments


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
    if given == ["--version"]:
        print(f"wsss-lab {__version__}")
        return 0
    try:
        require_readable_environment()
        if given in (["train"], ["plan"]):
            raise ValueError(_which_method(given[0]))
        given = _placed(_use(given))
        commands = {"train": train, "plan": plan, "eval": score}
        if given and given[0] in commands and len(given) > 1 and not given[1].startswith("-"):
            with printable_output():
                return commands[given[0]](given[1:])
        command = parse(
            Command,
            given,
            prog=PROGRAM,
            config=CONFIG,
            description=DESCRIPTION,
        )
        with printable_output():
            return command.run()
    except KeyboardInterrupt as stop:
        if os.environ.get("LOCAL_RANK", "0") != "0":
            return 0  # the first process tells it
        close_bars()
        print(printable(str(stop)) or "interrupted", file=sys.stderr)
        return 143 if type(stop).__name__ == "Terminated" else 130
    except BrokenPipeError:  # as `| head` does; training survives it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except Exception as error:
        close_bars()
        message = remedy_of(error)
        if message is None:
            raise  # a defect: its traceback is wanted
        print(f"error: {one_line(message)}", file=sys.stderr)
        return 2


def _which_method(command: str) -> str:
    """What is missing from a command that was given nothing."""
    from wsss_lab.runs.recipe import RECIPES

    rest = " --out runs/a" if command == "train" else ""
    return (
        f"{command}: expected a method ({', '.join(RECIPES)}), got none; "
        f"for example `{PROGRAM} {command} cam_baseline --preset tiny{rest}`"
    )


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
