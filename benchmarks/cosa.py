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

import numpy as np
import torch
import torch.nn.functional as F
from report import report
from torch import Tensor

from wsss_lab.methods.common.base import normalize
from wsss_lab.methods.cosa.config import PRESETS, CoSAConfig
from wsss_lab.methods.cosa.method import CoSA
from wsss_lab.models.backbones import build_backbone
from wsss_lab.models.onednn import multiply_by_onednn
from wsss_lab.refine import DenseEnergyLoss

CLASSES = 20


def explicit_attention(network: torch.nn.Module) -> None:
    """Attention as matrix product, softmax, matrix product, as released."""
    for module in network.modules():
        if hasattr(module, "fused_attn"):
            module.fused_attn = False


def up(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear resize."""
    return F.interpolate(maps, size, mode="bilinear", align_corners=False)


def literal_maps(teacher: Any, images: Tensor, scales: tuple[float, ...]) -> list[Tensor]:
    """Fused maps, auxiliary maps (last scale) and logits at the size of the image."""
    h, w = images.shape[-2:]
    cams, auxs, segs = [], [], []
    for scale in scales:
        view = up(images, (int(h * scale), int(w * scale)))
        plain, mirrored = teacher(view), teacher(view.flip(-1))
        auxs = []  # the released slip
        for maps, name in ((cams, "cam"), (auxs, "aux_cam")):
            both = up(getattr(plain, name), (h, w)), up(getattr(mirrored, name), (h, w)).flip(-1)
            maps.append(F.relu(torch.maximum(*both)))
        segs.append(up(plain.seg_logits, (h, w)) + up(mirrored.seg_logits, (h, w)).flip(-1))
    fused = []
    for maps in (cams, auxs):
        cam = torch.sum(torch.stack(maps), 0)
        cam = cam - F.adaptive_max_pool2d(-cam, 1).neg()
        fused.append(cam / (F.adaptive_max_pool2d(cam, 1) + 1e-5))
    return [*fused, torch.sum(torch.stack(segs), 0)]


def literal_label(cam: Tensor, tags: Tensor, boxes: Tensor, low: float, high: float) -> Tensor:
    """CAM pseudo-label, image by image."""
    b, _, h, w = cam.shape
    label = torch.full((b, h, w), 255)
    for i in range(b):
        maps = []
        for threshold in (high, low):
            valid = cam[i] * tags[i][:, None, None]
            stack = torch.cat([torch.full((1, h, w), threshold), valid])
            small = up(stack[None], (h // 2, w // 2))
            keys = torch.cat([torch.zeros(1, dtype=torch.long), tags[i].nonzero()[:, 0] + 1])
            maps.append(keys[up(small[:, keys].softmax(1), (h, w)).argmax(1)[0]])
        merged = maps[0].clone()
        merged[(maps[0] == 0) & (maps[1] != 0)] = 255
        y0, y1, x0, x1 = boxes[i].tolist()
        label[i, y0:y1, x0:x1] = merged[y0:y1, x0:x1]
    return label


def literal_seg_loss(logits: Tensor, label: Tensor) -> Tensor:
    """Background and foreground by two cross-entropies."""
    loss = logits.new_zeros(())
    for kind in (label == 0, (label > 0) & (label != 255)):
        part = torch.where(kind, label, 255)
        total = F.cross_entropy(logits, part, ignore_index=255, reduction="sum")
        loss = loss + 0.5 * total / (kind.sum() + 1e-6)
    return loss


def literal_bands(values: np.ndarray) -> tuple[float, float]:
    """EM with three components on a queue, on the host."""
    x = values[values > 0.05].astype(np.float64)[:, None]
    weights, variances = np.full(3, 1 / 3), np.ones(3)
    means, bound = np.array([x.min(), np.median(x), x.max()]), -np.inf
    for _ in range(100):
        joint = np.log(weights) - 0.5 * (
            np.log(2 * np.pi * variances) + (x - means) ** 2 / variances
        )
        norm = np.logaddexp.reduce(joint, axis=1, keepdims=True)
        share = np.exp(joint - norm)
        mass = share.sum(0) + 1e-15
        means = (share * x).sum(0) / mass
        variances = (share * (x - means) ** 2).sum(0) / mass + 1e-6
        weights = mass / len(x)
        if abs(norm.mean() - bound) < 1e-3:
            break
        bound = norm.mean()
    joint = np.log(weights) - 0.5 * (np.log(2 * np.pi * variances) + (x - means) ** 2 / variances)
    member = joint.argmax(1)
    return float(x[member == 0].max()), float(x[member == 2].min())


class Literal:
    """The released step, written down as it is described."""

    def __init__(self, method: CoSA, search: bool) -> None:
        self.online, self.teacher = method.online, method.assignment.network
        self.config, self.energy = method.config, DenseEnergyLoss()
        config = method.config
        self.queues = [
            np.random.default_rng(0).random((config.queue_rows, 784)) for _ in range(2 * search)
        ]
        self.bands = [[config.low, config.high], [config.aux_low, config.aux_high]]

    def __call__(self, batch: dict[str, Tensor], step: int) -> dict[str, Tensor]:
        """All losses of a step."""
        config, tags, size = self.config, batch["tags"], tuple(batch["images"].shape[-2:])
        student = self.online(normalize(batch["strong"]))
        with torch.no_grad():
            cam, aux, seg = literal_maps(self.teacher, normalize(batch["images"]), config.scales)
            for queue, maps, band in zip(self.queues, (cam, aux), self.bands, strict=False):
                rows = up(maps * tags[:, :, None, None], (28, 28)).amax(1).flatten(1).numpy()
                queue[: len(rows)] = rows
                raw = literal_bands(queue)
                band[:] = [0.99 * old + 0.01 * new for old, new in zip(band, raw, strict=True)]
            labels = [
                literal_label(maps, tags, batch["boxes"], *band)
                for maps, band in zip((cam, aux), self.bands, strict=True)
            ]
            allowed = torch.cat([torch.ones_like(tags[:, :1]), tags], 1)[:, :, None, None]
            target = torch.where(allowed > 0, seg, torch.tensor(-1e5))
            target = (target / config.temperature).softmax(1)
        parts = {
            "tags": F.multilabel_soft_margin_loss(student.tag_logits, tags),
            "aux_tags": F.multilabel_soft_margin_loss(student.aux_logits, tags),
        }
        logits = up(student.seg_logits, size)
        parts["seg"] = sum(literal_seg_loss(logits, label) for label in labels) / 2
        cells = up(target[:, 1:], tuple(student.cam.shape[-2:]))
        parts["cam"] = F.binary_cross_entropy_with_logits(F.relu(student.cam), cells)
        valid = torch.zeros(len(tags), *size, dtype=torch.bool)
        for i, (y0, y1, x0, x1) in enumerate(batch["boxes"].tolist()):
            valid[i, y0:y1, x0:x1] = True
        colours = 255 * batch["strong"]
        parts["energy"] = self.energy(logits.softmax(1), colours, valid, labels[0])
        factors = vars(config.weights) if step > config.warmup else {}
        names = ("seg", "cam", "energy")
        swapped = sum(factors.get(name, 0.0) * parts[name] for name in names)
        return parts | {"loss": parts["tags"] + parts["aux_tags"] + swapped}

    @torch.no_grad()
    def follow(self) -> None:
        """The slow average, one tensor after the other."""
        slow = dict(self.teacher.named_buffers())
        for name, fast in self.online.named_parameters():
            slow[name].copy_(self.config.decay * slow[name] + (1 - self.config.decay) * fast)


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
    config = replace(config, search=search, warmup=10, skip_warmup=who != "literal")
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
    """What Linux says about this process, in MiB."""
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
