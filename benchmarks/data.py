"""Time the training pipeline: `python benchmarks/data.py [--json FILE] [--images N] [--crop PX]`.

JPEG files of 375 x 500 px, as PASCAL VOC's, are written to a temporary folder, decoded, scaled by
0.5..2, mirrored, cut to 448 px, stacked in batches of 8 and turned into floats, on one thread. The
competitors take turns; CPU time is counted, so that other work on the machine matters little.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torchvision
from PIL import Image
from torch import Tensor
from torchvision.io import decode_jpeg, read_file
from torchvision.transforms import v2

from wsss_lab.data.config import DataConfig
from wsss_lab.data.crops import draw_window, scaled_size, view, view_released
from wsss_lab.data.images import read_image
from wsss_lab.data.loader import StepLoader
from wsss_lab.data.sample import Sample
from wsss_lab.data.transform import (
    STRONG_OPS,
    TrainingTransform,
    blur,
    jitter,
    strong,
    strong_released,
)

HEIGHT, WIDTH = 375, 500
BATCH = 8


def write_photos(folder: Path, count: int) -> list[Path]:
    """Smooth colours with grain, about 75 kB a file, as photos have."""
    rng = np.random.default_rng(0)
    paths = []
    for i in range(count):
        coarse = Image.fromarray(rng.integers(0, 256, (48, 64, 3), dtype=np.uint8))
        smooth = np.asarray(coarse.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC), dtype=float)
        grain = smooth + rng.normal(0, 6, smooth.shape)
        paths.append(folder / f"{i:03d}.jpg")
        Image.fromarray(grain.clip(0, 255).astype(np.uint8)).save(paths[-1], quality=90)
    return paths


class Files:
    """The files as a data set."""

    def __init__(self, paths: list[Path]):
        self.paths = paths

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, i: int) -> Sample:
        image = torch.from_numpy(read_image(self.paths[i])).permute(2, 0, 1)
        return {"image": image, "tags": torch.zeros(20), "name": self.paths[i].stem}


def ours(paths: list[Path], **settings: object) -> Callable[[int], object]:
    """Batches from our loader."""
    data = DataConfig(scale=(0.5, 2.0), **settings)  # type: ignore[arg-type]
    return StepLoader(Files(paths), BATCH, seed=0, transform=TrainingTransform(data))  # type: ignore[arg-type]


def torchvision_way(paths: list[Path], crop: int, kind: str) -> Callable[[int], Tensor]:
    """What one writes with torchvision alone."""
    to_float = v2.ToDtype(torch.float32, scale=True)
    if kind == "RandomResizedCrop":  # an area of 0.2..3.2 crops is not possible: no zooming out
        steps = [v2.RandomResizedCrop(crop, (0.27, 1.0)), v2.RandomHorizontalFlip()]
    else:
        steps = [
            v2.ScaleJitter((HEIGHT, WIDTH), (0.5, 2.0)),
            v2.RandomCrop(crop, pad_if_needed=True),
            v2.RandomHorizontalFlip(),
        ]

    def one(path: Path) -> Tensor:
        if pillow:
            return pipeline(Image.open(path).convert("RGB"))
        return pipeline(decode_jpeg(read_file(str(path))))

    pillow = kind == "Pillow"
    pipeline = v2.Compose([*steps, *([v2.PILToTensor()] if pillow else []), to_float])
    count = len(paths)
    return lambda step: torch.stack([one(paths[(step * BATCH + i) % count]) for i in range(BATCH)])


def measure(jobs: dict[str, Callable[[int], object]], calls: int, turns: int) -> dict[str, float]:
    """CPU milliseconds a call: the median over turns; the first turn warms up."""
    times: dict[str, list[float]] = {name: [] for name in jobs}
    for turn in range(turns + 1):
        for name, job in jobs.items():
            torch.manual_seed(turn)
            start = time.process_time()
            for i in range(calls):
                job(turn * calls + i)
            if turn:
                times[name].append(1000 * (time.process_time() - start) / calls)
    return {name: statistics.median(values) for name, values in times.items()}


def parts(path: Path, crop: int) -> dict[str, Callable[[int], object]]:
    """The steps of one image, one by one; windows are drawn as in training."""
    image = torch.from_numpy(read_image(path)).permute(2, 0, 1)
    rng = np.random.default_rng(0)
    sizes = [scaled_size(HEIGHT, WIDTH, float(f)) for f in rng.uniform(0.5, 2, 64)]
    windows = [draw_window(size, crop, rng.random(3)) for size in sizes]
    cut = view(image, draw_window(scaled_size(HEIGHT, WIDTH, 1.3), crop, np.full(3, 0.5)))

    def all_strong(operation: Callable[[Tensor, str, int], Tensor]) -> Callable[[int], object]:
        return lambda i: operation(cut, STRONG_OPS[i % len(STRONG_OPS)], 1 + i % 9)

    return {
        "read and decode": lambda i: read_image(path),
        "scale and cut, ours": lambda i: view(image, windows[i % 64]),
        "scale and cut, as released": lambda i: view_released(image, windows[i % 64]),
        "jitter": lambda i: jitter(cut, np.array([1.1, 0.9, 1.2])),
        "blur": lambda i: blur(cut, 1.0),
        "strong, ours": all_strong(strong),
        "strong, as released": all_strong(strong_released),
        "bytes to floats": lambda i: torch.div(cut, 255),
    }


def main() -> None:
    """Measure, print, maybe write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--images", type=int, default=48)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--crop", type=int, default=448)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        paths = write_photos(Path(folder), options.images)
        crop = options.crop
        jobs = {
            "ours": ours(paths, crop=crop),
            "ours, form released": ours(paths, crop=crop, form="released"),
            "ours, jitter 0.3": ours(paths, crop=crop, jitter=0.3),
            "ours, blur and strong view": ours(paths, crop=crop, blur=0.5, strong=True),
            "torchvision ScaleJitter": torchvision_way(paths, crop, "ScaleJitter"),
            "torchvision RandomResizedCrop": torchvision_way(paths, crop, "RandomResizedCrop"),
            "Pillow + torchvision ScaleJitter": torchvision_way(paths, crop, "Pillow"),
        }
        calls = max(1, options.images // BATCH)
        whole = {name: t / BATCH for name, t in measure(jobs, calls, options.turns).items()}
        steps = measure(parts(paths[0], crop), 63, options.turns)
    print(f"decode and augment to {crop} px, one core\n{'':34} ms/image  images/s")
    for name, ms in whole.items():
        print(f"{name:34} {ms:8.2f}  {1000 / ms:8.0f}")
    print("\nwhere the time goes" + " " * 18 + "ms")
    for name, ms in steps.items():
        print(f"{name:34} {ms:8.2f}")
    if options.json:
        versions = {"torch": torch.__version__, "torchvision": torchvision.__version__}
        record = {"ms_per_image": whole, "ms_per_part": steps, "versions": versions}
        options.json.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
