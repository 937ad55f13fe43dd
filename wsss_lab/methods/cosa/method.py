"""CoSA: two networks that supervise each other by swapping their assignments.

Yang et al., "Weakly Supervised Co-training with Swapping Assignments for Semantic Segmentation"
(ECCV 2024, arXiv 2402.17891). A slow network sees the weak view of an image and makes two
assignments: labels from its class activation maps, and soft labels from its segmentation. A fast
network sees the strong view and learns each from the other: maps supervise its segmentation,
segmentation supervises its maps. The slow network follows the fast one.

| in the paper | here |
|---|---|
| online and assignment network | `CoSA.online`, `CoSA.assignment` (`wsss_lab.ema`) |
| CAM pseudo-labels | `teacher_cam`, `label_from_cam` |
| segmentation pseudo-labels | `soft_target`, `sampled_target` |
| CAM to segmentation loss | `swapped_seg_loss` |
| segmentation to CAM loss | `swapped_cam_loss` |
| soft perplexity-based regularisation | `perplexity_weights` (reconstruction) |
| contrastive separation | `separation_margin`, `separation_infonce` (reconstructions, ours) |
| dynamic threshold search | `wsss_lab.methods.cosa.threshold` |
| dense energy (in the code, not in the paper's figure) | `wsss_lab.refine.DenseEnergyLoss` |

*In the paper*: all of the above, 76.2 mIoU on VOC val. *In the released code*: no perplexity, no
separation, threshold search off; that number is reached without them, and with the true tags
removing absent classes at evaluation. *Here*: `voc-released` and `coco-released` are the released
code down to its slips; `voc` and `coco` are repaired and have every technique on. Their accuracy at
full size has not been measured.

**Deviations.** Each is a field of `wsss_lab.methods.cosa.config.CoSAQuirks`, all on in presets
`-released`; to follow the paper, skip every line with `quirks`. Besides, searched thresholds are
compared at full resolution instead of half, and `voc` and `coco` train in bf16 by autocast, losses
excepted (`run.precision`; released: float32; see the study `precision`).
"""

import copy
from collections.abc import Mapping
from typing import cast

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from wsss_lab.cam import present_classes
from wsss_lab.ema import MomentumTeacher
from wsss_lab.losses import tag_loss
from wsss_lab.methods.common.base import (
    Batch,
    Method,
    ParamGroup,
    SegOutput,
    StepOutput,
    split_decay,
)
from wsss_lab.methods.common.batches import tag_bound, valid_pixels
from wsss_lab.methods.cosa import released
from wsss_lab.methods.cosa.config import CoSAConfig
from wsss_lab.methods.cosa.labels import (
    PseudoLabels,
    Threshold,
    label_from_cam,
    sampled_target,
    teacher_cam,
)
from wsss_lab.methods.cosa.losses import (
    certain_regions,
    perplexity_weights,
    separation_infonce,
    separation_margin,
    swapped_cam_loss,
    swapped_seg_loss,
)
from wsss_lab.methods.cosa.network import CoSANetwork, Outputs, forward_views
from wsss_lab.methods.cosa.threshold import ThresholdSearch, threshold_searches
from wsss_lab.models.base import Backbone
from wsss_lab.models.weights import load_strictly
from wsss_lab.refine import DenseEnergyLoss

TEACHER = "assignment.network."
"""Prefix of the names of the slow network's tensors."""


