"""Start weights of the toy studies: networks trained on the tags.

``python -m wsss_lab.studies.toy.warm_up tscd --run-folder runs/warm_tscd`` trains with the tag
losses alone, resumes a stopped run, and packs the result in half precision with its record. Only
the plain tag losses take part, so that the weights contain nothing that the studies compare.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import safetensors.torch
import tyro

from wsss_lab.config import write_atomically, write_json
from wsss_lab.methods.cosa.method import TEACHER
from wsss_lab.runs.recipe import find_recipe
from wsss_lab.runs.settings import with_changes

_COMMON: dict[str, Any] = {
    "data.count": 6000,
    "data.val_count": 200,
    "run.batch": 16,
    "run.steps": 1500,
    "run.log_every": 50,
    "run.save_every": 250,
    "optim.lr": 1e-3,
}
_NO_SWAP = _COMMON | {"method.warmup": 1_000_000}
_ALONE = {"method.alpha": 0.0, "method.activation": False, "method.affinity": False}
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "tscd": ("tscd", _NO_SWAP),
    "cosa": ("cosa", _NO_SWAP),
    "cosa_vit": ("cosa", _NO_SWAP | {"method.backbone": "toy_vit", "method.aux_level": -2}),
    "acr": ("acr", _COMMON | _ALONE | {"run.steps": 750, "until": "maps"}),
}
"""Name -> method and changes to its preset `toy`. Maps of a transformer as small as toy_vit, read
from its patch tokens, hardly localise a class, those of toy_cnn do; CoSA builds on them, and its
parts do not depend on the backbone. With toy_vit it serves the consistency of ACR, which needs
attention."""


@dataclass(frozen=True)
class WarmUp:
    """Settings of a warm-up run."""

    kind: tyro.conf.Positional[Literal["tscd", "cosa", "cosa_vit", "acr"]]
    run_folder: Path = Path("runs/warm_up")
    """Folder of checkpoints and log; a run in it is resumed."""
    out: Path = field(default=Path(__file__).parents[2] / "weights")
    """Folder for the packed weights and their record."""


def run(settings: WarmUp) -> dict[str, Any]:
    """Train or resume, and pack; return the record."""
    name, changes = KINDS[settings.kind]
    recipe = find_recipe(name)
    config = with_changes(recipe.preset("toy"), changes)
    folder = settings.run_folder
    record = recipe.train(config, folder, resume=folder.exists(), log=print)
    weights = folder / ("fit" if name == "acr" else "") / "model.safetensors"
    state = safetensors.torch.load_file(weights)
    if name == "cosa":  # both networks start from the slow (EMA) one
        state = {key: value for key, value in state.items() if key.startswith(TEACHER)}
    packed = {k: v.half().contiguous() if v.is_floating_point() else v for k, v in state.items()}
    backbone = config.backbone if name == "acr" else config.method.backbone
    target = settings.out / f"{backbone}_{name}.safetensors"
    write_atomically(target, lambda file: file.write(safetensors.torch.save(packed)))
    write_json(target.with_suffix(".json"), record)
    return record


if __name__ == "__main__":
    print(run(tyro.cli(WarmUp))["results"]["val"]["tags"])
