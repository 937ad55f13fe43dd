"""TSCD: a segmentation that learns who resembles whom from the network's own maps.

Xu et al., "Self Correspondence Distillation for End-to-End Weakly-Supervised Semantic Segmentation"
(AAAI 2023, arXiv 2302.13765). One network names what is in an image, draws it, and learns from what
it drew: refined class maps are its labels (VARM), and the correspondences of two views of the maps
are what the segmentation shall have, too (SCD). Built on AFA (Ru et al., CVPR 2022).

| in the paper | here |
|---|---|
| transformer encoder, classifier, decoder, affinity head | `TSCDNetwork` |
| second view A(I) | `second_view` |
| CAM correspondence and segmentation correspondence | `sample_points`, `correspondence` |
| self correspondence distillation (SCD) | `recentre`, `scd_loss` |
| variation-aware refine module (VARM) | `wsss_lab.refine.VARM` |
| pseudo-labels with two background scores | `wsss_lab.cam.cam_to_pseudo_label` |
| affinity loss (AFA) | `affinity_label`, `affinity_loss` |
| dense energy (AFA) | `wsss_lab.refine.DenseEnergyLoss` |

**Three voices.** *In the paper*: 67.3 mIoU on VOC val, 67.5 on test, 40.1 on COCO, after a dense
CRF. Its full text was not at hand; what is said about it comes from abstracts, tables of others and
its author's answers. *In the released code*: the formulas. Its author says that the number is the
better one of segmentation and affinity-refined maps, and the latter are made with the true tags of
the validation images; others report 59 to 61. *Here*: `voc-released` and `coco-released` are the
released code down to its slips, `voc` and `coco` are repaired. Their accuracy at full size has not
been measured.

**Deviations.** Presets ending in `-released` have the released value of all of them; each is a
field of `TSCDConfig`.

1. `decoder_in_cam`: passes that only read maps leave the decoder alone (released: it runs in train
   mode in every pass, so 6 more passes per step move its running statistics).
2. `bn_updates`: running statistics learn from the image alone (released: from the second view, too.
   With 1, 60 % of their weight is on images of 0.3 of the size and less; evaluation has none).
3. `noisy_cam`: maps are made without stochastic depth (released: with).
4. `inert_er`: no "er" term (released: in the sum, without gradient; see `er_loss`).
5. `truncate_colours`: labels are refined by the image itself (released: grey levels cut off).
6. `symmetric_affinity`: affinity of A plus its transpose, as AFA has it (released: of A alone).
7. `nan_when_missing`: a batch without foreground or background pixels has a loss (released: NaN).
8. `crop`: 512, as its author says (`voc-released`: 320, what its launcher runs).
9. `mask_padding`: padding takes no part in normalising maps, and no points are drawn in it
   (released: both).
10. `scd_classes`: off; `tagged` or `background` keep maps of absent classes out of the
    correspondence (released: all classes, each stretched to 0..1).
11. `paired`: off; on, the points of both views are the same places (released: unrelated).
12. `view_crop`: off; below 1, the second view is a random window of that side (released: none).
13. `skip_warmup`: while only the tag loss counts, nothing else is computed (released: everything,
    times 0). Weights come out the same, but for the running statistics.
14. `decay_all`: biases and the decoder's norm have no weight decay (released: have).
15. `share_pass`: the maps of the views as they are come out of the passes that are trained, with
    their stochastic depth (released: one more pass for them).

10 to 12 are for studies: no preset changes them. Besides, `voc` and `coco` train in bf16 by
autocast, losses excepted (`run.precision`; released: float32; see the study `precision`).
"""

from collections.abc import Mapping
from typing import Any, cast

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from wsss_lab.cam import FUSIONS, Fusion, box_to_valid, cam_to_pseudo_label
from wsss_lab.losses import balanced_pixel_loss, enlarge, tag_loss
from wsss_lab.methods.common.base import (
    Batch,
    Method,
    SegOutput,
    StepOutput,
    normalize,
    split_decay,
)
from wsss_lab.methods.tscd.config import TSCDConfig
from wsss_lab.methods.tscd.labels import affinity_label, normalize_inside, scd_channels
from wsss_lab.methods.tscd.losses import affinity_loss, correspondence, scd_loss
from wsss_lab.methods.tscd.network import Look, Stream, TSCDNetwork
from wsss_lab.methods.tscd.released import (
    er_loss,
    load_released,
    nan_when_missing,
    truncate_colours,
)
from wsss_lab.methods.tscd.views import place_points, real_boxes, sample_points, second_view
from wsss_lab.models.base import Backbone, split_norm_parameters
from wsss_lab.refine import PAR, VARM, DenseEnergyLoss, grid_label, radius_mask, random_walk


