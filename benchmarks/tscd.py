"""Time one training step of TSCD: `python benchmarks/tscd.py [--json FILE] [--size 512] ...`.

Ours against the step as its specification reads: attention as two matrix products with a softmax
between, raw maps of all blocks kept, decoder and affinity head in every pass (28 passes of an image
for a batch of 2), the decoder at stride 4 from the start, refinement image by image and score by
score on stacked neighbours, correspondences as 5-dimensional tensors, cross-entropy twice. Weights,
images and points are the same; stochastic depth and dropout are off, so losses must be, too. Both
use this package's lattice for the dense energy (the released one is C++ and costs about as much);
the radius mask, which the released code fills in four nested loops once per training, is not timed.
Of the preset, the transcription takes what changes losses: colours and symmetry of the affinity.

Ours and the transcription take turns. Each is also run in a process of its own for the growth of
its peak memory.
"""

import argparse
import contextlib
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import MethodType
from typing import Any

import torch
import torch.nn.functional as F
from refine_local import peak_mb, textbook
from report import report
from torch import Tensor

from wsss_lab.cam import box_to_valid
from wsss_lab.methods.common.base import normalize
from wsss_lab.methods.tscd import views
from wsss_lab.methods.tscd.config import PRESETS
from wsss_lab.methods.tscd.method import TSCD
from wsss_lab.methods.tscd.released import truncate_colours
from wsss_lab.models.attention import attention_layers, pool_queries
from wsss_lab.models.backbones import build_backbone
from wsss_lab.models.heads import SegFormerHead
from wsss_lab.models.onednn import multiply_by_onednn
from wsss_lab.refine import DenseEnergyLoss, radius_mask

Batch = dict[str, Any]


