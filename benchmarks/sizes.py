"""Memory and time by the size of a photo: `python benchmarks/sizes.py [--megapixels 0.2 1 4]`.

For each size one process per kind of work: `predict` writes mask and overlay of a photo by a
segmentation network, `labels` is the label stage of `cam_baseline --preset voc-mini` (two scales
with mirror image, 40 steps of PAR for two tags), `evaluate` scores the same maps. Networks are
`lite0` with random weights, 20 classes; photos are smooth noise. Peak memory is that of the process
beyond what it held before, so without libraries and weights.

The library of another checkout is measured with `PYTHONPATH=THAT/CHECKOUT`. A size is not tried if
the one before it suggests, in proportion, more than `--most` MiB; `--bounded` tries all.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from report import report

KINDS = ("predict", "labels", "evaluate")


def photo(megapixels: float) -> np.ndarray:
    """Smooth noise, four wide by three high."""
    width = round((megapixels * 1e6 * 4 / 3) ** 0.5)
    small = np.random.default_rng(0).integers(0, 256, (9, 12, 3), dtype=np.uint8)
    wide = Image.fromarray(small).resize((width, width * 3 // 4), Image.Resampling.BICUBIC)
    return np.array(wide)


def work(kind: str, pixels: np.ndarray, folder: Path) -> Any:
    """What is timed, ready to be called."""
    from wsss_lab.evaluate.evaluate import evaluate
    from wsss_lab.evaluate.inference import MultiScale
    from wsss_lab.evaluate.map_refinement import map_refinement
    from wsss_lab.evaluate.predict import predict_folder
    from wsss_lab.evaluate.trained import Trained
    from wsss_lab.methods.cam_baseline import SegNetwork, TagClassifier
    from wsss_lab.models.backbones import build_backbone
    from wsss_lab.recipes.cam_baseline.config import PRESETS
    from wsss_lab.recipes.cam_baseline.recipe import cam_views
    from wsss_lab.runs.labels import label_stage
    from wsss_lab.train.devices import make_fabric

    torch.manual_seed(0)
    config, backbone = PRESETS["voc-mini"], build_backbone("lite0")
    names = tuple(f"class {i}" for i in range(20))
    if kind == "predict":
        Image.fromarray(pixels).save(folder / "photo.png", compress_level=1)
        network = SegNetwork(backbone, 21, hidden=config.hidden).eval()
        classes = ("background", *names)
        trained = Trained("cam_baseline", network, MultiScale(), classes, config, folder, False)
        return lambda: list(predict_folder(folder / "photo.png", folder / "out", trained=trained))
    tagger = TagClassifier(backbone, 20).to(memory_format=torch.channels_last).eval()

    class Data(list):
        class_names, num_classes = names, 20

    tags = torch.zeros(20)
    tags[[3, 14]] = 1
    image = torch.from_numpy(pixels).permute(2, 0, 1)
    mask = torch.zeros(image.shape[1:], dtype=torch.uint8)
    data: Any = Data([{"image": image, "mask": mask, "tags": tags, "name": "photo"}])
    refine, views = map_refinement(config.refine_steps), cam_views(config)
    if kind == "evaluate":
        bare = tagger.predict  # names no tag, so that only maps of the true ones are refined
        tagger.predict = lambda images, tags=None: replace(
            bare(images), tag_logits=torch.full((len(images), 20), -1.0)
        )
        options: Any = {"refine": refine, "cam_threshold": 0.4, "tags_at_test": True}
        return lambda: evaluate(tagger, data, views, num_classes=21, **options)
    fabric = make_fabric(config.run)
    return lambda: label_stage(tagger, data, folder / "labels", views=views, refine=refine, batch=8,
                               workers=0, fabric=fabric, log=lambda line: None)  # fmt: skip


def measure(kind: str, megapixels: float) -> dict[str, float]:
    """Peak memory and processor seconds of one photo, in this process."""
    with tempfile.TemporaryDirectory() as folder:
        call = work(kind, photo(megapixels), Path(folder))
        Path("/proc/self/clear_refs").write_text("5")  # forget the peak of making the photo
        before = memory("VmRSS")
        start = time.process_time()
        call()
        took = time.process_time() - start
    return {"mib": round(memory("VmHWM") - before), "cpu_s": round(took, 2)}


def memory(kind: str) -> float:
    """Return an entry of Linux's status of this process, in MiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    (line,) = [line for line in lines if line.startswith(f"{kind}:")]
    return int(line.split()[1]) / 1024


def main() -> None:
    """Print a row per size as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megapixels", type=float, nargs="*", default=[0.2, 1, 4, 12, 48])
    parser.add_argument("--kinds", nargs="*", default=KINDS)
    parser.add_argument("--most", type=float, default=8192, help="MiB; more is not tried")
    parser.add_argument("--bounded", action="store_true", help="memory does not grow in proportion")
    parser.add_argument("--commit", default="", help="stated in the result")
    parser.add_argument("--json", type=Path, help="write the result here too")
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.measure:
        print(json.dumps(measure(options.measure[0], float(options.measure[1]))))
        return
    found: dict[str, dict[str, Any]] = {}
    for kind in options.kinds:
        rows: dict[str, Any] = {}
        per_megapixel = 0.0
        for size in sorted(options.megapixels):
            if per_megapixel * size > options.most and not options.bounded:
                rows[f"{size:g}"] = f"not tried: about {per_megapixel * size / 1024:.0f} GiB"
                continue
            command = [sys.executable, __file__, "--measure", kind, str(size)]
            answer = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
            rows[f"{size:g}"] = row = json.loads(answer.splitlines()[-1])
            print(kind, size, row, file=sys.stderr, flush=True)
            per_megapixel = row["mib"] / size
        found[kind] = rows
    facts = {"commit": options.commit, "threads": 1, "torch": torch.__version__}
    report(facts | {"megapixels": found}, options.json)


if __name__ == "__main__":
    main()
