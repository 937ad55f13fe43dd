"""One training step of TSCD, word for word as its specification reads; timed by `tscd.py`."""

import contextlib
from collections.abc import Iterator
from types import MethodType
from typing import Any

import torch
import torch.nn.functional as F
from refine_local import textbook
from torch import Tensor

from wsss_lab.cam import box_to_valid
from wsss_lab.methods.tscd.method import TSCD
from wsss_lab.methods.tscd.released import truncate_colours
from wsss_lab.models.attention import attention_layers, pool_queries
from wsss_lab.models.heads import SegFormerHead
from wsss_lab.refine import DenseEnergyLoss

Batch = dict[str, Any]


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
    seen, size = method.normalize(images), tuple(images.shape[2:])
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
