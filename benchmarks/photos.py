"""Time the stages of `cam_baseline --preset voc-mini`: `python benchmarks/photos.py --root DATA`.

Processor seconds of a training step with tags and one with masks, of a photo that is labelled and
of one that is scored, each the smallest of some rounds that take turns; and the share of a training
step's arithmetic in the rate of a matrix product on the same core. The network is the packaged one,
so that tags and maps are those of a trained network; a random one names half of all classes, whose
maps are then refined in vain.

`--labels` keeps the label images, and `--against` counts the pixels in which they differ from those
of another checkout, whose library is timed by this same script with `PYTHONPATH=THAT/CHECKOUT`.
"""

import argparse
import dataclasses
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from flops import counter
from PIL import Image
from report import report

from wsss_lab.data.loader import StepLoader
from wsss_lab.data.transform import TrainingTransform
from wsss_lab.evaluate.map_refinement import map_refinement
from wsss_lab.plan.probe import Blank
from wsss_lab.recipes.cam_baseline import recipe
from wsss_lab.recipes.cam_baseline.config import PRESETS, Config
from wsss_lab.runs.default_network import packaged_network
from wsss_lab.runs.images import FirstImages
from wsss_lab.runs.labels import label_stage
from wsss_lab.runs.lists import load_lists
from wsss_lab.runs.scoring import score
from wsss_lab.runs.stages import silent
from wsss_lab.train.devices import make_fabric
from wsss_lab.train.optim import build_optimizer

Work = Callable[[], Any]


def peak_gflops() -> float:
    """Largest rate of a square matrix product by MKL or oneDNN, GFLOP per second."""
    from wsss_lab.models.onednn import onednn_linear

    n, best = 1024, 0.0
    a, b = torch.randn(n, n), torch.randn(n, n)
    for product in (torch.mm, lambda x, y: onednn_linear(x, y, None)):
        for _ in range(10):
            start = time.process_time()
            product(a, b)
            best = max(best, 2e-9 * n**3 / (time.process_time() - start))
    return round(best, 1)


def training(config: Config, network: Any, images: Any, optim: Any) -> tuple[Work, float]:
    """One step with its update, crops ready; and the seconds that reading its crops takes."""
    network = network.to(memory_format=torch.channels_last).train()
    views = TrainingTransform(config.data, network.input_mean)
    loader = StepLoader(images, config.run.batch, 0, views)
    loader(0)
    start = time.process_time()
    batch: Any = loader(1)
    reading = time.process_time() - start
    optimizer = build_optimizer(network.param_groups(1e-4, 1e-3, 0.01), optim)

    def step() -> None:
        network.training_step(batch, 0).loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step, reading


def forward_gflop(network: Any, side: int, batch: int) -> float:
    """Arithmetic of a forward pass; a training step takes three times as much."""
    with counter() as counting, torch.no_grad():
        network.eval()(torch.rand(1, 3, side, side))
    return batch * counting.get_total_flops() / 1e9


def compare(one: Path, other: Path) -> dict[str, float]:
    """Share of pixels that differ between two folders of label images."""
    differing = pixels = files = 0
    for file in sorted(one.glob("*.png")):
        a, b = (np.asarray(Image.open(folder / file.name)) for folder in (one, other))
        differing += int((a != b).sum())
        files += bool((a != b).any())
        pixels += a.size
    return {"pixels": pixels, "differing": differing, "files_with_differences": files}


def main() -> None:
    """Print times as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", type=Path, required=True, help="folder of the data set voc-mini")
    parser.add_argument("--photos", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--commit", default="", help="stated in the result")
    parser.add_argument("--labels", type=Path, help="keep the label images here")
    parser.add_argument("--against", type=Path, help="compare them with those in this folder")
    parser.add_argument("--json", type=Path, help="write the result here too")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    config = PRESETS["voc-mini"]
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, root=options.root))
    fabric = make_fabric(dataclasses.replace(config.run, devices=1))
    train, val = load_lists(config.data, silent)
    some, scored = FirstImages(train, options.photos), FirstImages(val, options.photos)
    torch.manual_seed(0)
    trained: Any = packaged_network("voc-mini").trained.method
    trained = trained.to(memory_format=torch.channels_last).eval()
    tags = recipe.build(config, train.num_classes)
    masks = recipe.build_network(config, train.num_classes + 1)
    finished = recipe.build_network(config, train.num_classes + 1)
    finished = finished.to(memory_format=torch.channels_last).eval()
    refine, views = map_refinement(config.refine_steps), recipe.cam_views(config)
    folder = options.labels or Path(tempfile.mkdtemp())

    def label() -> None:
        target = Path(tempfile.mkdtemp())
        label_stage(trained, some, target, views=views, threshold=config.threshold, refine=refine,
                    batch=config.test.batch, workers=0, fabric=fabric, log=silent)  # fmt: skip
        folder.mkdir(parents=True, exist_ok=True)
        for file in target.glob("*.png"):
            file.replace(folder / file.name)

    def evaluate_masks() -> None:
        score(finished, scored, recipe.seg_views(config), config, fabric)

    def evaluate_maps() -> None:
        score(trained, scored, views, config, fabric, config.threshold, refine=refine)

    tag_step, tag_reading = training(config, tags, train, config.optim)
    blank = Blank(train, len(train))
    mask_step, mask_reading = training(config, masks, blank, config.mask_optim)
    work: dict[str, tuple[Work, int]] = {
        "tags, step": (tag_step, 1),
        "labels, photo": (label, options.photos),
        "masks, step": (mask_step, 1),
        "evaluate masks, photo": (evaluate_masks, options.photos),
        "evaluate maps, photo": (evaluate_maps, options.photos),
    }
    best: dict[str, float] = {}
    peak = 0.0
    for _ in range(options.repeats):
        peak = max(peak, peak_gflops())
        for name, (run, count) in work.items():
            start = time.process_time()
            run()
            took = (time.process_time() - start) / count
            best[name] = round(min(best.get(name, took), took), 3)
    gflop = {
        name: forward_gflop(network, config.data.crop, config.run.batch)
        for name, network in (("tags, step", tags), ("masks, step", masks))
    }
    result: dict[str, Any] = {
        "commit": options.commit,
        "threads": options.threads,
        "photos": options.photos,
        "torch": torch.__version__,
        "cpu_s": best,
        "reading_cpu_s": {"tags": round(tag_reading, 3), "masks": round(mask_reading, 3)},
        "matrix_product_gflops": peak,
        "share_of_it": {k: round(3 * v / best[k] / peak, 2) for k, v in gflop.items()},
    }
    if options.against:
        result["labels"] = compare(folder, options.against)
    report(result, options.json)


if __name__ == "__main__":
    main()
