"""Start weights of the toy studies: networks trained on the tags.

``python -m wsss_lab.studies.toy.warm_up tscd --run-folder runs/warm_tscd`` trains with the tag
losses alone, resumes a stopped run, and packs the result in half precision with its record. Only
the plain tag losses take part, so that the weights contain nothing that the studies compare; how a
method's other losses are switched off is told by its recipe (`Recipe.warm_ups`).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors.torch
import tyro

from wsss_lab.config import write_atomically, write_json
from wsss_lab.runs.recipe import Recipe, find_recipe
from wsss_lab.runs.settings import with_changes
from wsss_lab.runs.weights import load_trained

COMMON: dict[str, Any] = {
    "data.count": 6000,
    "data.val_count": 200,
    "run.batch": 16,
    "run.steps": 1500,
    "run.log_every": 50,
    "run.save_every": 250,
    "optim.lr": 1e-3,
}
"""Changes to the preset `toy` of every method."""


@dataclass(frozen=True)
class WarmUp:
    """Settings of a warm-up run."""

    method: tyro.conf.Positional[str]
    """Name of the method."""
    backbone: str = ""
    """One of those in the method's `Recipe.warm_ups`; "" takes the first."""
    run_folder: Path = Path("runs/warm_up")
    """Folder of checkpoints and log; a run in it is resumed."""
    out: Path = field(default=Path(__file__).parents[2] / "weights")
    """Folder for the packed weights and their record."""


def run(settings: WarmUp) -> dict[str, Any]:
    """Train or resume, and pack; return the record.

    Raises:
        ValueError: there is no such method, or no warm-up of it on this backbone.
    """
    recipe = find_recipe(settings.method)
    backbone, changes = _warm_up(recipe, settings.backbone)
    config = with_changes(recipe.preset("toy"), COMMON | dict(changes))
    folder = settings.run_folder
    record = recipe.train(config, folder, resume=folder.exists(), log=print)
    [weights] = folder.rglob("model.safetensors")  # the tags are learned by one network
    prefix = load_trained(weights).method.start_prefix
    state = safetensors.torch.load_file(weights)
    state = {key: value for key, value in state.items() if key.startswith(prefix)}
    packed = {k: v.half().contiguous() if v.is_floating_point() else v for k, v in state.items()}
    target = settings.out / f"{backbone}_{recipe.name}.safetensors"
    write_atomically(target, lambda file: file.write(safetensors.torch.save(packed)))
    write_json(target.with_suffix(".json"), record)
    return record


def _warm_up(recipe: Recipe, backbone: str) -> tuple[str, Mapping[str, Any]]:
    known = recipe.warm_ups
    if not known or backbone not in ("", *known):
        raise ValueError(
            f"backbone: expected one of the warm-ups of {recipe.name} "
            f"({', '.join(known) or 'there are none'}), got {backbone!r}"
        )
    name = backbone or next(iter(known))
    return name, known[name]


if __name__ == "__main__":
    print(run(tyro.cli(WarmUp))["results"]["val"]["tags"])
