"""Scores of all predictions of an ASDT run: precision, agreement, and how they change in training.

| in `metrics.json`, below `results` | from |
|---|---|
| `voices.train`, `voices.val` | the trained network; labels of both teachers on training images |
| `phase` | a few training images, predicted every few steps during training |

The counts that a bootstrap over images needs are in `per_image.npz`: name of a prediction ->
(image, 3, class), pixels that are right, predicted and true. No truth reaches the training.

Predictions are the labels of both teachers, both heads, and their fusion; records keep them under
their old key `voices`.
"""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor
from torch.utils.data import DataLoader, Subset

from wsss_lab.config import read_json, write_atomically, write_json
from wsss_lab.data.errors import DataError
from wsss_lab.data.reported import Reported, raising
from wsss_lab.data.workers import LoaderWorker
from wsss_lab.evaluate.evaluate import by_shape
from wsss_lab.methods.asdt.method import ASDT
from wsss_lab.methods.asdt.predictions import PAIRS, agreement, image_counts, predictions
from wsss_lab.metrics import mean_iou
from wsss_lab.progress import Countdown
from wsss_lab.runs.images import FirstImages, load_data
from wsss_lab.runs.scoring import protocol_of
from wsss_lab.runs.stages import Log
from wsss_lab.train.fabric import Fabric

PER_IMAGE = "per_image.npz"
"""File of the counts per image, next to `metrics.json`."""
KEPT = ("head2", "fused")
"""Predictions whose counts per image are kept."""
PHASE = "phase.json"
"""File of the samples taken during training."""


class Tally:
    """Counts of all predictions over some images of one process.

    Args:
        k1: classes with background.
    """

    def __init__(self, k1: int):
        self.k1 = k1
        self.total: dict[str, Tensor] = {}
        self.agreed: dict[str, Tensor] = {}
        self.rows: dict[int, dict[str, np.ndarray]] = {}

    def add(self, found: Mapping[str, Tensor], truth: Tensor, numbers: list[int]) -> None:
        """Count a batch.

        Args:
            found: of `predictions`.
            truth: mask values.
            numbers: which images these are.
        """
        for name, pred in found.items():
            counts = image_counts(pred, truth, self.k1).cpu()
            self.total[name] = self.total.get(name, 0) + counts.sum(0)
            if name in KEPT:
                for number, row in zip(numbers, margins(counts), strict=True):
                    self.rows.setdefault(number, {})[name] = row
        for one, other in PAIRS:
            if one in found and other in found:
                pair = torch.stack(agreement(found[one], found[other])).cpu()
                self.agreed[f"{one}_{other}"] = self.agreed.get(f"{one}_{other}", 0) + pair

    def gather(self) -> "Tally":
        """Sum over all processes."""
        if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
            return self
        parts: list[Any] = [None] * dist.get_world_size()
        dist.all_gather_object(parts, self)
        whole = Tally(self.k1)
        for part in parts:
            for sums, others in ((whole.total, part.total), (whole.agreed, part.agreed)):
                for name, counts in others.items():
                    sums[name] = sums.get(name, 0) + counts
            whole.rows |= part.rows
        return whole

    def results(self) -> dict[str, Any]:
        """Compute scores by prediction and shares by pair; None for a student that is missing."""
        found: dict[str, Any] = {name: _scores(counts) for name, counts in self.total.items()}
        found.setdefault("head2", {"miou": None})
        shares = {name: float(a / n) if n else None for name, (a, n) in self.agreed.items()}
        return found | ({"agreement": shares} if shares else {})

    def per_image(self) -> dict[str, np.ndarray]:
        """Stack counts by prediction, (image, 3, class), in order; a class's pixels fit 32 bits."""
        order = sorted(self.rows)
        names = self.rows[order[0]] if order else ()
        return {name: np.stack([self.rows[i][name] for i in order]) for name in names}


def margins(counts: Tensor) -> np.ndarray:
    """Reduce confusion matrices (b, k1, k2) to pixels right, predicted, true, (b, 3, k1) int32."""
    square = counts[:, :, : counts.shape[1]]
    hit = square.diagonal(dim1=1, dim2=2)
    return torch.stack([hit, square.sum(1), counts.sum(2)], dim=1).numpy().astype(np.int32)


def _scores(counts: Tensor) -> dict[str, float | None]:
    """Score one prediction; unlabelled pixels are wrong in `miou`, left out in `spoken_miou`."""
    k1 = len(counts)
    labelled = counts[:, :k1]
    total, right = labelled.sum().item(), labelled.diagonal().sum().item()
    found = {
        "miou": mean_iou(counts)[1].item(),
        "spoken_miou": mean_iou(labelled)[1].item(),
        "coverage": total / max(1, counts.sum().item()),
        "precision": right / total if total else float("nan"),
    }
    return {name: value if np.isfinite(value) else None for name, value in found.items()}


