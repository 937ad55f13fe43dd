"""Commands whose options are the settings of a method: `train`, `plan` and `eval METHOD`."""

import dataclasses
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from wsss_lab.commands.options import PROGRAM, default_of, option, parse, setting, unnamed
from wsss_lab.progress import above_bars, close_bars
from wsss_lab.ranges import Count, Settings


def train(arguments: list[str]) -> int:
    """`train METHOD ...`: the options are the fields of the method's settings.

    Args:
        arguments: what follows `train`.
    """
    from wsss_lab.commands.closing import closing, command_line
    from wsss_lab.data.workers import PARENT, end_with_parent
    from wsss_lab.runs.contents import undo_failed_start
    from wsss_lab.runs.folder import is_first_process
    from wsss_lab.runs.launch import require_run
    from wsss_lab.runs.recipe import find_recipe
    from wsss_lab.runs.settings import restore
    from wsss_lab.train.log import steadfast
    from wsss_lab.train.stop import raised_by_sigterm

    if parent := os.environ.pop(PARENT, ""):
        end_with_parent(int(parent))
    method = arguments[0]
    recipe = find_recipe(method)
    preset, out = (option(arguments, name) for name in ("preset", "out"))
    if _resumes(arguments) and out:
        there = require_run(Path(out))
    if preset is None and _resumes(arguments) and out:
        if there["method"] != method:
            raise ValueError(f"out: {out} holds a run of {there['method']}, not of {method}")
        default = restore(recipe.config, there["config"], Path(out) / "config.json")
    else:
        default = recipe.preset(preset or "toy")
    settings: Any = parse(
        dataclasses.make_dataclass(
            "Train",
            [
                ("out", setting(Path, "Folder of the run.")),
                ("resume", setting(bool, "Go on with the run in the folder."), False),
                ("overwrite", setting(bool, "Replace the run in the folder, if one is."), False),
                (
                    "preset",
                    setting(str, f"One of {', '.join(recipe.presets)}."),
                    preset or "toy",
                ),
                ("config", unnamed(recipe.config), default_of(default)),
            ],
            frozen=True,
        ),
        arguments[1:],
        prog=f"{PROGRAM} train {method}",
        description=f"{recipe.summary[0].upper()}{recipe.summary[1:]}.\n\n"
        "The values shown are those of the preset. Images need tags; without any mask\n"
        "the run ends with labels and overlays, unscored.",
    )
    if settings.resume:
        require_run(settings.out)
    more: dict[str, Any] = {"overwrite": True} if settings.overwrite else {}
    try:
        with raised_by_sigterm(), undo_failed_start(settings.out, is_first_process()):
            found = recipe.train(settings.config, settings.out, settings.resume, **more)
    except KeyboardInterrupt as stop:
        close_bars()
        command = command_line("train", method, "--out", settings.out, "--resume")
        raise type(stop)(f"{stop or 'interrupted'}. Go on with: {command}") from None
    if is_first_process() and isinstance(found, Mapping):
        steadfast(print)(closing(method, settings.out, found))
    return 0


def _on_error(line: str) -> None:
    """Print a line on standard error, above open bars."""
    with above_bars():
        print(line, file=sys.stderr, flush=True)


def _resumes(arguments: list[str]) -> bool:
    """Whether `--resume` is given, in one of the forms that tyro knows; the last one counts."""
    found = False
    for argument in arguments:
        name, _, value = argument.partition("=")
        if name in ("--resume", "--no-resume"):
            found = (name == "--resume") == (value.lower() not in ("false", "0"))
    return found


def plan(arguments: list[str]) -> int:
    """`plan METHOD ...`: time a few steps and images, and print hours, memory and disk of a run.

    Args:
        arguments: what follows `plan`; settings as for `train`.
    """
    import json

    from wsss_lab.config import write_json
    from wsss_lab.outputs import guard_outputs
    from wsss_lab.plan.long_run import probe
    from wsss_lab.registry import used_files
    from wsss_lab.runs.contents import input_paths
    from wsss_lab.runs.recipe import find_recipe

    method = arguments[0]
    recipe = find_recipe(method)
    preset = option(arguments, "preset") or "toy"
    settings: Any = parse(
        dataclasses.make_dataclass(
            "Plan",
            [
                ("preset", setting(str, f"One of {', '.join(recipe.presets)}."), preset),
                ("out", setting(Path | None, "JSON file to write, too."), None),
                ("overwrite", setting(bool, "Replace that file if it is there."), False),
                ("timed_steps", setting(Count, "Steps of each kind to time; two warm up."), 10),
                ("timed_images", setting(Count, "Images to label and to score."), 16),
                ("config", unnamed(recipe.config), default_of(recipe.preset(preset))),
            ],
            bases=(Settings,),
            frozen=True,
        ),
        arguments[1:],
        prog=f"{PROGRAM} plan {method}",
        description="Hours, memory and disk of a run beforehand.\n\nImages and weights are random, "
        "of the data set's usual size:\n\nreading and decoding files is not timed.",
    )
    if settings.out:
        inputs = [*input_paths(settings.config).values(), *used_files()]
        guard_outputs([settings.out], inputs, overwrite=settings.overwrite)
    found = probe(method, settings.config, settings.timed_steps, settings.timed_images)
    table = found.pop("plan")
    found = {"preset": preset, **found, **table.as_dict()}
    print(table, file=sys.stderr)
    print(json.dumps(found, indent=1))
    if settings.out:
        write_json(settings.out, found)
    return 0


def score(arguments: list[str]) -> int:
    """`eval METHOD --weights FILE`: score a network with true tags and without, side by side.

    Args:
        arguments: what follows `eval`.
    """
    import json

    from wsss_lab.outputs import guard_outputs
    from wsss_lab.registry import used_files
    from wsss_lab.runs.contents import files_beside
    from wsss_lab.runs.recipe import find_recipe
    from wsss_lab.runs.weights import ScoreConfig, load_trained, score_config, score_weights

    method = arguments[0]
    recipe, weights = find_recipe(method), option(arguments, "weights")
    trained = load_trained(Path(weights), method) if weights else None
    default = score_config(trained.config if trained else recipe.preset("toy"))
    settings: Any = parse(
        dataclasses.make_dataclass(
            "Eval",
            [
                ("weights", setting(Path, "Run folder, model.safetensors, or released file.")),
                ("out", setting(Path | None, "JSON file for all numbers."), None),
                ("overwrite", setting(bool, "Replace that file if it is there."), False),
                ("json", setting(bool, "Print that instead of the tables."), False),
                ("config", unnamed(ScoreConfig), default_of(default)),
            ],
            frozen=True,
        ),
        arguments[1:],
        prog=f"{PROGRAM} eval {method}",
        description="Score a network. The values shown are those that come with its weights.",
    )
    assert trained is not None  # the parser insists on --weights
    if settings.out:
        root = settings.config.data.root
        inputs = [*files_beside(settings.weights), *used_files()]
        if root and settings.out.resolve().is_relative_to(root.resolve()):
            inputs += [settings.out] if settings.out.exists() else []
        guard_outputs([settings.out], inputs, overwrite=settings.overwrite)
    lines: list[str] = []
    found = score_weights(
        trained, settings.config, out=settings.out, log=lines.append, progress=_on_error
    )
    print(json.dumps(found, indent=2, sort_keys=True) if settings.json else "\n".join(lines))
    return 0
