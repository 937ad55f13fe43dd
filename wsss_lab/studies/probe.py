"""Time a run at full size without its data: `python -m wsss_lab.studies.probe METHOD PRESET`.

Random weights and random images of the data set's usual size cost as much time and memory as real
ones, except for reading and decoding files, which is not timed.
"""

import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import tyro
from tyro.conf import Positional, arg

from wsss_lab.config import OutputError
from wsss_lab.methods import find_preset
from wsss_lab.plan.long_run import probe
from wsss_lab.runs.folder import write_json
from wsss_lab.runs.settings import with_changes


@dataclass(frozen=True)
class Options:
    """Run to time."""

    method: Positional[str]
    """tscd, asdt, acr or cosa."""
    preset: Positional[str] = "toy"
    """Preset to start from, e.g. voc, coco or stuff10k."""
    steps: int = 10
    """Training steps to time of each kind, after two to warm up."""
    images: int = 16
    """Images to label and to score."""
    change: Annotated[tuple[str, ...], arg(metavar="NAME=VALUE")] = field(default=())
    """Other settings by their names on the command line, values as in JSON, e.g. run.batch=8
    run.precision=bf16-mixed."""
    out: Path | None = None
    """JSON file to write as well."""


def main(arguments: list[str] | None = None) -> int:
    """Time the run, print the plan as table and JSON; return 2 if the input is wrong."""
    options = tyro.cli(Options, prog="python -m wsss_lab.studies.probe", args=arguments)
    try:
        config = find_preset(options.method, options.preset)
        config = with_changes(config, dict(_setting(text) for text in options.change))
        found = probe(options.method, config, options.steps, options.images)
        plan = found.pop("plan")
        found = {"preset": options.preset, **found, **plan.as_dict()}
        print(plan, file=sys.stderr)
        print(json.dumps(found, indent=1))
        if options.out:
            options.out.parent.mkdir(parents=True, exist_ok=True)
            write_json(options.out, found)
    except (ValueError, OutputError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _setting(text: str) -> tuple[str, Any]:
    """Parse `NAME=VALUE`; a value that is not JSON is text."""
    name, equals, value = text.partition("=")
    if not equals:
        raise ValueError(f"change: expected NAME=VALUE, got {text!r}")
    try:
        return name, json.loads(value)
    except json.JSONDecodeError:
        return name, value


if __name__ == "__main__":
    sys.exit(main())