def scene(size: int, classes: int) -> Batch:
    """Two images of whole grey levels, smooth with noise; two classes and one."""
    torch.manual_seed(0)
    coarse = torch.rand(2, 3, max(2, size // 32), max(2, size // 32))
    images = F.interpolate(coarse, (size, size), mode="bilinear") * 0.9
    images += 0.1 * torch.rand(2, 3, size, size)
    tags = torch.zeros(2, classes)
    tags[0, [1, classes - 1]] = tags[1, 2] = 1
    boxes = torch.tensor([[0, size, 0, size]] * 2)
    points = [torch.rand(2, 40, 40, 2) * 2 - 1 for _ in range(2)]
    grey = (255 * images).round() / 255
    return {"images": grey, "tags": tags, "boxes": boxes, "points": points}


def build(preset: str, backbone: str, classes: int) -> TSCD:
    """The method with random weights and without noise."""
    torch.manual_seed(1)
    config = replace(PRESETS[preset], backbone=backbone, drop_path=0.0)
    method = TSCD(build_backbone(backbone, drop_path=0.0), classes, config).train()
    method.network.seg_head.dropout.p = 0.0
    return method


# --- the specification, word for word -----------------------------------------------------------


@contextlib.contextmanager
def plain_attention(method: TSCD, maps: list[Tensor]) -> Iterator[None]:
    """Let every block multiply, keep its raw map (queries averaged), take the softmax, multiply."""

    def forward(self: Any, x: Tensor, feat_size: tuple[int, int]) -> Tensor:
        b, n, c = x.shape
        heads = self.num_heads
        q = self.q(x).reshape(b, n, heads, c // heads).permute(0, 2, 1, 3)
        ratio = 1
        if self.sr is not None:
            ratio = self.sr.stride[0]
            x = self.sr(x.permute(0, 2, 1).reshape(b, c, *feat_size)).reshape(b, c, -1)
            x = self.norm(x.permute(0, 2, 1))
        k, v = self.kv(x).reshape(b, -1, 2, heads, c // heads).permute(2, 0, 3, 1, 4)
        raw = q @ k.transpose(-2, -1)
        probs = (raw * self.scale).softmax(dim=-1)
        maps.append(pool_queries(raw, feat_size, ratio) if ratio > 1 else raw)
        return self.proj((probs @ v).transpose(1, 2).reshape(b, n, c))

    layers: list[Any] = list(attention_layers(method.network.backbone).values())
    for layer in layers:
        layer.forward = MethodType(forward, layer)
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward


def literal_decoder(head: SegFormerHead, pyramid: list[Tensor]) -> Tensor:
    """Every map to the size of the first, then all of them through one convolution."""
    size = pyramid[0].shape[2:]
    lifted = [lateral(m) for lateral, m in zip(head.lateral, pyramid, strict=True)]
    lifted = [F.interpolate(x, size, mode="bilinear", align_corners=False) for x in lifted]
    x = head.fuse(torch.cat(lifted[::-1], dim=1))
    return head.classify(head.dropout(F.relu(head.norm(x))))


def literal_pass(method: TSCD, images: Tensor) -> dict[str, Tensor]:
    """Everything, in every pass."""
    net, head = method.network, method.network.affinity_head
    maps: list[Tensor] = []
    with plain_attention(method, maps):
        pyramid = net.backbone(images).pyramid
    attention = torch.cat(maps[-2:], dim=1)
    if not method.config.quirks.one_sided_affinity:
        attention = attention + attention.transpose(-2, -1)
    return {
        "tags": net.tag_head(pyramid[-1]),
        "cam": net.tag_head.cam(pyramid[-1]).detach(),
        "seg": literal_decoder(net.seg_head, pyramid),
        "affinity": F.conv2d(attention, head.weight, head.bias).sigmoid()[:, 0],
    }


@torch.no_grad()
def literal_cam(method: TSCD, images: Tensor) -> Tensor:
    """Scales one after the other, flips joined, summed, stretched to 0..1."""
    h, w = images.shape[2:]
    views = []
    for scale in method.config.scales:
        view = F.interpolate(images, (int(h * scale), int(w * scale)), mode="bilinear")
        both = literal_pass(method, torch.cat([view, view.flip(-1)]))["cam"]
        both = F.interpolate(both, (h, w), mode="bilinear", align_corners=False)
        plain, mirrored = both.chunk(2)
        views.append(F.relu(torch.max(plain, mirrored.flip(-1))))
    cam = torch.stack(views).sum(dim=0)
    cam = cam + F.adaptive_max_pool2d(-cam, (1, 1))
    return cam / (F.adaptive_max_pool2d(cam, (1, 1)) + 1e-5)


@torch.no_grad()
def literal_labels(method: TSCD, images: Tensor, cam: Tensor, tags: Tensor) -> Tensor:
    """Every image and either background score by itself."""
    config, size = method.config, tuple(images.shape[2:])
    colours = truncate_colours(images) if config.quirks.truncate_colours else images
    small = tuple(side // 2 for side in size)
    colours = F.interpolate(colours, small, mode="bilinear", align_corners=False)
    labels = torch.full((len(images), *size), 255)
    for i, row in enumerate(tags):
        classes = row.nonzero()[:, 0]
        found = []
        for score in (config.high, config.low):
            stack = torch.cat([torch.full_like(cam[i, :1], score), cam[i, classes]])[None]
            masks = F.interpolate(stack, small, mode="bilinear", align_corners=False).softmax(1)
            masks = textbook("VARM", colours[i : i + 1], masks)
            masks = F.interpolate(masks, size, mode="bilinear", align_corners=False)
            found.append(
                torch.cat([torch.zeros_like(classes[:1]), classes + 1])[masks.argmax(1)[0]]
            )
        high, low = found
        labels[i] = torch.where(high != 0, high, torch.where(low == 0, 0, 255))
    return labels


def literal_scd(maps: list[Tensor], logits: list[Tensor], points: list[Tensor]) -> Tensor:
    """Correspondences with one axis for every axis of the points."""

    def sampled(x: Tensor, where: Tensor) -> Tensor:
        grid = where.permute(0, 2, 1, 3)
        x = F.grid_sample(x, grid, padding_mode="border", align_corners=True)
        return F.normalize(x, dim=1, eps=1e-10)

    with torch.no_grad():
        pair = [sampled(x, p) for x, p in zip(maps, points, strict=True)]
        target = torch.einsum("nchw,ncij->nhwij", *pair)
        mean = target.mean()
        target = target - target.mean([3, 4], keepdim=True)
        target = target - target.mean() + mean
    pair = [sampled(x, p) for x, p in zip(logits, points, strict=True)]
    student = torch.einsum("nchw,ncij->nhwij", *pair)
    return (-student.clamp(0) * target).mean()


def literal_affinity(affinity: Tensor, labels: Tensor, near: Tensor) -> Tensor:
    """Labels to the grid, all pairs, both kinds."""
    side = round(affinity.shape[1] ** 0.5)
    cells = F.interpolate(labels[:, None].float(), (side, side), mode="nearest").flatten(1)
    rows = cells[:, :, None].repeat(1, 1, cells.shape[1])
    target = (rows == rows.transpose(1, 2)).float()
    target[(rows == 255) | (rows.transpose(1, 2) == 255) | ~near] = 255
    same, other = (target == 1).float(), (target == 0).float()
    loss = 0.5 * ((1 - affinity) * same).sum() / (same.sum() + 1)
    return loss + 0.5 * (affinity * other).sum() / (other.sum() + 1)


def literal_step(method: TSCD, batch: Batch, near: Tensor) -> dict[str, Tensor]:
    """Losses of the step, the sum among them."""
    config, images, tags, points = method.config, batch["images"], batch["tags"], batch["points"]
    seen, size = normalize(images), tuple(images.shape[2:])
    view = F.interpolate(seen, scale_factor=config.view_scale, mode="bilinear", align_corners=True)
    first, cam = literal_pass(method, seen), literal_cam(method, seen)
    second, cam_view = literal_pass(method, view), literal_cam(method, view)
    labels = literal_labels(method, images, cam, tags)

    def large(logits: Tensor, at: Tensor) -> Tensor:
        return F.interpolate(logits, at.shape[2:], mode="bilinear", align_corners=True)

    logits, view_logits = large(first["seg"], seen), large(second["seg"], view)
    back, front = labels.clone(), labels.clone()
    back[labels != 0] = front[labels == 0] = 255
    entropy = [F.cross_entropy(logits, part, ignore_index=255) for part in (back, front)]
    probs, valid = logits.softmax(1), box_to_valid(batch["boxes"], size)
    energy = [
        DenseEnergyLoss()(probs[i : i + 1], 255 * images[i : i + 1], valid[:1], labels[i : i + 1])
        for i in range(len(images))
    ]
    parts = {
        "tags": F.multilabel_soft_margin_loss(first["tags"], tags),
        "seg": 0.5 * (entropy[0] + entropy[1]),
        "energy": sum(energy, start=torch.zeros(())) / len(images),
        "affinity": literal_affinity(first["affinity"], labels, near),
        "scd": literal_scd([cam, cam_view], [logits, view_logits], points),
    }
    if config.quirks.inert_er:
        small = F.interpolate(cam, cam_view.shape[2:], mode="bilinear", align_corners=True)
        parts["er"] = (small[:, 1:] - cam_view[:, 1:]).abs().mean()
    weights = {"tags": 1.0} | vars(config.weights)
    parts["loss"] = sum((weights[k] * v for k, v in parts.items()), start=torch.zeros(()))
    return parts


def our_step(method: TSCD, batch: Batch) -> dict[str, Tensor]:
    """The same from the package, with the same points."""
    points = iter(batch["points"])
    draw, views.draw_points = views.draw_points, lambda *_: next(points)  # type: ignore[assignment]
    try:
        out = method.training_step(batch, method.config.warmup + 1)  # type: ignore[arg-type]
    finally:
        views.draw_points = draw
    return {**out.parts, "loss": out.loss}


# --- measuring ----------------------------------------------------------------------------------


def job(who: str, preset: str, options: argparse.Namespace) -> Callable[[], dict[str, float]]:
    """One step with its backward pass, ready to run; returns losses and a gradient's size."""
    method = build(preset, options.backbone, options.classes)
    if who == "literal":  # as anybody's network lies in memory
        method.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
        multiply_by_onednn(method, on=False)
    batch = scene(options.size, options.classes)
    grid = -(-options.size // method.network.backbone.stride)
    near = radius_mask(grid, grid, method.config.radius)

    def run() -> dict[str, float]:
        method.zero_grad(set_to_none=True)
        ours = who == "ours"
        parts = our_step(method, batch) if ours else literal_step(method, batch, near)
        parts["loss"].backward()
        grads = [p.grad.norm() for p in method.parameters() if p.grad is not None]
        numbers = {name: float(part.detach()) for name, part in parts.items()}
        return numbers | {"gradient": float(torch.stack(grads).norm())}

    return run


def take_turns(preset: str, options: argparse.Namespace) -> dict[str, Any]:
    """Smallest times of each in s, and how far their losses are apart."""
    jobs = {who: job(who, preset, options) for who in ("ours", "literal")}
    times: dict[str, list[tuple[float, float]]] = {who: [] for who in jobs}
    losses: dict[str, dict[str, float]] = {}
    for _ in range(options.repeats):
        for who, run in jobs.items():
            wall, cpu = time.perf_counter(), time.process_time()
            losses[who] = run()
            times[who].append((time.perf_counter() - wall, time.process_time() - cpu))
    result: dict[str, Any] = {
        who: {"wall_s": round(min(w for w, _ in t), 2), "cpu_s": round(min(c for _, c in t), 2)}
        for who, t in times.items()
    }
    result["relative_difference"] = {
        name: abs(value - losses["literal"][name]) / max(abs(losses["literal"][name]), 1e-12)
        for name, value in losses["ours"].items()
    }
    return result


def growth(who: str, preset: str, options: argparse.Namespace) -> float:
    """MB by which the largest resident size grows in one step, in a fresh process."""
    command = [sys.executable, __file__, "--memory-of", f"{who}:{preset}"]
    for flag in ("size", "classes", "backbone", "threads"):
        command += [f"--{flag}", str(getattr(options, flag))]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def own_growth(options: argparse.Namespace) -> float:
    """The same, for this process; a small step first loads what any step needs."""
    who, preset = options.memory_of.split(":")
    small = argparse.Namespace(**{**vars(options), "size": 224, "backbone": "mit_b0"})
    job(who, preset, small)()
    run = job(who, preset, options)
    with contextlib.suppress(OSError):  # Linux: forget the peak so far
        Path("/proc/self/clear_refs").write_text("5")
    before = peak_mb()
    run()
    return peak_mb() - before


def main() -> None:
    """Print times, memory and differences as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, help="write the result here too")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--classes", type=int, default=20)
    parser.add_argument("--backbone", default="mit_b1")
    parser.add_argument("--presets", nargs="+", default=["voc", "voc-released"])
    parser.add_argument("--memory-of", help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.memory_of:
        print(own_growth(options))
        return
    result: dict[str, Any] = {
        name: getattr(options, name) for name in ("backbone", "size", "classes", "threads")
    }
    result["torch"] = torch.__version__
    for preset in options.presets:
        found = result[preset] = take_turns(preset, options)
        for who in ("ours", "literal"):
            found[who]["peak_mb"] = round(growth(who, preset, options))
        found["literal_over_ours"] = {
            key: round(found["literal"][key] / found["ours"][key], 2) for key in found["ours"]
        }
    report(result, options.json)


if __name__ == "__main__":
    main()
