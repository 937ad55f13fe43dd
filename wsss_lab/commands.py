"""Commands whose options are the settings of a method: `train`, `plan` and `eval METHOD`."""

import contextlib
import dataclasses
import io
import os
import re
import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

import tyro

from wsss_lab.ranges import Count, Settings, check, checks_later, spelled

PROGRAM = "python -m wsss_lab"


def train(arguments: list[str]) -> int:
    """`train METHOD ...`: the options are the fields of the method's settings.

    Args:
        arguments: what follows `train`.
    """
    from wsss_lab.data.workers import PARENT, end_with_parent
    from wsss_lab.runs.recipe import find_recipe
    from wsss_lab.train.stop import raised_by_sigterm

    if parent := os.environ.pop(PARENT, ""):
        end_with_parent(int(parent))
    method = arguments[0]
    recipe = find_recipe(method)
    preset, out = (_option(arguments, name) for name in ("preset", "out"))
    if preset is None and "--resume" in arguments and out and (Path(out) / "config.json").exists():
        from wsss_lab.runs.folder import read_run, restore

        there = read_run(Path(out))
        if there["method"] != method:
            raise ValueError(f"out: {out} holds a run of {there['method']}, not of {method}")
        default = restore(recipe.config, there["config"], Path(out) / "config.json")
    else:
        default = recipe.preset(preset or "toy")
    settings: Any = parse(
        dataclasses.make_dataclass(
            "Train",
            [
                ("out", _setting(Path, "Folder of the run.")),
                ("resume", _setting(bool, "Go on with the run in the folder."), False),
                (
                    "preset",
                    _setting(str, f"One of {', '.join(recipe.presets)}."),
                    preset or "toy",
                ),
                ("config", _unnamed(recipe.config), _default(default)),
            ],
            frozen=True,
        ),
        arguments[1:],
        prog=f"{PROGRAM} train {method}",
        description=f"{recipe.summary}. The values shown are those of the preset.",
    )
    try:
        with raised_by_sigterm():
            recipe.train(settings.config, settings.out, settings.resume)
    except KeyboardInterrupt as stop:
        command = f"{PROGRAM} train {method} --out {shlex.quote(str(settings.out))} --resume"
        raise type(stop)(f"{stop or 'interrupted'}. Go on with: {command}") from None
    return 0


def plan(arguments: list[str]) -> int:
    """`plan METHOD ...`: time a few steps and images, and print hours, memory and disk of a run.

    Args:
        arguments: what follows `plan`; settings as for `train`.
    """
    import json

    from wsss_lab.config import write_json
    from wsss_lab.plan.long_run import probe
    from wsss_lab.runs.recipe import find_recipe

    method = arguments[0]
    recipe = find_recipe(method)
    preset = _option(arguments, "preset") or "toy"
    settings: Any = parse(
        dataclasses.make_dataclass(
            "Plan",
            [
                ("preset", _setting(str, f"One of {', '.join(recipe.presets)}."), preset),
                ("out", _setting(Path | None, "JSON file to write, too."), None),
                ("timed_steps", _setting(Count, "Steps of each kind to time; two warm up."), 10),
                ("timed_images", _setting(Count, "Images to label and to score."), 16),
                ("config", _unnamed(recipe.config), _default(recipe.preset(preset))),
            ],
            bases=(Settings,),
            frozen=True,
        ),
        arguments[1:],
        prog=f"{PROGRAM} plan {method}",
        description="Hours, memory and disk of a run beforehand. Images and weights are random, "
        "of the data set's usual size: reading and decoding files is not timed.",
    )
    found = probe(method, settings.config, settings.timed_steps, settings.timed_images)
    table = found.pop("plan")
    found = {"preset": preset, **found, **table.as_dict()}
    print(table, file=sys.stderr)
    print(json.dumps(found, indent=1))
    if settings.out:
        settings.out.parent.mkdir(parents=True, exist_ok=True)
        write_json(settings.out, found)
    return 0


def score(arguments: list[str]) -> int:
    """`eval METHOD --weights FILE`: score a network with true tags and without, side by side.

    Args:
        arguments: what follows `eval`.
    """
    import json

    from wsss_lab.runs.recipe import find_recipe
    from wsss_lab.runs.weights import ScoreConfig, load_trained, score_config, score_weights

    method = arguments[0]
    recipe, weights = find_recipe(method), _option(arguments, "weights")
    trained = load_trained(Path(weights), method) if weights else None
    default = score_config(trained.config if trained else recipe.preset("toy"))
    settings: Any = parse(
        dataclasses.make_dataclass(
            "Eval",
            [
                ("weights", _setting(Path, "Run folder, model.safetensors, or released file.")),
                ("out", _setting(Path | None, "JSON file for all numbers."), None),
                ("json", _setting(bool, "Print that instead of the tables."), False),
                ("config", _unnamed(ScoreConfig), _default(default)),
            ],
            frozen=True,
        ),
        arguments[1:],
        prog=f"{PROGRAM} eval {method}",
        description="Score a network. The values shown are those that come with its weights.",
    )
    assert trained is not None  # the parser insists on --weights
    lines: list[str] = []
    found = score_weights(trained, settings.config, out=settings.out, log=lines.append)
    print(json.dumps(found, indent=2, sort_keys=True) if settings.json else "\n".join(lines))
    return 0


def _setting(kind: Any, text: str) -> Any:
    """Type of an option, with its help."""
    return Annotated[kind, tyro.conf.arg(help=text)]


def _default(value: Any) -> Any:
    """Default of a field that is itself a dataclass."""
    return dataclasses.field(default=value)


def _unnamed(kind: Any) -> Any:
    """Type of settings whose names come without a prefix."""
    return Annotated[kind, tyro.conf.arg(name="")]


def _option(arguments: list[str], name: str) -> str | None:
    """Value of `--name value` or `--name=value`, the last one as in tyro, if it is there."""
    found = None
    for argument, following in zip(arguments, [*arguments[1:], None], strict=True):
        if argument == f"--{name}":
            found = following
        elif argument.startswith(f"--{name}="):
            found = argument.partition("=")[2]
    return found


def parse(kind: Any, arguments: list[str] | None, **options: Any) -> Any:
    """Parse arguments with tyro.

    Args:
        kind: dataclass, or union of dataclasses, whose fields are the options.
        arguments: words of the command line; None takes those of this process.
        **options: of `tyro.cli`.

    Raises:
        ValueError: they do not fit; one line that names the option.
    """
    caught = io.StringIO()
    try:
        with contextlib.redirect_stderr(caught), checks_later():
            found = tyro.cli(kind, args=arguments, **options)
    except SystemExit as stop:
        if not stop.code:
            raise
        raise ValueError(_one_line(caught.getvalue())) from None
    check(found, spelled, unnamed=("config", "what"))
    return found


def _one_line(text: str) -> str:
    """The sentences of a box drawn on the terminal, without the box."""
    rows = [re.sub(r"[\u2500-\u257f]+", " ", row).strip() for row in text.splitlines()]
    rows = [row for row in rows if row and row not in ("Parsing error", "Required options")]
    return re.sub(r"\s+", " ", " ".join(rows))
