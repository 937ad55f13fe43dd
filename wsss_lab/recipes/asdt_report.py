"""What a run of ASDT says about its voices: who is right, who agrees, and how that changed.

| in `metrics.json`, below `results` | from |
|---|---|
| `voices.train`, `voices.val` | the trained network; labels of both teachers on training images |
| `phase` | a few training images, looked at every few steps during training |

The counts that a bootstrap over images needs lie in `per_image.npz`: name of a voice -> (image, 3,
class), pixels that are right, predicted and true. No truth reaches the training.
"""

import dataclasses
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from lightning_fabric import Fabric
from torch import Tensor
from torch.utils.data import DataLoader, Subset

from wsss_lab.config import write_atomically, write_json
from wsss_lab.data.errors import DataError
from wsss_lab.evaluate.evaluate import by_shape
from wsss_lab.methods.asdt.method import ASDT
from wsss_lab.methods.asdt.predictions import PAIRS, agreement, image_counts, voices
from wsss_lab.metrics import mean_iou
from wsss_lab.runs.scoring import protocol_of
from wsss_lab.runs.stages import First, Log, load_data

PER_IMAGE = "per_image.npz"
"""File of the counts per image, next to `metrics.json`."""
KEPT = ("head2", "fused")
"""Voices whose counts per image are kept."""
PHASE = "phase.json"
"""File of the samples taken during training."""


class Tally:
    """Counts of all voices over some images of one process.

    Args:
        k1: classes with background.
    """

    def __init__(self, k1: int):
        self.k1 = k1
        self.total: dict[str, Tensor] = {}
        self.agreed: dict[str, Tensor] = {}
        self.rows: dict[int, dict[str, np.ndarray]] = {}

    def add(self, said: Mapping[str, Tensor], truth: Tensor, numbers: list[int]) -> None:
        """Count a batch.

        Args:
            said: of `voices`.
            truth: mask values.
            numbers: which images these are.
        """
        for name, pred in said.items():
            counts = image_counts(pred, truth, self.k1).cpu()
            self.total[name] = self.total.get(name, 0) + counts.sum(0)
            if name in KEPT:
                for number, row in zip(numbers, margins(counts), strict=True):
                    self.rows.setdefault(number, {})[name] = row
        for one, other in PAIRS:
            if one in said and other in said:
                pair = torch.stack(agreement(said[one], said[other])).cpu()
                self.agreed[f"{one}_{other}"] = self.agreed.get(f"{one}_{other}", 0) + pair

    def gather(self) -> "Tally":
        """Sums over all processes."""
        if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
            return self
        parts: list[Any] = [None] * dist.get_world_size()
        dist.all_gather_object(parts, self)
        whole = Tally(self.k1)
        for part in parts:
            for mine, theirs in ((whole.total, part.total), (whole.agreed, part.agreed)):
                for name, counts in theirs.items():
                    mine[name] = mine.get(name, 0) + counts
            whole.rows |= part.rows
        return whole

    def results(self) -> dict[str, Any]:
        """Scores by voice, shares by pair; None for a student that is not there."""
        found: dict[str, Any] = {name: _scores(counts) for name, counts in self.total.items()}
        found.setdefault("head2", {"miou": None})
        shares = {name: float(a / n) if n else None for name, (a, n) in self.agreed.items()}
        return found | ({"agreement": shares} if shares else {})

    def per_image(self) -> dict[str, np.ndarray]:
        """Voice -> counts (image, 3, class), images in order; a class's pixels fit 32 bits."""
        order = sorted(self.rows)
        names = self.rows[order[0]] if order else ()
        return {name: np.stack([self.rows[i][name] for i in order]) for name in names}


def margins(counts: Tensor) -> np.ndarray:
    """Confusion matrices (b, k1, k2) -> pixels right, predicted, true, (b, 3, k1) int32."""
    square = counts[:, :, : counts.shape[1]]
    hit = square.diagonal(dim1=1, dim2=2)
    return torch.stack([hit, square.sum(1), counts.sum(2)], dim=1).numpy().astype(np.int32)


def _scores(counts: Tensor) -> dict[str, float | None]:
    """Of one voice; silent pixels are wrong in `miou`, and left out in `spoken_miou`."""
    k1 = len(counts)
    spoken = counts[:, :k1]
    said, right = spoken.sum().item(), spoken.diagonal().sum().item()
    found = {
        "miou": mean_iou(counts)[1].item(),
        "spoken_miou": mean_iou(spoken)[1].item(),
        "coverage": said / max(1, counts.sum().item()),
        "precision": right / said if said else float("nan"),
    }
    return {name: value if np.isfinite(value) else None for name, value in found.items()}


def report_voices(method: ASDT, config: Any, fabric: Fabric, out: Path, log: Log) -> dict[str, Any]:
    """Score every voice; leaves `PER_IMAGE` in the run's folder.

    Args:
        method: trained, in eval mode.
        config: uses `data`, `report`, `test.batch`, `run.workers`.
        fabric: launched; every process takes its share of the images.
        out: the run's folder.
        log: is told where there is no truth.

    Returns:
        `voices`, and `phase` if samples were taken; empty if `config.report` is 0.
    """
    found: dict[str, Any] = {}
    if config.report:
        train = _tally(method, config, fabric, "train", log)
        val = _tally(method, config, fabric, "val", log)
        parts = {"train": train, "val": val}
        found["voices"] = {
            role: {"protocol": _protocol(config, role, part[1]), **part[0].results()}
            for role, part in parts.items()
            if part
        }
        if train and fabric.is_global_zero:
            save_counts(out / PER_IMAGE, train[0].per_image())
    return found | read_phase(out / PHASE)