def report_predictions(
    method: ASDT, config: Any, fabric: Fabric, out: Path, log: Log
) -> dict[str, Any]:
    """Score every prediction; leaves `PER_IMAGE` in the run's folder.

    Args:
        method: trained, in eval mode.
        config: uses `data`, `report`, `test.batch`, `run.workers`.
        fabric: launched; every process takes its share of the images.
        out: the run's folder.
        log: gets a line where there is no truth.

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
        data = dataclasses.replace(data.with_masks(), count=min(data.count, config.report))
    try:
        images = load_data(data, role, masks=True)
    except DataError as error:
        log(f"no report on heads and labels of the {role} images: {error}")
        return None
    count = min(config.report, len(images)) if role == "train" else len(images)
    mine = range(fabric.global_rank, count, fabric.world_size)
    read: Any = Reported(Subset(images, mine))
    options: Any = {"num_workers": config.run.workers, "worker_init_fn": LoaderWorker()}
    loader: Any = raising(DataLoader(read, batch_size=None, **options))
    numbered = ({**sample, "number": n} for n, sample in zip(mine, loader, strict=True))
    tally = Tally(images.num_classes + 1)
    shown = log if fabric.is_global_zero else None
    progress = Countdown(f"heads and labels, {role}", len(mine), shown)
    for group in by_shape(numbered, config.test.batch):  # type: ignore[arg-type]
        progress.add(len(group))
        pixels, tags, truth = (
            torch.stack([sample[key] for sample in group]).to(fabric.device)  # type: ignore[literal-required]
            for key in ("image", "tags", "mask")
        )
        found = predictions(method, pixels.float() / 255, tags if role == "train" else None)
        tally.add(found, truth.long(), [sample["number"] for sample in group])  # type: ignore[typeddict-item]
    return tally.gather(), count


def _protocol(config: Any, role: str, images: int) -> dict[str, Any]:
    data = config.data.with_masks() if role == "train" else config.data
    stated = protocol_of(data, role)
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
    """Make the function that samples predictions during training; None where it is off.

    Every `config.watch_every` steps, from half a period before the end of warm-up, it predicts the
    same `config.watch` training images, in eval mode, right after the update. It draws no random
    number, so the training goes as without it. Samples of a killed run are kept and made again, the
    same ones, where the resumed run repeats their steps.

    Returns:
        For `fit`'s `on_step`; None if there is nothing to do in this process.
    """
    if not config.watch or not fabric.is_global_zero:
        return None
    chosen = FirstImages(images, config.watch)
    samples = [chosen[i] for i in range(len(chosen))]
    start = config.method.warmup - config.method.period // 2
    rows: dict[int, list[float | None]] = {}
    if (out / PHASE).is_file():
        there = read_phase(out / PHASE)["phase"]
        for i, step in enumerate(there["step"]):
            rows[step] = [there[f"{one}_{other}"][i] for one, other in PAIRS]

    def sample(step: int, _: Any) -> None:
        if step % config.watch_every or step < start:
            return
        method.eval()
        rows[step] = _shares(method, samples, config.test.batch, fabric.device)
        _write_phase(out / PHASE, rows)

    return sample


def _shares(
    method: ASDT, samples: list[Any], batch: int, device: torch.device
) -> list[float | None]:
    sums: dict[tuple[str, str], Any] = dict.fromkeys(PAIRS, 0)
    for group in by_shape(iter(samples), batch):
        pixels, tags = (
            torch.stack([s[key] for s in group]).to(device)  # type: ignore[literal-required]
            for key in ("image", "tags")
        )
        found = predictions(method, pixels.float() / 255, tags)
        for pair in PAIRS:
            if set(pair) <= found.keys():
                sums[pair] += torch.stack(agreement(found[pair[0]], found[pair[1]]))
    pairs = [sums[pair] for pair in PAIRS]
    return [round(float(x[0] / x[1]), 5) if torch.is_tensor(x) and x[1] else None for x in pairs]


def _write_phase(path: Path, rows: Mapping[int, list[float | None]]) -> None:
    steps = sorted(rows)
    columns = {f"{a}_{b}": [rows[s][i] for s in steps] for i, (a, b) in enumerate(PAIRS)}
    write_json(path, {"step": steps, **columns})


def read_phase(path: Path) -> dict[str, Any]:
    """Read `phase`: step, and agreement of each pair after it; empty if no samples were taken."""
    if not path.is_file():
        return {}
    return {"phase": read_json(path, remedy="delete it, the report goes without it")}
