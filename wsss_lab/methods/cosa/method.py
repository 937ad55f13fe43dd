"""CoSA: two networks that teach each other by swapping their assignments.

Yang et al., "Weakly Supervised Co-training with Swapping Assignments for Semantic Segmentation"
(ECCV 2024, arXiv 2402.17891). A slow network looks at the weak view of an image and makes two
assignments: labels from its class activation maps, and soft labels from its segmentation. A fast
network sees the strong view and learns each from the other: maps supervise its segmentation,
segmentation supervises its maps. The slow network follows the fast one.

| in the paper | here |
|---|---|
| online and assignment network | `CoSA.online`, `CoSA.assignment` (`wsss_lab.ema`) |
| CAM pseudo-labels | `teacher_cam`, `label_from_cam` |
| segmentation pseudo-labels | `soft_target`, `sampled_target` |
| CAM to segmentation loss | `balanced_mean` of `pixel_entropy` |
| segmentation to CAM loss | `swapped_cam_loss` |
| soft perplexity-based regularisation | `perplexity_weights` (reconstruction) |
| contrastive separation | `separation_margin`, `separation_infonce` (reconstructions, ours) |
| dynamic threshold search | `wsss_lab.ema.ThresholdSearch` |
| dense energy (in the code, not in the paper's figure) | `wsss_lab.refine.DenseEnergyLoss` |

**Three voices.** *In the paper*: all of the above, 76.2 mIoU on VOC val. *In the released code*: no
perplexity, no separation, threshold search off; that number is reached without them, and with the
true tags removing absent classes at evaluation. *Here*: `voc-released` and `coco-released` are the
released code down to its slips; `voc` and `coco` are repaired and have every technique on. Their
accuracy at full size has not been measured.

**Deviations.** Presets ending in `-released` have all of them off; each is a field of `CoSAConfig`.

1. `aux_last_scale`: auxiliary maps join all scales (released: a list is overwritten, last only).
2. `cam_floor`: no ReLU before the sigmoid cross-entropy of the maps (released: loss floor ln 2).
3. `independent_start`: the teacher starts as a copy (released: with other random heads).
4. `perplexity`: pixels far from the threshold weigh more (released: absent).
5. `separation`: foreground and background are pulled apart in the maps (released: absent).
6. `search`: thresholds are searched (released: fixed). Searched thresholds are compared at full
   resolution instead of half.
7. `mask_padding`: padding takes no part in normalising maps or in their loss (released: does).
8. `energy_view`: the dense energy follows the weak view's colours (released: the strong view's,
   solarised and posterised as they are).
9. `skip_warmup`: while the swapped losses weigh 0, the teacher is not run (released: is). Weights
   come out the same; parts are missing from the log, and a threshold search starts afterwards.
10. `decay_all`: norms, biases and the class token have no weight decay (released: have).
11. `queue_start`: the search starts from an empty queue (released: from random numbers).
12. `queue_shared`: all processes fill one queue (released: one queue each).

Besides, `voc` and `coco` train in bf16 by autocast, losses excepted (`run.precision`; released:
float32; see the study `precision`).
"""

import copy
from collections.abc import Mapping
from typing import Any, cast

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from wsss_lab.cam import box_to_valid, present_classes
from wsss_lab.ema import MomentumTeacher, RingQueue, ThresholdSearch
from wsss_lab.losses import tag_loss
from wsss_lab.methods.common.base import (
    Batch,
    Method,
    SegOutput,
    StepOutput,
    normalize,
    split_decay,
)
from wsss_lab.methods.cosa.config import CoSAConfig
from wsss_lab.methods.cosa.labels import (
    Assignment,
    label_from_cam,
    sampled_target,
    teacher_cam,
)
from wsss_lab.methods.cosa.losses import (
    balanced_mean,
    certain_regions,
    perplexity_weights,
    pixel_entropy,
    separation_infonce,
    separation_margin,
    swapped_cam_loss,
)
from wsss_lab.methods.cosa.network import CoSANetwork, Stream
from wsss_lab.models.base import Backbone, split_norm_parameters
from wsss_lab.models.weights import load_strictly
from wsss_lab.refine import DenseEnergyLoss

TEACHER = "assignment.network."
"""What the names of the slow network's tensors start with."""


