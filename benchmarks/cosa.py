"""Time one CoSA step: `python benchmarks/cosa.py [--width 768 --heads 12 --size 448]`.

Ours against a literal transcription of the released step: attention with explicit softmax, one
forward pass per scale and mirror image, all classes enlarged to the image, labels one image at a
time, copies to the host for energy and thresholds, EM in NumPy, a Python loop for the slow average.
Both compute the same losses; `--check` compares them. Each competitor runs in a process of its own,
which gives its peak memory; look at the processor time where other work shares the machine.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from cosa_literal import Literal, up
from report import report
from torch import Tensor

from wsss_lab.methods.cosa.config import PRESETS, CoSAConfig
from wsss_lab.methods.cosa.method import CoSA
from wsss_lab.models.backbones import build_backbone
from wsss_lab.models.onednn import multiply_by_onednn

CLASSES = 20


def explicit_attention(network: torch.nn.Module) -> None:
    """Attention as matrix product, softmax, matrix product, as released."""
    for module in network.modules():
        if hasattr(module, "fused_attn"):
            module.fused_attn = False


def scene(options: argparse.Namespace) -> dict[str, Tensor]:
    """Smooth images with one to three tags each; the last one has padding."""
    torch.manual_seed(0)
    b, side = options.batch, options.size
    images = up(torch.rand(b, 3, side // 16, side // 16), (side, side))
    tags = torch.zeros(b, CLASSES)
    for i in range(b):
        tags[i, torch.randperm(CLASSES)[: 1 + i % 3]] = 1
    boxes = torch.tensor([[0, side, 0, side]]).repeat(b, 1)
    boxes[-1] = torch.tensor([side // 8, side, 0, side - side // 4])
    return {"images": images, "strong": 1 - images, "tags": tags, "boxes": boxes}


def build(options: argparse.Namespace, config: CoSAConfig) -> CoSA:
    """A vision transformer of the wanted size with random weights."""
    torch.manual_seed(0)
    backbone = build_backbone(
        "vit_b16",
        levels=(config.aux_level,),
        train_pos_embed=False,
        embed_dim=options.width,
        num_heads=options.heads,
        depth=options.depth,
    )
    return CoSA(backbone, CLASSES, config).train()


def arm(options: argparse.Namespace, name: str) -> tuple[Callable[[], dict], CoSA]:
    """One whole step of a competitor: losses, backward, AdamW, slow average."""
    who, preset, phase = name.split("/")
    search = {"released": "none", "bands": "bands", "all": "split"}[preset]
    config = PRESETS["voc"] if preset == "all" else PRESETS["voc-released"]
    quirks = replace(config.quirks, full_warmup=who == "literal")
    config = replace(config, search=search, warmup=10, quirks=quirks)
    method, batch = build(options, config), scene(options)
    if who in ("literal", "explicit"):
        explicit_attention(method)
        multiply_by_onednn(method, on=False)
    at = 5 if phase == "warmup" else 11
    optimizer = torch.optim.AdamW(method.param_groups(6e-5, 6e-4, 0.01))
    literal = Literal(method, search == "bands")

    def step() -> dict[str, Tensor]:
        optimizer.zero_grad()
        if who == "literal":
            parts = literal(batch, at)
        else:
            with torch.autocast("cpu", torch.bfloat16, enabled=who == "bf16"):
                out = method.training_step(batch, at)
            parts = out.parts | {"loss": out.loss}
        parts["loss"].backward()
        optimizer.step()
        literal.follow() if who == "literal" else method.after_step(at)
        return {key: value.detach() for key, value in parts.items()}

    return step, method


ARMS = [
    "literal/released/main",
    "explicit/released/main",
    "ours/released/main",
    "bf16/released/main",
    "literal/bands/main",
    "ours/bands/main",
    "ours/all/main",
    "literal/released/warmup",
    "ours/released/warmup",
]


def check(options: argparse.Namespace) -> dict[str, float]:
    """Largest relative difference between our losses and the literal ones."""
    worst = {}
    first, second = (arm(options, f"{who}/released/main")[0]() for who in ("literal", "ours"))
    for name, value in first.items():
        difference = abs(float(value - second[name])) / max(abs(float(value)), 1e-12)
        worst[name] = float(f"{difference:.1e}")
        if difference > 1e-3:
            raise SystemExit(f"{name} differs: literal {value:.6g}, ours {second[name]:.6g}")
    return worst


def memory(kind: str) -> float:
    """Return an entry of Linux's status of this process, in MiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    (line,) = [line for line in lines if line.startswith(f"{kind}:")]
    return int(line.split()[1]) / 1024


def measure(options: argparse.Namespace) -> dict[str, float]:
    """Best of some steps, and what the process held at most beyond its start, in MiB."""
    step, _ = arm(options, options.measure)
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak of importing and building
    before = memory("VmRSS")
    wall, cpu = [], []
    for _ in range(options.repeats):
        start, busy = time.perf_counter(), time.process_time()
        step()
        wall.append(time.perf_counter() - start)
        cpu.append(time.process_time() - busy)
    return {
        "cpu_s": round(min(cpu), 3),
        "wall_s": round(min(wall), 3),
        "peak_mib": round(memory("VmHWM") - before),
    }


def main() -> None:
    """Print times as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name, value in (("width", 192), ("heads", 3), ("depth", 12), ("size", 224), ("batch", 2)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--arms", nargs="*", default=ARMS)
    parser.add_argument("--json", type=Path, help="write the result here too")
    parser.add_argument("--profile", help="print where the time of this arm goes")
    parser.add_argument("--check", action="store_true", help="compare the losses first")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.measure:
        print(json.dumps(measure(options)))
        return
    if options.profile:
        step, _ = arm(options, options.profile)
        step()
        with torch.profiler.profile() as profile:
            step()
        print(profile.key_averages().table(sort_by="self_cpu_time_total", row_limit=25))
        return
    sizes = ("width", "heads", "depth", "size", "batch", "threads", "repeats")
    result: dict[str, Any] = {key: getattr(options, key) for key in sizes}
    result["torch"] = torch.__version__
    if options.check:
        result["relative_difference_of_losses"] = check(options)
    for name in options.arms:
        flags = [f"--{key}={getattr(options, key)}" for key in sizes]
        command = [sys.executable, __file__, *flags, f"--measure={name}"]
        answer = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
        result[name] = json.loads(answer)
        print(name, result[name], file=sys.stderr, flush=True)
    report(result, options.json)


if __name__ == "__main__":
    main()