class TSCD(Method):
    """The network and the step that trains it.

    Args:
        backbone: a `MiTBackbone`; see `tscd_backbone`.
        classes: foreground classes `k`.
        config: settings; `PRESETS` has those of the released code and ours.
    """

    def __init__(self, backbone: Backbone, classes: int, config: TSCDConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or TSCDConfig()
        self.network = TSCDNetwork(backbone, classes, config.hidden, config.symmetric_affinity)
        self.energy = DenseEnergyLoss()
        self.refiner = None
        if config.refiner != "none":
            kind = VARM if config.refiner == "varm" else PAR
            self.refiner = kind(iterations=config.refine_iterations)
        self.fusion = Fusion(**{**vars(FUSIONS["tscd"]), "scales": config.scales})

    def training_step(self, batch: Batch, step: int) -> StepOutput:
        """Losses of one step.

        Args:
            batch: `images` and `tags`; `boxes`, [y0, y1, x0, x1] of the real pixels of each padded
                crop (default: all); `max_tags`, the largest number of tags of an image as a Python
                number, which spares work on an accelerator.
            step: 0-based; only the tag loss counts up to and with step `config.warmup`.
        """
        warm = step <= self.config.warmup
        if warm and self.config.skip_warmup:
            return self._warm_step(batch)
        images, given = batch["images"], cast(dict[str, Any], batch)
        boxes = real_boxes(images, given.get("boxes"))
        valid = box_to_valid(boxes, (images.shape[2], images.shape[3]))
        look = self._look(normalize(images), valid)
        labels = self._labels(batch, look.cam, valid)
        with torch.autocast(images.device.type, enabled=False):
            parts, panels = self._losses(batch, look, labels, boxes, valid)
        factors = {} if warm else vars(self.config.weights)
        others = [factors.get(name, 0.0) * part for name, part in list(parts.items())[1:]]
        loss = torch.stack([parts["tags"], *others]).sum()
        panels |= {
            "cam": look.cam,
            "labels": labels,
            "affinity": look.student.affinity,
            "tag_logits": look.student.tag_logits,
            "seg_logits": look.student.seg_logits,
            "view": look.view,
            "view_cam": look.view_cam,
            "view_logits": look.view_logits,
        }
        return StepOutput(loss, parts, {name: value.detach() for name, value in panels.items()})

    def _warm_step(self, batch: Batch) -> StepOutput:
        """The tag loss; heads are in the graph, so that their gradients are 0 as in a full step."""
        net = self.network
        logits = net.tag_head(net.backbone(normalize(batch["images"])).last)
        loss = tag_loss(logits, batch["tags"])
        heads = [*net.seg_head.parameters(), *net.affinity_head.parameters()]
        idle = sum((weight.sum() for weight in heads), start=loss.new_zeros(()))
        return StepOutput(loss + 0.0 * idle, {"tags": loss})

    def _look(self, seen: Tensor, valid: Tensor) -> Look:
        """All passes: one per view with gradients, the others for maps."""
        config, net = self.config, self.network
        centre = (2 * torch.rand(len(seen), 2, device=seen.device) - 1) * (1 - config.view_crop)
        window = (None if config.view_crop == 1 else centre, config.view_crop)
        view = second_view(seen, config.view_scale, *window)
        inside = second_view(valid[:, None].to(seen.dtype), config.view_scale, *window)[:, 0] > 0.5
        student: Stream = net(seen)
        cam = self.maps(seen, valid, student.cam if config.share_pass else None)
        logits, raw = net.segment(view, update=config.bn_updates == "all")
        view_cam = self.maps(view, inside, raw if config.share_pass else None)
        return Look(student, cam, view, logits, view_cam, centre)

    def _losses(
        self, batch: Batch, look: Look, labels: Tensor, boxes: Tensor, valid: Tensor
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Every term, unweighted; and what there is to see on the way."""
        config, images, tags = self.config, batch["images"], batch["tags"]
        size = (images.shape[2], images.shape[3])
        logits = enlarge(look.student.seg_logits, size, align_corners=True)
        view_size = (look.view.shape[2], look.view.shape[3])
        view_logits = enlarge(look.view_logits, view_size, align_corners=True)
        grid = (look.student.cam.shape[2], look.student.cam.shape[3])
        near = radius_mask(*grid, config.radius, images.device)
        target = affinity_label(grid_label(labels, grid), near)
        points, view_points = place_points(
            boxes if config.mask_padding else None,
            size,
            config.points,
            look.centre,
            config.view_crop,
            config.paired,
        )
        cam, view_cam = (
            scd_channels(m, tags, config.scd_classes) for m in (look.cam, look.view_cam)
        )
        parts = {
            "tags": tag_loss(look.student.tag_logits, tags),
            "seg": balanced_pixel_loss(logits, labels),
            "energy": self.energy(logits.softmax(1), 255 * images, valid, labels),
            "affinity": affinity_loss(look.student.affinity, target),
            "scd": scd_loss(
                correspondence(sample_points(cam, points), sample_points(view_cam, view_points)),
                correspondence(
                    sample_points(logits, points), sample_points(view_logits, view_points)
                ),
            ),
        }
        if config.nan_when_missing:
            parts["seg"] = parts["seg"] + nan_when_missing(labels)
        if config.inert_er:
            parts["er"] = er_loss(look.cam, look.view_cam)
        seen = {"affinity_label": target, "points": points, "view_points": view_points}
        return parts, seen

    @torch.no_grad()
    def maps(
        self,
        images: Float[Tensor, "b 3 h w"],
        valid: Bool[Tensor, "b h w"] | None = None,
        known: Float[Tensor, "b k gh gw"] | None = None,
    ) -> Float[Tensor, "b k h w"]:
        """Class maps of normalised images over all scales and mirror images, 0..1 per class.

        Args:
            images: normalised images.
            valid: real pixels; maps are 0 elsewhere if `config.mask_padding`.
            known: raw maps of the images as they are, to spare that pass.
        """
        config = self.config
        cam = self.network.joined_cam(
            images, self.fusion, known, config.noisy_cam, config.decoder_in_cam
        )
        return normalize_inside(cam, valid if config.mask_padding else None)

    def _labels(self, batch: Batch, cam: Tensor, valid: Tensor) -> Tensor:
        """Refined pseudo-labels, 255 where undecided and in padding."""
        config, images, tags = self.config, batch["images"], batch["tags"]
        # counting the tags on an accelerator would wait for it: there, take the bound or all
        bound = cast(dict[str, Any], batch).get("max_tags")
        if bound is None and tags.device.type != "cpu":
            bound = tags.shape[1]
        return cam_to_pseudo_label(
            cam,
            tags,
            config.low,
            config.high,
            images=truncate_colours(images) if config.truncate_colours else images,
            refine=self.refiner,
            valid=valid,
            max_present=bound,
        )

    def predict(
        self, images: Float[Tensor, "b 3 h w"], tags: Float[Tensor, "b k"] | None = None
    ) -> SegOutput:
        """Segmentation logits, maps and tag logits, raw and on their own grids.

        Args:
            images: RGB in [0, 1].
            tags: not used; what an evaluation does with true tags happens outside.
        """
        net = self.network
        pyramid = net.backbone(normalize(images)).pyramid
        last = pyramid[-1]
        return SegOutput(net.seg_head(pyramid), net.tag_head.cam(last), net.tag_head(last))

    @torch.no_grad()
    def walked_maps(
        self,
        images: Float[Tensor, "b 3 h w"],
        cam: Float[Tensor, "b k _h _w"],
        tags: Float[Tensor, "b k"],
    ) -> Float[Tensor, "b k1 gh gw"]:
        """Maps after a walk along the affinity: the released validation's "ref cams".

        *In the released code* with the true tags of validation images, so no segmentation of an
        unknown image; its author's numbers are the better one of this and the segmentation.

        Args:
            images: RGB in [0, 1]; the module is in eval mode.
            cam: maps, 0..1, of any size.
            tags: classes that take part.

        Returns:
            Background first, on the grid of the encoder; enlarge bilinearly, then argmax.
        """
        stream: Stream = self.network(normalize(images))
        grid = (stream.cam.shape[2], stream.cam.shape[3])
        cam = F.interpolate(cam.float(), grid, mode="bilinear", align_corners=False)
        near = radius_mask(*grid, self.config.radius, images.device)
        return random_walk(cam, stream.affinity, tags, mask=near, background=self.config.low)

    def load_released(self, state: Mapping[str, Tensor]) -> None:
        """Load a released checkpoint of TSCD or AFA, strictly."""
        load_released(self.network, state)

    def param_groups(self, lr: float, head_lr: float, weight_decay: float) -> list[dict[str, Any]]:
        """Encoder at `lr`, heads at `head_lr` (released: 6e-5, ten times that, decay 0.01).

        In this order: encoder without norms, its norms (rate 0 if `freeze_norms`), classifier and
        affinity head, decoder. Without deviation 14 every group comes in two.
        """
        net, config = self.network, self.config
        norm, other = split_norm_parameters(net.backbone)
        small = [*net.tag_head.parameters(), *net.affinity_head.parameters()]
        groups = [
            (other, lr, weight_decay),
            (norm, 0.0 if config.freeze_norms else lr, 0.0),
            (small, head_lr, weight_decay),
            (list(net.seg_head.parameters()), head_lr, weight_decay),
        ]
        out: list[dict[str, Any]] = []
        for parameters, rate, decay in groups:
            if config.decay_all or not decay:
                out.append({"params": parameters, "lr": rate, "weight_decay": decay})
            else:
                out += split_decay(nn.ParameterList(parameters), rate, decay)
        return [group for group in out if group["params"]]