class CoSA(Method):
    """Online and assignment network and the step that trains them.

    Args:
        backbone: with two maps, see `CoSANetwork`.
        classes: foreground classes `k`.
        config: settings; `PRESETS` has those of the paper.
    """

    def __init__(
        self,
        backbone: Backbone,
        classes: int,
        config: CoSAConfig | None = None,
    ) -> None:
        super().__init__()
        self.config = config = config or CoSAConfig()
        self.energy = DenseEnergyLoss()
        self.online = CoSANetwork(backbone, classes, config.hidden)
        slow = copy.deepcopy(self.online)
        if config.independent_start:
            slow = CoSANetwork(copy.deepcopy(backbone), classes, config.hidden)
        self.assignment = MomentumTeacher(slow, config.decay)
        self.searches = nn.ModuleList()
        if config.search != "none":
            cells = config.queue_grid[0] * config.queue_grid[1]
            for low, high in ((config.low, config.high), (config.aux_low, config.aux_high)):
                queue = RingQueue(config.queue_rows, cells, config.queue_start, config.queue_shared)
                self.searches.append(ThresholdSearch(queue, low, high, config.search))

    def training_step(self, batch: Batch, step: int) -> StepOutput:
        """Losses of one step.

        Args:
            batch: `images` (the weak view) and `tags`; `strong`, the same geometry in other
                colours (default: the weak view); `boxes`, [y0, y1, x0, x1] of the real pixels of
                each padded crop (default: all); `max_tags`, the largest number of tags of an
                image as a Python number, which spares work on an accelerator.
            step: 0-based; the swapped losses start after step `config.warmup`.
        """
        config = self.config
        images, tags = batch["images"], batch["tags"]
        strong: Tensor = batch.get("strong", images)
        student: Stream = self.online(normalize(strong))
        main, aux = tag_loss(student.tag_logits, tags), tag_loss(student.aux_logits, tags)
        parts = {"tags": main, "aux_tags": aux}
        warm = step <= config.warmup
        if warm and config.skip_warmup:
            # the head is in the graph, so that it has the same (zero) gradients as in a full step
            idle = sum(weight.sum() for weight in self.online.seg_head.parameters())
            return StepOutput(main + aux + 0.0 * idle, parts)

        taught = self.assign(batch, (student.cam.shape[2], student.cam.shape[3]))
        with torch.autocast(images.device.type, enabled=False):
            logits, parts["seg"] = self._seg_loss(student, taught)
            parts["cam"] = self._cam_loss(student, taught)
            if config.weights.energy > 0:
                view = strong if config.energy_view == "strong" else images
                parts["energy"] = self.energy(
                    logits.softmax(1), 255 * view, taught.valid, taught.labels[:, 0]
                )
            if config.separation != "none":
                parts["separation"] = self._separation(student, taught)
        factors = {} if warm else vars(config.weights)
        swapped = [factors.get(name, 0.0) * parts[name] for name in list(parts)[2:]]
        loss = torch.stack([main + aux, *swapped]).sum()
        panels = {
            "cam": taught.cam,
            "classes": taught.classes,
            "labels": taught.labels,
            "target": taught.target,
            "student_cam": student.cam,
            "seg_logits": student.seg_logits,
        }
        for name, search in zip(("main", "aux"), self.searches, strict=False):
            found = cast(ThresholdSearch, search).thresholds.clone()
            parts[f"low_{name}"], parts[f"high_{name}"] = found.unbind()
        return StepOutput(loss, parts, panels)

    @torch.no_grad()
    def assign(self, batch: Batch, grid: tuple[int, int]) -> Assignment:
        """What the teacher makes of the weak view: labels for the student's two outputs.

        Args:
            batch: see `training_step`.
            grid: (gh, gw) of the student's maps.
        """
        config = self.config
        images, tags = batch["images"], batch["tags"]
        size, boxes = (images.shape[2], images.shape[3]), batch.get("boxes")
        valid = torch.ones_like(images[:, 0], dtype=torch.bool)
        if boxes is not None:
            valid = box_to_valid(boxes, size)
        # counting the tags on an accelerator would wait for it: there, take the bound or all
        bound = batch.get("max_tags")
        if bound is None and tags.device.type != "cpu":
            bound = tags.shape[1]
        classes, present = present_classes(tags, bound)

        views: list[Stream] = []
        mirrored = normalize(torch.cat([images, images.flip(-1)]))
        for scale in config.scales:
            sides = (int(size[0] * scale), int(size[1] * scale))
            view = F.interpolate(mirrored, sides, mode="bilinear")
            # one by one on a CPU: a fraction of the memory, and of the time it takes to get it
            parts = [self.assignment(part) for part in view.split(1 if view.is_cpu else len(view))]
            views.append(Stream(*map(torch.cat, zip(*parts, strict=True))))

        with torch.autocast(images.device.type, enabled=False):
            return self._labels(views, classes, present, valid, grid)

    def _labels(
        self,
        views: list[Stream],
        classes: Tensor,
        present: Tensor,
        valid: Tensor,
        grid: tuple[int, int],
    ) -> Assignment:
        """Join the teacher's views and turn them into labels, in float32."""
        config, size = self.config, (valid.shape[1], valid.shape[2])
        inside = valid if config.mask_padding else None
        both = [
            teacher_cam(maps, classes, present, size, config.scales, last, inside)
            for maps, last in (
                ([view.cam for view in views], False),
                ([view.aux_cam for view in views], config.aux_last_scale),
            )
        ]
        bands = self._thresholds(both)
        labels = [
            label_from_cam(cam, classes, present, low, high, valid)
            for cam, (low, high) in zip(both, bands, strict=True)
        ]
        weights = None
        if config.perplexity:
            doubts = [
                perplexity_weights(cam.amax(1), label, low, high, config.alpha, config.beta)
                for cam, label, (low, high) in zip(both, labels, bands, strict=True)
            ]
            weights = torch.stack(doubts, dim=1)
        seg = [view.seg_logits for view in views]
        target = sampled_target(seg, classes, present, size, grid, config.temperature)
        stacked = torch.stack(labels, dim=1)
        return Assignment(classes, present, stacked, target, weights, both[0], valid)

    def _thresholds(self, cams: list[Tensor]) -> list[tuple[Any, Any]]:
        """(low, high) for the maps and the auxiliary maps: numbers, or tensors if searched."""
        config = self.config
        if not self.searches:
            return [(config.low, config.high), (config.aux_low, config.aux_high)]
        found = []
        for cam, search in zip(cams, self.searches, strict=True):
            small = F.interpolate(cam, config.queue_grid, mode="bilinear")
            found.append(tuple(search(small.amax(1).flatten(1)).unbind()))
        return found

    def _seg_loss(self, student: Stream, taught: Assignment) -> tuple[Tensor, Tensor]:
        """Logits at the size of the image, and the loss against both label maps."""
        size = (taught.labels.shape[2], taught.labels.shape[3])
        logits = F.interpolate(student.seg_logits.float(), size, mode="bilinear")
        entropy = pixel_entropy(logits, taught.labels)
        weights = (None, None) if taught.weights is None else taught.weights.unbind(1)
        pairs = zip(entropy.unbind(1), taught.labels.unbind(1), weights, strict=True)
        losses = [balanced_mean(*pair) for pair in pairs]
        return logits, (losses[0] + losses[1]) / 2

    def _cam_loss(self, student: Stream, taught: Assignment) -> Tensor:
        cam = student.cam.float()
        where = taught.classes[:, :, None, None].expand_as(taught.target)
        target = torch.zeros_like(cam).scatter_add(1, where, taught.target)
        valid = None
        if self.config.mask_padding:
            whole = taught.valid[:, None].float()
            valid = F.interpolate(whole, cam.shape[-2:], mode="nearest-exact")[:, 0] > 0
        return swapped_cam_loss(cam, target, self.config.cam_floor, valid)

    def _separation(self, student: Stream, taught: Assignment) -> Tensor:
        """The auxiliary labels say where foreground and background surely are."""
        grid = (student.cam.shape[2], student.cam.shape[3])
        cam = student.cam.gather(1, taught.classes[:, :, None, None].expand(-1, -1, *grid))
        front, back = certain_regions(taught.labels[:, 1], taught.classes, grid)
        if self.config.separation == "margin":
            return separation_margin(cam, front, back, taught.present)
        return separation_infonce(cam, student.features, front, back, taught.present)

    def after_step(self, step: int) -> None:
        """Let the teacher follow; the loop calls this after every optimiser step."""
        self.assignment.update(self.online)

    def predict(
        self, images: Float[Tensor, "b 3 h w"], tags: Float[Tensor, "b k"] | None = None
    ) -> SegOutput:
        """Segmentation logits, maps and tag logits of the teacher, raw and on its own grid.

        Args:
            images: RGB in [0, 1].
            tags: not used; what an evaluation does with true tags happens outside.
        """
        view: Stream = self.assignment(normalize(images))
        return SegOutput(view.seg_logits, view.cam, view.tag_logits)

    def start_from(self, state: Mapping[str, Tensor]) -> None:
        """Both networks start as the teacher of an earlier run; its queue does not count."""
        own = {k.removeprefix(TEACHER): v for k, v in state.items() if k.startswith(TEACHER)}
        load_strictly(self.online, own, what="start of CoSA")
        self.assignment.network.load_state_dict(self.online.state_dict())

    def load_released(self, state: Mapping[str, Tensor]) -> None:
        """Load a released checkpoint into both networks, strictly (a file holds only one)."""
        self.online.load_released(state)
        self.assignment.network.load_state_dict(self.online.state_dict())

    def param_groups(self, lr: float, head_lr: float, weight_decay: float) -> list[dict[str, Any]]:
        """Encoder at `lr`, heads at `head_lr` (released: 6e-5, ten times that, decay 0.01)."""
        net = self.online
        tags = nn.ModuleList([net.tag_head, net.aux_head])
        if not self.config.decay_all:
            groups = split_decay(net.backbone, lr, weight_decay)
            return groups + split_decay(nn.ModuleList([tags, net.seg_head]), head_lr, weight_decay)
        norm, other = split_norm_parameters(net.backbone)
        some = [(other, lr), (norm, lr)]
        some += [(list(head.parameters()), head_lr) for head in (tags, net.seg_head)]
        return [
            {"params": [p for p in ps if p.requires_grad], "lr": rate, "weight_decay": weight_decay}
            for ps, rate in some
        ]