def _tally(
    method: ASDT, config: Any, fabric: Fabric, role: str, log: Log
) -> tuple[Tally, int] | None:
    data = config.data
    if role == "train":  # a toy world draws no scene that is not looked at
        data = dataclasses.replace(data, count=min(data.count, config.report))
    try:
        images = load_data(data, role, masks=True)
    except DataError as error:
        log(f"no report on the voices of the {role} images: {error}")
        return None
    count = min(config.report, len(images)) if role == "train" else len(images)
    mine = range(fabric.global_rank, count, fabric.world_size)
    loader: Any = DataLoader(Subset(images, mine), batch_size=None, num_workers=config.run.workers)
    numbered = ({**sample, "number": n} for n, sample in zip(mine, loader, strict=True))
    tally = Tally(images.num_classes + 1)
    for group in by_shape(numbered, config.test.batch):  # type: ignore[arg-type]
        pixels, tags, truth = (
            torch.stack([sample[key] for sample in group]).to(fabric.device)  # type: ignore[literal-required]
            for key in ("image", "tags", "mask")
        )
        said = voices(method, pixels.float() / 255, tags if role == "train" else None)
        tally.add(said, truth.long(), [sample["number"] for sample in group])  # type: ignore[typeddict-item]
    return tally.gather(), count


def _protocol(config: Any, role: str, images: int) -> dict[str, Any]:
    stated = protocol_of(config.data, role)
    first = "" if role == "val" else f", first {images}"
    return dataclasses.asdict(
        dataclasses.replace(
            stated,
            split=stated.split + first,
            images=images,
            scales=(1.0,),
            flip=False,
            crf="none; teachers' labels: their own",
            tags_at_test="teachers' labels only" if role == "train" else False,
            unlabelled="wrong",
            thresholds="none",
            resolution="original",
        )
    )


def save_counts(path: Path, counts: Mapping[str, np.ndarray]) -> None:
    """Write counts per image, compressed; equal counts give equal bytes."""
    write_atomically(path, lambda file: np.savez_compressed(file, **counts))  # type: ignore[arg-type]


def watcher(
    method: ASDT, images: Any, config: Any, fabric: Fabric, out: Path
) -> Callable[[int, Any], None] | None:
    """What looks at the voices during training, if the settings ask for it.

    Every `config.watch_every` steps, from half a period before the end of warm-up, it asks all
    voices about the same `config.watch` training images, in eval mode, right after the update. It
    draws no random number, so the training goes as without it. Samples of a killed run are kept and
    made again, the same ones, where the resumed run repeats their steps.

    Returns:
        For `fit`'s `on_step`; None if there is nothing to do in this process.
    """
    if not config.watch or not fabric.is_global_zero:
        return None
    chosen = First(images, config.watch)
    samples = [chosen[i] for i in range(len(chosen))]
    start = config.method.warmup - config.method.period // 2
    rows: dict[int, list[float | None]] = {}
    if (out / PHASE).is_file():
        there = read_phase(out / PHASE)["phase"]
        for i, step in enumerate(there["step"]):
            rows[step] = [there[f"{one}_{other}"][i] for one, other in PAIRS]

    def look(step: int, _: Any) -> None:
        if step % config.watch_every or step < start:
            return
        method.eval()
        rows[step] = _shares(method, samples, config.test.batch, fabric.device)
        _write_phase(out / PHASE, rows)

    return look


def _shares(
    method: ASDT, samples: list[Any], batch: int, device: torch.device
) -> list[float | None]:
    sums: dict[tuple[str, str], Any] = dict.fromkeys(PAIRS, 0)
    for group in by_shape(iter(samples), batch):
        pixels, tags = (
            torch.stack([s[key] for s in group]).to(device)  # type: ignore[literal-required]
            for key in ("image", "tags")
        )
        said = voices(method, pixels.float() / 255, tags)
        for pair in PAIRS:
            if set(pair) <= said.keys():
                sums[pair] += torch.stack(agreement(said[pair[0]], said[pair[1]]))
    found = [sums[pair] for pair in PAIRS]
    return [round(float(x[0] / x[1]), 5) if torch.is_tensor(x) and x[1] else None for x in found]


def _write_phase(path: Path, rows: Mapping[int, list[float | None]]) -> None:
    steps = sorted(rows)
    columns = {f"{a}_{b}": [rows[s][i] for s in steps] for i, (a, b) in enumerate(PAIRS)}
    write_json(path, {"step": steps, **columns})


def read_phase(path: Path) -> dict[str, Any]:
    """`phase`: step, and agreement of each pair after it; empty if no samples were taken."""
    if not path.is_file():
        return {}
    return {"phase": json.loads(path.read_text())}
