"""The released step of CoSA, written down as it is described; a competitor of `cosa.py`."""

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from wsss_lab.methods.cosa.method import CoSA
from wsss_lab.refine import DenseEnergyLoss


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
        config, normalize = self.config, self.online.backbone.normalize
        tags, size = batch["tags"], tuple(batch["images"].shape[-2:])
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
