"""Time ACR against its specification, transcribed: `python benchmarks/acr.py [--json FILE]`.

The transcription does what the released code is described to do, with plain PyTorch: two forward
passes, every head's attention kept and its gradient stored by a hook, alignment in place row by
row, one whole backward pass per class at localisation. Both sides share network, weights and
thread count, and take turns; ours is also timed in bf16, which the released code switches off.
CPU time is reported, because other work may run on the machine; peak memory is that of a process
of its own, above what it held before the first step.
"""

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from report import report
from torch import Tensor

from wsss_lab.losses import tag_loss
from wsss_lab.methods.acr.config import ACRConfig
from wsss_lab.methods.acr.method import ACR
from wsss_lab.models.attention import attention_layers
from wsss_lab.models.backbones import build_backbone
from wsss_lab.models.onednn import multiply_by_onednn

NETWORKS: dict[str, tuple[str, dict[str, Any]]] = {
    "vit_s16": ("deit_s", {}),
    "vit_b16": ("vit_b16", {}),
    "r50_vit_b16": ("r50_vit_b16", {"weight_std": "added_eps"}),
}
CLASSES, PRESENT = 20, (2, 7, 14)


class Transcription:
    """The specification, sections 1 to 3, word by word, on the same network."""

    def __init__(self, model: ACR) -> None:
        self.model = model
        self.maps: dict[str, Tensor] = {}
        self.gradients: dict[str, Tensor] = {}
        multiply_by_onednn(model, on=False)
        for name, layer in attention_layers(model.backbone).items():
            layer.fused_attn = False
            layer.attn_drop.register_forward_pre_hook(self.hook(name))  # type: ignore[union-attr, operator]

    def hook(self, name: str) -> Callable[..., None]:
        """Keep attention, and its gradient when a backward pass reaches it."""

        def keep(_: torch.nn.Module, args: tuple[Tensor, ...]) -> None:
            self.maps[name] = args[0]
            if args[0].requires_grad:
                args[0].register_hook(lambda g: self.gradients.__setitem__(name, g))

        return keep

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Class logits, patch logits, stacked head means."""
        features = self.model.backbone(images)
        self.model.backbone.net.norm(torch.cat([features.cls[:, None], features.tokens], 1))
        means = torch.stack([layer.mean(1) for layer in self.maps.values()], 1)
        linear = self.model.head.linear
        return linear(features.cls), linear(features.tokens.mean(1)), means

    def loss(self, images: Tensor, tags: Tensor, alpha: float) -> Tensor:
        """Two passes, alignment in place, four losses."""
        y1, _, a1 = self.forward(images)
        y2, _, a2 = self.forward(images.flip(-1))
        side = round((a1.shape[-1] - 1) ** 0.5)
        row = a2[:, :, :1, 1:].clone()
        pairs = a2[:, :, 1:, 1:].clone()
        for r in range(side):
            part = slice(r * side, (r + 1) * side)
            row[..., part] = row[..., part].flip(-1).clone()
            pairs[..., part] = pairs[..., part].flip(-1).clone()
        for r in range(side):
            part = slice(r * side, (r + 1) * side)
            pairs[:, :, part] = pairs[:, :, part].flip(-2).clone()
        align = F.l1_loss(a1[:, :, :1, 1:], row) + F.l1_loss(a1[:, :, 1:, 1:], pairs)
        return tag_loss(y1, tags) + tag_loss(y2, tags) + alpha * align

    def localise(self, image: Tensor, tags: Tensor, start: int) -> Tensor:
        """One image: two flip states, one backward pass through everything per class."""
        h, w = image.shape[-2:]
        total = torch.zeros(int(tags.sum()), h, w)
        for state in (True, False):
            y, _, means = self.forward(image.flip(-1) if state else image)
            affinity = means[0, :, 1:, 1:].sum(0).detach()
            side = round(len(affinity) ** 0.5)
            for j, c in enumerate(tags[0].nonzero()[:, 0]):
                self.model.zero_grad()
                y[0, c].backward(retain_graph=True)
                layers = [self.gradients[name][0].relu().mean(0) for name in self.maps]
                scores = torch.stack(layers[start:]).sum(0)[0, 1:].relu()
                cam = (affinity @ scores).view(1, 1, side, side)
                cam = F.interpolate(cam, (h, w), mode="bilinear", align_corners=True)[0, 0]
                total[j] += cam.flip(-1) if state else cam
        low = total.amin((1, 2), keepdim=True)
        return (total - low) / (total.amax((1, 2), keepdim=True) - low + 1e-6)


def jobs(network: str, size: int, batch: int, seed: int = 0) -> dict[str, Callable[[], Tensor]]:
    """Training step and localisation of one image, of both sides, on equal weights."""
    name, options = NETWORKS[network]
    torch.manual_seed(seed)
    ours = ACR(build_backbone(name, img_size=size, **options), CLASSES, ACRConfig())
    theirs = ACR(build_backbone(name, img_size=size, **options), CLASSES, ACRConfig())
    theirs.load_state_dict(ours.state_dict())
    literal = Transcription(theirs)
    images = torch.rand(batch, 3, size, size)
    tags = torch.zeros(batch, CLASSES)
    tags[:, list(PRESENT)] = 1
    normalised = ours.prepare(images)
    optimizers = {m: torch.optim.SGD(m.parameters(), 1e-6) for m in (ours, theirs)}

    def step(model: ACR, loss: Callable[[], Tensor]) -> Callable[[], Tensor]:
        def run() -> Tensor:
            value = loss()
            value.backward()
            optimizers[model].step()
            optimizers[model].zero_grad()
            return value.detach()

        return run

    train = {"images": images, "tags": tags}

    def half_precision() -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return ours.training_step(train, 0).loss  # type: ignore[arg-type]

    return {
        "step": step(ours, lambda: ours.training_step(train, 0).loss),  # type: ignore[arg-type]
        "step, bf16": step(ours, half_precision),
        "step, transcribed": step(theirs, lambda: literal.loss(normalised, tags, 125.0)),
        "localise": lambda: ours.localise(images[:1], tags[:1])[0, list(PRESENT)],
        "localise, transcribed": lambda: literal.localise(normalised[:1], tags[:1], -2),
    }


def take_turns(work: dict[str, Callable[[], Tensor]], repeats: int) -> dict[str, float]:
    """Median CPU seconds of each job; the first turn warms up and compares the results."""
    times: dict[str, list[float]] = {name: [] for name in work}
    for turn in range(repeats + 1):
        results = {}
        for name, job in work.items():
            start = time.process_time()
            results[name] = job()
            if turn:
                times[name].append(time.process_time() - start)
        if turn == 0:
            for name in ("step", "localise"):
                pair = results[name], results[f"{name}, transcribed"]
                torch.testing.assert_close(*pair, rtol=1e-3, atol=1e-3)
    return {name: statistics.median(t) for name, t in times.items()}


def peak(network: str, size: int, batch: int, job: str) -> None:
    """Print the memory in MB that one job adds at most; runs in a process of its own (Linux)."""

    def kilobytes(what: str) -> int:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith(what))

    work = jobs(network, size, batch)[job]
    Path("/proc/self/clear_refs").write_text("5")  # resets the high-water mark
    before = kilobytes("VmRSS")
    work()
    print(round((kilobytes("VmHWM") - before) * 1024 / 1e6))


def measure(network: str, size: int, batch: int, repeats: int, threads: int) -> dict[str, Any]:
    """Times, ratios and peak memory of one network."""
    times = take_turns(jobs(network, size, batch), repeats)
    memory = {}
    for name in times:
        arguments = [network, size, batch, "--peak", name, "--threads", threads]
        command = [sys.executable, __file__, *map(str, arguments)]
        memory[name] = int(subprocess.run(command, check=True, capture_output=True).stdout)
    ratio = {
        name: times[f"{name.split(',')[0]}, transcribed"] / times[name]
        for name in ("step", "step, bf16", "localise")
    }
    return {
        "network": network,
        "size": size,
        "batch": batch,
        "cpu_s": {name: round(t, 4) for name, t in times.items()},
        "speed_up": {name: round(r, 2) for name, r in ratio.items()},
        "peak_mb": memory,
    }


def main() -> None:
    """Print the result as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("network", nargs="?", default="vit_s16", choices=NETWORKS)
    parser.add_argument("size", nargs="?", type=int, default=224, help="px, a multiple of 16")
    parser.add_argument("batch", nargs="?", type=int, default=1, help="images per training step")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path, help="write the result here too")
    parser.add_argument("--peak", help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    where = (options.network, options.size, options.batch)
    if options.peak:
        peak(*where, options.peak)
        return
    result = measure(*where, options.repeats, options.threads)
    result |= {"threads": options.threads, "torch": torch.__version__}
    report(result, options.json)


if __name__ == "__main__":
    main()
