"""Time linear layers on a CPU, the usual way and by oneDNN: `python benchmarks/onednn.py`.

Float32, forward alone and with backward, in GFLOP per second; the two take turns. On a processor of
Intel's MKL uses the same instructions, and the two should be alike.
"""

import argparse
import platform
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from report import report
from torch import Tensor

from wsss_lab.models.onednn import onednn_linear

SHAPES = {  # images, tokens, channels in, channels out
    "ViT-B, 448 px, MLP": (2, 785, 768, 3072),
    "ViT-B, 448 px, MLP back": (2, 785, 3072, 768),
    "ViT-S, 224 px, projection": (4, 197, 384, 384),
    "MiT-B1, 512 px, first stage, MLP": (1, 16384, 64, 256),
    "MiT-B1, 512 px, last stage, MLP": (1, 1024, 512, 2048),
    "toy_vit, 8 scenes": (8, 257, 64, 128),
}


def gflops(b: int, n: int, d: int, e: int, repeats: int) -> dict[str, float]:
    """Largest number of GFLOP/s of the repeats, by who and what."""
    x = torch.randn(b, n, d, requires_grad=True)
    weight, bias = torch.randn(e, d, requires_grad=True), torch.randn(e, requires_grad=True)
    grad = torch.randn(b, n, e)
    work = 2e-9 * b * n * d * e
    best: dict[str, float] = {}
    for _ in range(repeats + 1):
        for who, product in (("usual", F.linear), ("oneDNN", onednn_linear)):
            start = time.perf_counter()
            y: Tensor = product(x, weight, bias)
            middle = time.perf_counter()
            torch.autograd.grad(y, (x, weight, bias), grad)
            end = time.perf_counter()
            for what, rate in (
                ("forward", work / (middle - start)),
                ("with backward", 3 * work / (end - start)),
            ):
                best[f"{who}, {what}"] = max(best.get(f"{who}, {what}", 0.0), round(rate, 1))
    return best


def main() -> None:
    """Print rates as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--json", type=Path, help="write the result here too")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    result = {
        "threads": options.threads,
        "torch": torch.__version__,
        "processor": platform.processor() or platform.machine(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "gflops": {name: gflops(*shape, options.repeats) for name, shape in SHAPES.items()},
    }
    report(result, options.json)


if __name__ == "__main__":
    main()
