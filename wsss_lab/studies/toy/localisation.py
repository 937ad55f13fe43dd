"""Comparison of class maps from transformers trained with ACR; nothing is trained here.

    python -m wsss_lab.studies.toy.localisation --out FILE --runs RUN

Every run is the folder of a finished `train acr`, of any arm and seed; at least one must have been
trained without consistency. From each of its networks come, on the same scenes with their true
tags, image and mirror image summed as in `ACR.localise`:

- the class token's gradient by four variants (`layer_map`), from every start layer, spread by the
  attention of all layers or not;
- attention roll-out, which is independent of the class: every tagged class gets the same map;
- the tag head on the patch tokens, the conventional map, which no loss trains.

Maps are stretched to 0..1, so the background threshold decides much. Each row of the table has one,
fixed beforehand on the networks *without* consistency and on other scenes (the best for their mean
over seeds). Next to it is the best threshold of each network on the scored scenes themselves, an
oracle.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import torch
import tyro
from jaxtyping import Float
from torch import Tensor

from wsss_lab.config import provenance, write_json
from wsss_lab.data.catalog import TOY_CLASSES
from wsss_lab.data.toy import TOY_VERSION, ToyTensors, ToyWorld
from wsss_lab.methods.acr.config import ACRConfig
from wsss_lab.methods.acr.method import ACR
from wsss_lab.metrics import Protocol, ThresholdSweep
from wsss_lab.models.attention import attention_layers
from wsss_lab.printable import row as table_row
from wsss_lab.ranges import Batch, Count, Settings
from wsss_lab.records import record_file
from wsss_lab.runs.folder import read_run
from wsss_lab.runs.weights import Trained, load_trained
from wsss_lab.studies.plan import read_json
from wsss_lab.studies.toy.localisation_maps import Row, all_maps, rows_of
from wsss_lab.train.fit import image_batches

PLAIN = "no consistency"
"""Group of the networks on which thresholds are fixed."""


@dataclass
class Localisation(Settings):
    """Settings of the study."""

    runs: tuple[Path, ...]
    """Folders of finished runs of ACR."""
    out: Path = Path("acr_localisation.json")
    """Record to write."""
    develop: Count = 100
    """Training scenes on which thresholds are fixed, from number 0 on."""
    scenes: Count = 300
    """Training scenes to score, the next ones."""
    batch: Batch = 8
    """Scenes per pass."""


def sweeps(method: ACR, world: ToyTensors, rows: list[Row], batch: int) -> list[ThresholdSweep]:
    """Make the counts at all thresholds, one sweep per row."""
    found = [ThresholdSweep(len(TOY_CLASSES) + 1) for _ in rows]
    for number, images in enumerate(image_batches(world["image"], batch)):
        part = slice(number * batch, (number + 1) * batch)
        tags, truth = world["tags"][part], world["mask"][part].long()
        for sweep, cam in zip(found, all_maps(method, images, tags), strict=True):
            sweep.update(cam, tags, truth)
    return found


def group_of(config: ACRConfig) -> str:
    """Describe the losses and views that a network was trained with."""
    used = [name for name in ("activation", "affinity") if getattr(config, name)]
    if config.alpha == 0 or not used:
        return PLAIN
    mirror = config.named_views == ACRConfig().named_views
    views = "" if mirror else f", {', '.join(config.named_views)}"
    return f"{' and '.join(used)} x {config.alpha:g}{views}"


def load(settings: Localisation) -> Iterator[tuple[str, int, Trained, dict[str, Any]]]:
    """Load group, seed, network and facts of every run.

    Raises:
        ValueError: a run twice, no plain network, or runs in different worlds or of other depths.
    """
    found = []
    for folder in settings.runs:
        trained = load_trained(folder / "fit" / "model.safetensors", "acr")
        config = trained.config
        found.append((group_of(config.method), config.run.seed, trained, read_run(folder)))
    if PLAIN not in {group for group, *_ in found}:
        raise ValueError(
            "runs: expected at least one trained without consistency (method.alpha 0), on which "
            f"thresholds are fixed, got {sorted({group for group, *_ in found})}"
        )
    names = [(group, seed) for group, seed, *_ in found]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"runs: expected each group and seed once, got {twice} several times")
    kinds = {(t.config.backbone, t.config.data.name, t.config.data.seed, t.config.data.size)
             for _, _, t, _ in found}  # fmt: skip
    if len(kinds) > 1 or {data for _, data, *_ in kinds} != {"toy"}:
        raise ValueError(
            f"runs: expected one backbone in one toy world, got (backbone, data, seed, size) "
            f"{sorted(kinds)}"
        )
    yield from found


def run(settings: Localisation) -> dict[str, Any]:
    """Score every row with every network; write the record.

    Raises:
        ValueError, FileNotFoundError: runs that do not fit; see `load`.
    """
    networks = list(load(settings))
    first = networks[0][2]
    data, depth = first.config.data, len(attention_layers(first.method))
    rows = rows_of(depth)
    count = settings.develop + settings.scenes
    drawn = ToyWorld(data.split_of("train"), count, seed=data.seed, size=data.size).tensors()
    develop, world = (
        {name: values[part] for name, values in drawn.items()}  # type: ignore
        for part in (slice(0, settings.develop), slice(settings.develop, None))
    )
    plain = [_miou(_acr(t), develop, rows, settings.batch) for g, _, t, _ in networks if g == PLAIN]
    chosen = torch.stack(plain).mean(0).argmax(1)  # (rows,): numbers of thresholds
    thresholds = ThresholdSweep(2).thresholds
    scores: dict[str, dict[str, dict[str, Any]]] = {}
    for group, seed, trained, _ in networks:
        miou = _miou(_acr(trained), world, rows, settings.batch)
        for row, values, at in zip(rows, miou, chosen.tolist(), strict=True):
            entry = scores.setdefault(row.name, {}).setdefault(group, {"miou": {}, "best": {}})
            entry["miou"][str(seed)] = float(values[at])
            entry["best"][str(seed)] = float(values.max())
        print(f"{group}, seed {seed}: scored", flush=True)
    record = {
        **provenance(settings, seed=0, device="cpu", data=TOY_VERSION),
        "networks": [
            {"group": group, "seed": seed, "git": facts["git"], "steps": t.config.run.steps}
            for group, seed, t, facts in networks
        ],
        "groups": sorted({g for g, *_ in networks}, key=lambda g: (g != PLAIN, g)),
        "rows": [
            {**vars(row), "threshold": float(thresholds[at]), "scores": scores[row.name]}
            for row, at in zip(rows, chosen.tolist(), strict=True)
        ],
        "protocol": _protocol(settings).lines(),
    }
    record["config"] |= {"out": settings.out.name, "runs": [r.name for r in settings.runs]}
    write_json(settings.out, record)
    return record


def _acr(trained: Trained) -> ACR:
    return trained.method.acr  # type: ignore[return-value]


def _miou(method: ACR, world: Any, rows: list[Row], batch: int) -> Float[Tensor, "r t"]:
    return torch.stack([s.compute().miou for s in sweeps(method, world, rows, batch)])


def _protocol(settings: Localisation) -> Protocol:
    last = settings.develop + settings.scenes - 1
    return Protocol(
        split=f"{TOY_VERSION} train, scenes {settings.develop} to {last}",
        images=settings.scenes,
        label_source="procedural truth",
        scales=(1.0,),
        flip=True,
        crf="none",
        tags_at_test=True,
        thresholds=f"per row, best for the mean of the networks without consistency on scenes 0 to "
        f"{settings.develop - 1}; beside it the best on the scored scenes, an oracle",
        resolution="original",
    )


def load_localisation(path: Path | None = None) -> dict[str, Any]:
    """Load the record of the study.

    Args:
        path: file of the record; None takes `acr_localisation`, which comes with the package.

    Raises:
        FileNotFoundError: it is missing; the message has the command that makes it.
        ValueError: it is damaged.
    """
    path = path or record_file("acr_localisation")
    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: there is no such record; make it with: python -m "
            "wsss_lab.studies.toy.localisation --runs RUN ... --out FILE"
        )
    return read_json(path)


def localisation_table(record: dict[str, Any], groups: list[str] | None = None) -> str:
    """Make a Markdown table: per row and group, mIoU at the fixed threshold, and the best.

    Args:
        record: result of `load_localisation`.
        groups: groups in order; None for all.

    Raises:
        ValueError: a group that is not in the record.
    """
    groups = record["groups"] if groups is None else groups
    if unknown := [group for group in groups if group not in record["groups"]]:
        raise ValueError(f"groups: expected some of {record['groups']}, got {unknown}")
    head = ["map", "threshold"]
    for group in groups:
        head += [group, f"{group}, best threshold (oracle)"]
    lines = [table_row(head), "|---" * len(head) + "|"]
    for row in record["rows"]:
        cells = [row["name"], f"{row['threshold']:.2f}"]
        for group in groups:
            cells += [_shown(row["scores"][group][key]) for key in ("miou", "best")]
        lines.append(table_row(cells))
    return "\n".join(lines)


def _shown(per_seed: dict[str, float]) -> str:
    """Format e.g. "51.2 ± 0.4 %"; without spread for a single seed."""
    values = [100 * value for value in per_seed.values()]
    spread_of = f" ± {stdev(values):.1f}" if len(values) > 1 else ""
    return f"{fmean(values):.1f}{spread_of} %"


if __name__ == "__main__":
    run(tyro.cli(Localisation))