class CoSA(Method):
    """Online and assignment network and the step that trains them.

    Args:
        backbone: with two maps, see `CoSANetwork`.
        classes: foreground classes `k`.
        config: settings; `PRESETS` has those of the paper.
    """

    start_prefix = TEACHER

    def __init__(self, backbone: Backbone, classes: int, config: CoSAConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or CoSAConfig()
        self.energy = DenseEnergyLoss()
        self.online = CoSANetwork(backbone, classes, config.hidden)
        teacher = copy.deepcopy(self.online)
        if config.quirks.independent_start:
            teacher = released.with_other_heads(self.online, classes, config.hidden)
        self.assignment = MomentumTeacher(teacher, config.decay)
        self.searches = threshold_searches(config)

    def normalize(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
        """Normalise images in [0, 1] for both networks, whose backbones are of one kind."""
        return self.online.backbone.normalize(images)

    def training_step(self, batch: Batch, step: int) -> StepOutput:
        """Compute the losses of one step.

        Args:
            batch: `images` (the weak view) and `tags`; `strong`, the same geometry in other
                colours (default: the weak view); `valid` or `boxes`, [y0, y1, x0, x1], the
                real pixels of each padded crop (default: all); `max_tags`, the largest number of
                tags of an image as a Python number, which spares work on an accelerator.
            step: 0-based; the swapped losses start after step `config.warmup`.
        """
        tags, strong = batch["tags"], batch.get("strong", batch["images"])
        # the student has to match labels from quieter colours, which it can do by shape alone
        student: Outputs = self.online(self.normalize(strong))
        parts = {
            "tags": tag_loss(student.tag_logits, tags),
            "aux_tags": tag_loss(student.aux_logits, tags),
        }
        total = parts["tags"] + parts["aux_tags"]
        warm = step <= self.config.warmup
        if warm and not self.config.quirks.full_warmup:
            # labels of untrained heads would be noise; the segmentation head stays in the graph, so
            # that it has the same (zero) gradients as in a full step
            idle = sum(weight.sum() for weight in self.online.seg_head.parameters())
            return StepOutput(total + 0.0 * idle, parts)

        pseudo = self.assign(batch, (student.cam.shape[2], student.cam.shape[3]))
        swapped = self._swapped_losses(student, pseudo, batch)
        # a full warm-up computes the swapped losses and gives them no weight
        factors = {} if warm else vars(self.config.weights)
        weighted = [factors.get(name, 0.0) * value for name, value in swapped.items()]
        panels = {
            "cam": pseudo.cam,
            "classes": pseudo.classes,
            "labels": pseudo.labels,
            "target": pseudo.target,
            "student_cam": student.cam,
            "seg_logits": student.seg_logits,
        }
        loss = torch.stack([total, *weighted]).sum()
        return StepOutput(loss, parts | swapped | self._searched(), panels)

    @torch.no_grad()
    def assign(self, batch: Batch, grid: tuple[int, int]) -> PseudoLabels:
        """Make the teacher's pseudo-labels from the weak view, for the student's two outputs.

        Args:
            batch: see `training_step`.
            grid: (gh, gw) of the student's maps.
        """
        images = batch["images"]
        classes, present = present_classes(batch["tags"], tag_bound(batch))
        views = forward_views(self.assignment, self.normalize(images), self.config.scales)
        # thresholds and a temperature of 0.01 act on differences that bf16 rounds away
        with torch.autocast(images.device.type, enabled=False):
            return self._pseudo_labels(views, classes, present, valid_pixels(batch), grid)

    def _pseudo_labels(
        self,
        views: list[Outputs],
        classes: Int[Tensor, "b m"],
        present: Bool[Tensor, "b m"],
        valid: Bool[Tensor, "b h w"],
        grid: tuple[int, int],
    ) -> PseudoLabels:
        """Join the teacher's views and turn them into pseudo-labels."""
        config, scales = self.config, self.config.scales
        size = (valid.shape[1], valid.shape[2])
        inside = None if config.quirks.use_padding else valid
        aux_cams, aux_scales = [view.aux_cam for view in views], scales
        if config.quirks.aux_last_scale:
            aux_cams, aux_scales = aux_cams[-1:], scales[-1:]
        cams = [
            teacher_cam([view.cam for view in views], classes, present, size, scales, inside),
            teacher_cam(aux_cams, classes, present, size, aux_scales, inside),
        ]
        thresholds = self._thresholds(cams)
        # two labels for one segmentation: where only one of the maps errs, the other one objects
        labels = [
            label_from_cam(cam, classes, present, low, high, valid)
            for cam, (low, high) in zip(cams, thresholds, strict=True)
        ]
        weights = None
        if config.perplexity:
            form = (config.alpha, config.beta, config.certainty)
            certainty = [
                perplexity_weights(cam.amax(1), label, low, high, *form)
                for cam, label, (low, high) in zip(cams, labels, thresholds, strict=True)
            ]
            weights = torch.stack(certainty, dim=1)
        seg = [view.seg_logits for view in views]
        # on the coarse grid of the student's maps, which it supervises
        target = sampled_target(seg, classes, present, size, grid, config.temperature)
        stacked = torch.stack(labels, dim=1)
        return PseudoLabels(classes, present, stacked, target, weights, cams[0], valid)

    def _thresholds(self, cams: list[Tensor]) -> list[tuple[Threshold, Threshold]]:
        """Return (low, high) for the maps and for the auxiliary maps."""
        config = self.config
        if not self.searches:
            return [(config.low, config.high), (config.aux_low, config.aux_high)]
        found: list[tuple[Threshold, Threshold]] = []
        for cam, search in zip(cams, self.searches, strict=True):
            # on the coarse grid of the queue: neighbouring pixels hold nearly the same value
            small = F.interpolate(cam, config.queue_grid, mode="bilinear")
            low, high = search(small.amax(1).flatten(1)).unbind()
            found.append((low, high))
        return found

    def _searched(self) -> dict[str, Tensor]:
        """Return the searched thresholds by name, for the log; none if they are fixed."""
        found = {}
        for name, search in zip(("main", "aux"), self.searches, strict=False):
            both = cast(ThresholdSearch, search).thresholds.clone()
            found[f"low_{name}"], found[f"high_{name}"] = both.unbind()
        return found

    def _swapped_losses(
        self, student: Outputs, pseudo: PseudoLabels, batch: Batch
    ) -> dict[str, Tensor]:
        """Compute the losses against the pseudo-labels, by the names of their weights."""
        config, images = self.config, batch["images"]
        # sums over 448 x 448 pixels and logarithms of probabilities near 0 need float32
        with torch.autocast(images.device.type, enabled=False):
            size = (images.shape[2], images.shape[3])
            logits = F.interpolate(student.seg_logits.float(), size, mode="bilinear")
            losses = {
                "seg": swapped_seg_loss(logits, pseudo.labels, pseudo.weights),
                "cam": self._cam_loss(student, pseudo),
            }
            if config.weights.energy > 0:
                if config.quirks.energy_on_strong:
                    images = batch.get("strong", images)
                losses["energy"] = self.energy(
                    logits.softmax(1), 255 * images, pseudo.valid, pseudo.labels[:, 0]
                )
            if config.separation != "none":
                losses["separation"] = self._separation(student, pseudo)
        return losses

    def _cam_loss(self, student: Outputs, pseudo: PseudoLabels) -> Tensor:
        """Compare the maps of all classes with the segmentation; absent classes have target 0."""
        cam = student.cam.float()
        where = pseudo.classes[:, :, None, None].expand_as(pseudo.target)
        target = torch.zeros_like(cam).scatter_add(1, where, pseudo.target)
        valid = None
        if not self.config.quirks.use_padding:
            whole = pseudo.valid[:, None].float()
            valid = F.interpolate(whole, cam.shape[-2:], mode="nearest-exact")[:, 0] > 0
        return swapped_cam_loss(cam, target, self.config.quirks.cam_floor, valid)

    def _separation(self, student: Outputs, pseudo: PseudoLabels) -> Tensor:
        """Separate regions that the auxiliary labels mark as sure foreground and background."""
        grid = (student.cam.shape[2], student.cam.shape[3])
        cam = student.cam.gather(1, pseudo.classes[:, :, None, None].expand(-1, -1, *grid))
        front, back = certain_regions(pseudo.labels[:, 1], pseudo.classes, grid)
        if self.config.separation == "margin":
            return separation_margin(cam, front, back, pseudo.present)
        return separation_infonce(cam, student.features, front, back, pseudo.present)

    def after_step(self, step: int) -> None:
        """Move the teacher towards the student; the loop calls this after every optimiser step."""
        self.assignment.update(self.online)

    def predict(
        self, images: Float[Tensor, "b 3 h w"], tags: Float[Tensor, "b k"] | None = None
    ) -> SegOutput:
        """Return segmentation logits, maps and tag logits of the teacher, raw, on its own grid.

        Args:
            images: RGB in [0, 1].
            tags: not used; an evaluation with true tags applies them to the result.
        """
        view: Outputs = self.assignment(self.normalize(images))
        return SegOutput(view.seg_logits, view.cam, view.tag_logits)

    def start_from(self, state: Mapping[str, Tensor]) -> None:
        """Start both networks as the teacher of an earlier run; its queue does not count."""
        own = {k.removeprefix(TEACHER): v for k, v in state.items() if k.startswith(TEACHER)}
        load_strictly(self.online, own, what="start of CoSA")
        self.assignment.network.load_state_dict(self.online.state_dict())

    def load_released(self, state: Mapping[str, Tensor]) -> None:
        """Load a released checkpoint into both networks, strictly (a file holds only one)."""
        released.load_released(self.online, state)
        self.assignment.network.load_state_dict(self.online.state_dict())

    def param_groups(self, lr: float, head_lr: float, weight_decay: float) -> list[ParamGroup]:
        """Return the encoder at `lr`, the heads at `head_lr` (released: 6e-5, ten times that)."""
        net = self.online
        if self.config.quirks.decay_all:
            return released.param_groups(net, lr, head_lr, weight_decay)
        heads = nn.ModuleList([net.tag_head, net.aux_head, net.seg_head])
        encoder = split_decay(net.backbone, lr, weight_decay)
        return encoder + split_decay(heads, head_lr, weight_decay)
