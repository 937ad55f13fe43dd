"""Time one ASDT step: `python benchmarks/asdt.py [--backbone wrn38 --size 321 --json FILE]`.

Ours against a literal transcription of the released step: one image after the other through two
CRFs of pydensecrf (`pip install pydensecrf2`; without it, ours image by image), all classes
enlarged and copied to the host, class by class in NumPy, teacher B among all classes, losses one
pixel group at a time. Rows: network and losses with labels given; with teacher A's label; inside a
pulse, with teacher B's label too. `--check` compares losses and labels instead. Processor time is
reported, because other work may share the machine; ours and theirs take turns.
"""

import argparse
import json
import platform
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from wsss_lab.cam import box_to_valid
from wsss_lab.methods.asdt.config import PRESETS, RELEASED
from wsss_lab.methods.asdt.labels import TeacherLabel
from wsss_lab.methods.asdt.method import ASDT, Targets
from wsss_lab.methods.asdt.network import Outputs
from wsss_lab.models.backbones import build_backbone
from wsss_lab.refine import DenseCRF, DenseEnergyLoss

try:
    import pydensecrf.densecrf as densecrf
    from pydensecrf.utils import unary_from_softmax
except ImportError:
    densecrf = None

CLASSES, IGNORE = 20, 255


def literal_crf(image: np.ndarray, probs: np.ndarray, crf: DenseCRF) -> np.ndarray:
    """One image (h, w, 3), scores (m, h, w)."""
    if densecrf is None:
        rgb = torch.from_numpy(image).permute(2, 0, 1)[None]
        return crf(rgb, torch.from_numpy(probs)[None])[0].numpy()
    m, h, w = probs.shape
    field = densecrf.DenseCRF2D(w, h, m)
    field.setUnaryEnergy(np.ascontiguousarray(unary_from_softmax(probs)))
    field.addPairwiseGaussian(sxy=crf.spatial_sigma, compat=crf.spatial_weight)
    field.addPairwiseBilateral(
        sxy=crf.bilateral_sigma_xy,
        srgb=crf.bilateral_sigma_rgb,
        rgbim=np.ascontiguousarray(image),
        compat=crf.bilateral_weight,
    )
    return np.array(field.inference(crf.iterations), np.float32).reshape(m, h, w)


def literal_a(image: np.ndarray, cam: np.ndarray, tags: np.ndarray, crf: DenseCRF) -> np.ndarray:
    """Teacher A's label of one image from all its maps."""
    keys = np.concatenate([[0], np.flatnonzero(tags) + 1])
    maps = cam[keys[1:] - 1]
    refined, scores = {}, maps
    for exponent in (4, 32):
        scores = np.concatenate([(1 - maps.max(0, keepdims=True)) ** exponent, maps])
        refined[exponent] = literal_crf(image, scores, crf)
    low, high = refined[4].argmax(0), refined[32].argmax(0)
    label = keys[low]
    label[low == 0] = IGNORE
    label[high == 0] = 0
    winner, sure = scores.argmax(0), np.zeros(low.shape, bool)
    for c in np.unique(low):
        mine = winner == c
        if c == 0:
            sure |= mine & (scores[0] > 0.8)
            continue
        values = np.sort(scores[c][mine & (scores[c] > 0.1)])
        if len(values):
            sure |= mine & (scores[c] > values[int(len(values) * 0.6)])
    by_crf = np.maximum(refined[32][0], refined[4][1:].max(0)) >= 0.8
    label[~(sure & by_crf)] = IGNORE
    return label


def up(maps: Tensor, size: tuple[int, ...]) -> Tensor:
    """Bilinear resize."""
    return F.interpolate(maps, size, mode="bilinear", align_corners=False)


class Literal:
    """The released step, written down as it is described; in pulses with the commented-out line."""

    def __init__(self, method: ASDT) -> None:
        self.network, self.config = method.network, method.config
        self.energy = DenseEnergyLoss()

    def labels(self, batch: dict[str, Tensor], outputs: Outputs, pulse: bool) -> list[Tensor]:
        """Both teachers' labels, image by image on the host."""
        net, images, tags = self.network, batch["images"], batch["tags"]
        size, given = images.shape[-2:], net.backbone.normalize(images)
        with torch.no_grad():
            views = [F.relu(outputs.cam)]
            for scale in self.config.scales[1:]:
                small = up(given, tuple(int(side * scale) for side in size))
                maps = F.relu(net.tag_head.cam(net.backbone(small).last))
                views.append(up(maps, tuple(outputs.cam.shape[-2:])))
            cam = up(torch.stack(views).mean(0), tuple(size)) * tags[:, :, None, None]
            cam = cam / (cam.flatten(2).amax(2)[:, :, None, None] + 1e-5)
        pictures = (255 * images).permute(0, 2, 3, 1).numpy().astype(np.uint8)
        found = [
            literal_a(picture, cam[i].numpy(), tags[i].numpy(), self.config.cam_crf)
            for i, picture in enumerate(pictures)
        ]
        labels = [torch.from_numpy(np.stack(found)).long()]
        if pulse:
            probs = up(outputs.teacher_logits.detach(), size).softmax(1).numpy()
            refined = [
                literal_crf(picture, probs[i], self.config.seg_crf)
                for i, picture in enumerate(pictures)
            ]
            labels.append(torch.from_numpy(np.stack(refined).argmax(1)).long())
        return labels

    def __call__(self, batch: dict[str, Tensor], pulse: bool) -> tuple[Tensor, list[Tensor]]:
        """Loss and labels."""
        outputs: Outputs = self.network(batch["images"])
        labels = self.labels(batch, outputs, pulse)
        size = batch["images"].shape[-2:]
        valid = box_to_valid(batch["boxes"], (size[0], size[1]))
        colours = (255 * batch["images"]).floor()
        terms = []
        assert outputs.student_logits is not None
        for logits in (outputs.teacher_logits, outputs.student_logits):
            full = up(logits, size)
            total = self.energy(full.softmax(1), colours, valid, labels[0])
            if pulse and logits is outputs.student_logits:
                total = total + 0.1 * F.cross_entropy(full, labels[1])
            else:
                for group in (labels[0] == 0, (labels[0] > 0) & (labels[0] != IGNORE)):
                    part = torch.where(group, labels[0], IGNORE)
                    whole = F.cross_entropy(full, part, ignore_index=IGNORE, reduction="sum")
                    total = total + whole / group.sum().clamp(min=1)
            terms.append(0.5 * total)
        tags = F.multilabel_soft_margin_loss(outputs.tag_logits, batch["tags"])
        return tags + terms[0] + terms[1], labels


