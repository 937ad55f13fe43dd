"""The weights that the toy studies of TSCD and CoSA start from: their networks after a warm-up.

``python -m wsss_lab.studies.warm_up tscd --run-folder runs/warm_tscd`` trains with the tag losses
alone, goes on with a run that was stopped, and packs the result in half precision with its record.
Only the plain tag losses take part, so that nothing of what the studies compare is in the weights.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import safetensors.torch
import tyro

from wsss_lab.config import write_atomically, write_json
from wsss_lab.engine.settings import with_changes
from wsss_lab.methods import find_method
from wsss_lab.methods.cosa import TEACHER

SETTINGS: dict[str, Any] = {
    "method.warmup": 1_000_000,
    "data.count": 6000,
    "data.val_count": 200,
    "run.batch": 16,
    "run.steps": 1500,
    "run.log_every": 50,
    "run.save_every": 250,
    "optim.lr": 1e-3,
}
"""Changes to the preset `toy`."""
OWN: dict[str, dict[str, Any]] = {"tscd": {}, "cosa": {"method.backbone": "toy_cnn"}}
"""Further ones, by method. Maps of a transformer as small as toy_vit, read from its patch tokens,
hardly say where a class is, those of toy_cnn do; CoSA builds on them, and its parts do not depend
on the backbone."""


@dataclass(frozen=True)
class WarmUp:
    """What to train."""

    method: tyro.conf.Positional[Literal["tscd", "cosa"]]
    run_folder: Path = Path("runs/warm_up")
    """Checkpoints and log; a run in it goes on."""
    out: Path = field(default=Path(__file__).parents[1] / "weights")
    """Gets the packed weights and their record."""


def run(settings: WarmUp) -> dict[str, Any]:
    """Train, or go on, and pack; returns the record."""
    recipe = find_method(settings.method).load()
    config = with_changes(recipe.PRESETS["toy"], SETTINGS | OWN[settings.method])
    folder = settings.run_folder
    metrics = recipe.train(config, folder, resume=folder.exists(), log=print)
    state = safetensors.torch.load_file(folder / "model.safetensors")
    if settings.method == "cosa":  # both networks start from the slow one
        state = {name: value for name, value in state.items() if name.startswith(TEACHER)}
    packed = {k: v.half().contiguous() if v.is_floating_point() else v for k, v in state.items()}
    target = settings.out / f"{config.method.backbone}_{settings.method}.safetensors"
    write_atomically(target, lambda file: file.write(safetensors.torch.save(packed)))
    record = json.loads((folder / "metrics.json").read_text()) if metrics else {}
    write_json(target.with_suffix(".json"), record)
    return record


if __name__ == "__main__":
    print(run(tyro.cli(WarmUp))["results"]["val"]["tags"])