class Given(ASDT):
    """Ours with labels that cost nothing."""

    given: Targets

    def pseudo_labels(self, *_: Any) -> Targets:
        """The given ones."""
        return self.given


def scene(options: argparse.Namespace) -> dict[str, Tensor]:
    """Smooth pictures with some grain and one to three tags each."""
    torch.manual_seed(0)
    b, side = options.batch, options.size
    images = up(torch.rand(b, 3, 12, 12), (side, side)) + 0.02 * torch.randn(b, 3, side, side)
    tags = torch.zeros(b, CLASSES)
    for i in range(b):
        tags[i, torch.randperm(CLASSES)[: 1 + i % 3]] = 1
    boxes = torch.tensor([[0, side, 0, side]]).repeat(b, 1)
    return {"images": images.clamp(0, 1), "tags": tags, "boxes": boxes}


def build(options: argparse.Namespace, kind: type[ASDT], preset: str) -> ASDT:
    """A network with random weights; labels of random maps rarely reach 0.8, times do not care."""
    torch.manual_seed(0)
    size = {"width_factor": options.width_factor} if options.backbone == "wrn38" else {}
    config = replace(PRESETS[preset], hidden=options.hidden, warmup=0, period=2, duty=0.5, phase=1)
    if preset == "voc-released":  # what both sides can do: the aligned crop, the line put back
        quirks = replace(RELEASED, ignore_pulse=False, squashed_crf_image=False, nan_on_empty=False)
        config = replace(config, quirks=quirks)
    return kind(build_backbone(options.backbone, **size), CLASSES, config).train()


def check(options: argparse.Namespace, batch: dict[str, Any]) -> list[dict[str, Any]]:
    """Losses and labels of both, outside and inside a pulse."""
    ours = build(options, ASDT, "voc-released")
    ours.energy = DenseEnergyLoss()  # as the literal one: not the old way of halving
    rows = []
    for step in (2, 3):
        torch.manual_seed(1)
        mine = ours.training_step(batch, step)  # type: ignore[arg-type]
        torch.manual_seed(1)
        loss, labels = Literal(ours)(batch, step == 3)
        found = [mine.panels[name] for name in ("a_label", "b_label") if name in mine.panels]
        same = [(a == b).float().mean().item() for a, b in zip(found, labels, strict=True)]
        known = (labels[0] != IGNORE).float().mean().item()
        pair = (mine.loss.item(), loss.item())
        rows.append({"step": step, "losses": pair, "agree": same, "labelled by A": known})
    return rows


def main() -> None:
    """Measure or check."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backbone", default="toy_cnn")
    parser.add_argument("--width-factor", type=float, default=0.125, help="of wrn38")
    parser.add_argument("--hidden", type=int, default=64)
    parser.add_argument("--size", type=int, default=161)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    batch: dict[str, Any] = scene(options)
    if options.check:
        print(*check(options, batch), sep="\n")
        return
    ours = build(options, ASDT, "voc")
    given = build(options, Given, "voc")
    assert isinstance(given, Given)
    h = w = options.size
    label = TeacherLabel(
        torch.randint(0, CLASSES + 1, (options.batch, h, w)), torch.zeros(0), torch.zeros(0)
    )
    picture, valid = 255 * batch["images"], box_to_valid(batch["boxes"], (h, w))
    given.given = Targets(picture, valid, label, None)
    literal = Literal(ours)
    rows: dict[str, Callable[[], Tensor]] = {
        "labels given, ours": lambda: given.training_step(batch, 2).loss,  # type: ignore[arg-type]
        "teacher A, ours": lambda: ours.training_step(batch, 2).loss,  # type: ignore[arg-type]
        "teacher A, literal": lambda: literal(batch, False)[0],
        "pulse, ours": lambda: ours.training_step(batch, 3).loss,  # type: ignore[arg-type]
        "pulse, literal": lambda: literal(batch, True)[0],
    }
    best = dict.fromkeys(rows, float("inf"))
    for _ in range(options.repeats):
        for name, run in rows.items():
            start = time.process_time()
            run().backward()
            best[name] = min(best[name], time.process_time() - start)
    for name, seconds in best.items():
        print(f"{name:24s} {seconds:8.3f} s")
    if options.json:
        facts = {"torch": torch.__version__, "python": platform.python_version()}
        facts |= {"crf": "pydensecrf" if densecrf else "wsss_lab"} | vars(options)
        facts["json"] = str(options.json)
        options.json.write_text(json.dumps({"seconds": best, "facts": facts}, indent=2) + "\n")


if __name__ == "__main__":
    main()
