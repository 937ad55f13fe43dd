"""TSCD: self correspondence distillation and variation-aware refinement, trained end to end.

Xu et al., "Self Correspondence Distillation for End-to-End Weakly-Supervised Semantic Segmentation"
(AAAI 2023, arXiv 2302.13765). One network classifies and segments an image, and learns from its own
class maps: refined (VARM), they are labels; the correspondences of two views of the maps are the
target of those of the segmentation (SCD). Built on AFA (Ru et al., CVPR 2022).

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

**Sources, kept apart.** *In the paper*: 67.3 mIoU on VOC val, 67.5 on test, 40.1 on COCO, after a
dense CRF. Its full text was not at hand; what is written about it comes from abstracts, tables of
others and its author's answers. *In the released code*: the formulas. Its author writes that the
number is the better one of segmentation and affinity-refined maps, the latter with the true tags of
the validation images; others report 59 to 61. *Here*: presets `-released` are the released code
down to its slips, each a switch in `TSCDConfig.quirks`; `voc` and `coco` are repaired and train in
bf16 by autocast, losses excepted (`run.precision`). Their accuracy at full size is not known.
"""

from collections.abc import Mapping
from dataclasses import replace

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from wsss_lab.cam import cam_to_pseudo_label
from wsss_lab.losses import balanced_pixel_loss, enlarge, tag_loss
from wsss_lab.methods.common.base import (
    Batch,
    Method,
    ParamGroup,
    SegOutput,
    StepOutput,
    split_decay,
)
from wsss_lab.methods.common.batches import real_boxes, tag_bound, valid_pixels
from wsss_lab.methods.tscd import released
from wsss_lab.methods.tscd.config import TSCDConfig
from wsss_lab.methods.tscd.labels import affinity_label, normalize_inside, scd_channels
from wsss_lab.methods.tscd.losses import affinity_loss, correspondence, scd_loss
from wsss_lab.methods.tscd.network import Outputs, TSCDNetwork, ViewOutputs
from wsss_lab.methods.tscd.values import CAM_FUSION
from wsss_lab.methods.tscd.views import draw_window, place_points, sample_points, second_view
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
        symmetric = not config.quirks.one_sided_affinity
        self.network = TSCDNetwork(backbone, classes, config.hidden, symmetric)
        self.energy = DenseEnergyLoss()
        kind, times = VARM if config.refiner == "varm" else PAR, config.refine_iterations
        self.refiner = None if config.refiner == "none" else kind(iterations=times)
        self.fusion = replace(CAM_FUSION, scales=config.scales)

    def normalize(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
        """Normalise images in [0, 1] for the network."""
        return self.network.backbone.normalize(images)

    def training_step(self, batch: Batch, step: int) -> StepOutput:
        """Compute the loss of one step.

        Args:
            batch: `images` and `tags`; `boxes` and `valid`, the real pixels of each padded crop
                (default: all); `max_tags`, which spares work on an accelerator; see `Batch`.
            step: 0-based; only the tag loss counts up to and with step `config.warmup`.
        """
        # until the classifier has learned the tags its maps are noise, and so are labels from them
        warm = step <= self.config.warmup
        if warm and not self.config.quirks.full_warmup:
            return self._warm_step(batch)
        images = batch["images"]
        boxes, valid = real_boxes(batch), valid_pixels(batch)
        views = self.forward_views(self.normalize(images), valid)
        labels = self.pseudo_labels(batch, views.cam, valid)
        # float32: the energy sums over all pairs of pixels, and the re-centred target keeps only
        # small differences of cosines, which bf16 with its three digits would lose
        with torch.autocast(images.device.type, enabled=False):
            parts, panels = self._losses(batch, views, labels, boxes, valid)
        # the tag loss stands first in `parts` and always counts in full; the others are computed
        # in a full warm-up, as released, but have no weight
        factors = {} if warm else vars(self.config.weights)
        others = [factors.get(name, 0.0) * part for name, part in list(parts.items())[1:]]
        loss = torch.stack([parts["tags"], *others]).sum()
        panels |= {"cam": views.cam, "view": views.view, "view_cam": views.view_cam}
        panels |= {"labels": labels, "view_logits": views.view_logits}
        for name in ("affinity", "tag_logits", "seg_logits"):
            panels[name] = getattr(views.outputs, name)
        return StepOutput(loss, parts, {name: value.detach() for name, value in panels.items()})

    def _warm_step(self, batch: Batch) -> StepOutput:
        """Compute the tag loss alone."""
        net = self.network
        logits = net.tag_head(net.backbone(self.normalize(batch["images"])).last)
        loss = tag_loss(logits, batch["tags"])
        # in the graph, so that their gradients are 0 as in a full step: they get weight decay, and
        # distributed training finds no unused parameters
        heads = [*net.seg_head.parameters(), *net.affinity_head.parameters()]
        idle = sum((weight.sum() for weight in heads), start=loss.new_zeros(()))
        return StepOutput(loss + 0.0 * idle, {"tags": loss})

    def forward_views(
        self, images: Float[Tensor, "b 3 h w"], valid: Bool[Tensor, "b h w"]
    ) -> ViewOutputs:
        """Run all passes of normalised images: one per view with gradients, the others for maps."""
        config, net, quirks = self.config, self.network, self.config.quirks
        size = (images.shape[2], images.shape[3])
        window = draw_window(len(images), size, config.view_crop, config.view_turn, images.device)
        part = None if config.view_crop == 1 and not config.view_turn else window
        view = second_view(images, config.view_scale, part)
        real = second_view(valid[:, None].to(images.dtype), config.view_scale, part)[:, 0] > 0.5
        outputs: Outputs = net(images)
        # the trained passes have the raw maps of scale 1 already; `maps` detaches them
        cam = self.maps(images, valid, None if quirks.extra_pass else outputs.cam)
        # evaluation has images of full size: the decoder's running statistics are to be of these
        logits, raw = net.segment(view, update=quirks.bn_from_view)
        view_cam = self.maps(view, real, None if quirks.extra_pass else raw)
        return ViewOutputs(outputs, cam, view, logits, view_cam, window)

    def _losses(
        self, batch: Batch, views: ViewOutputs, labels: Tensor, boxes: Tensor, valid: Tensor
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Compute every loss, unweighted, and the panels on the way."""
        config, images, tags = self.config, batch["images"], batch["tags"]
        size = (images.shape[2], images.shape[3])
        logits = enlarge(views.outputs.seg_logits, size, align_corners=True)
        grid = (views.outputs.cam.shape[2], views.outputs.cam.shape[3])
        # near cells only: far ones may have one label without belonging together
        near = radius_mask(*grid, config.radius, images.device)
        target = affinity_label(grid_label(labels, grid), near)
        scd, points, view_points = self._scd(views, logits, tags, boxes)
        parts = {
            "tags": tag_loss(views.outputs.tag_logits, tags),
            "seg": balanced_pixel_loss(logits, labels),
            # undecided pixels have no cross-entropy: this makes them agree with similar neighbours
            "energy": self.energy(logits.softmax(1), 255 * images, valid, labels),
            "affinity": affinity_loss(views.outputs.affinity, target),
            "scd": scd,
        }
        if config.quirks.nan_when_missing:
            parts["seg"] = parts["seg"] + released.nan_when_missing(labels)
        if config.quirks.inert_er:
            parts["er"] = released.er_loss(views.cam, views.view_cam)
        return parts, {"affinity_label": target, "points": points, "view_points": view_points}

    def _scd(
        self, views: ViewOutputs, logits: Tensor, tags: Tensor, boxes: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Compute the SCD loss; also the points of both views."""
        config = self.config
        view_size = (views.view.shape[2], views.view.shape[3])
        view_logits = enlarge(views.view_logits, view_size, align_corners=True)
        points, view_points = place_points(
            None if config.quirks.use_padding else boxes,
            (logits.shape[2], logits.shape[3]),
            config.points,
            views.window,
            config.paired,
        )
        cam, view_cam = (
            scd_channels(m, tags, config.scd_classes) for m in (views.cam, views.view_cam)
        )
        # maps and segmentation are compared at the same points, so that entry (p, q) of both
        # matrices is about the same two places
        of_maps = correspondence(sample_points(cam, points), sample_points(view_cam, view_points))
        of_logits = correspondence(
            sample_points(logits, points), sample_points(view_logits, view_points)
        )
        loss = scd_loss(of_maps, of_logits, config.scd_level, config.scd_shift)
        return loss, points, view_points

    @torch.no_grad()
    def maps(
        self,
        images: Float[Tensor, "b 3 h w"],
        valid: Bool[Tensor, "b h w"] | None = None,
        scale_1: Float[Tensor, "b k gh gw"] | None = None,
    ) -> Float[Tensor, "b k h w"]:
        """Compute class maps over all scales and mirror images, 0..1 per class.

        Args:
            images: normalised images.
            valid: real pixels; maps are 0 elsewhere.
            scale_1: raw maps of the images as they are, to spare that pass.
        """
        quirks = self.config.quirks
        cam = self.network.joined_cam(
            images, self.fusion, scale_1, quirks.noisy_cam, quirks.decoder_in_cam
        )
        return normalize_inside(cam, None if quirks.use_padding else valid)

    def pseudo_labels(
        self, batch: Batch, cam: Float[Tensor, "b k h w"], valid: Bool[Tensor, "b h w"]
    ) -> Int[Tensor, "b h w"]:
        """Make refined labels of maps (0..1); 255 where undecided and where not `valid`."""
        config, images, tags = self.config, batch["images"], batch["tags"]
        if config.quirks.truncate_colours:
            backbone = self.network.backbone
            images = released.truncate_colours(images, backbone.input_mean, backbone.input_std)
        return cam_to_pseudo_label(
            cam,
            tags,
            config.low,
            config.high,
            images=images,
            refine=self.refiner,
            valid=valid,
            max_present=tag_bound(batch),
        )

    def predict(
        self, images: Float[Tensor, "b 3 h w"], tags: Float[Tensor, "b k"] | None = None
    ) -> SegOutput:
        """Compute segmentation logits, maps and tag logits, raw and on their own grids.

        Args:
            images: RGB in [0, 1].
            tags: not used; what an evaluation does with true tags happens outside.
        """
        net = self.network
        pyramid = net.backbone(self.normalize(images)).pyramid
        last = pyramid[-1]
        return SegOutput(net.seg_head(pyramid), net.tag_head.cam(last), net.tag_head(last))

    @torch.no_grad()
    def propagated_cam(
        self,
        images: Float[Tensor, "b 3 h w"],
        cam: Float[Tensor, "b k _h _w"],
        tags: Float[Tensor, "b k"],
    ) -> Float[Tensor, "b k1 gh gw"]:
        """Propagate maps along the affinity: the released validation's "ref cams".

        *In the released code* with the true tags of validation images, so no segmentation of an
        unknown image; its author's numbers are the better one of this and the segmentation.

        Args:
            images: RGB in [0, 1]; the module is in eval mode.
            cam: maps, 0..1, of any size.
            tags: classes that take part.

        Returns:
            Background first, on the grid of the encoder; enlarge bilinearly, then argmax.
        """
        outputs: Outputs = self.network(self.normalize(images))
        grid = (outputs.cam.shape[2], outputs.cam.shape[3])
        cam = F.interpolate(cam.float(), grid, mode="bilinear", align_corners=False)
        near = radius_mask(*grid, self.config.radius, images.device)
        return random_walk(cam, outputs.affinity, tags, mask=near, background=self.config.low)

    def load_released(self, state: Mapping[str, Tensor]) -> None:
        """Load a released checkpoint of TSCD or AFA, strictly."""
        released.load_released(self.network, state)

    def param_groups(self, lr: float, head_lr: float, weight_decay: float) -> list[ParamGroup]:
        """Group parameters: encoder at `lr`, heads at `head_lr`.

        Released: 6e-5, ten times that, decay 0.01. In this order: encoder without norms, its norms
        (no decay, and rate 0 if `freeze_norms`), classifier and affinity head, decoder. All but the
        norms come in two groups, matrices and filters with weight decay, then vectors without; with
        `quirks.decay_all` in one, with weight decay. Groups without parameters are left out.
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
        out: list[ParamGroup] = []
        for parameters, rate, decay in groups:
            if config.quirks.decay_all or not decay:
                out.append({"params": parameters, "lr": rate, "weight_decay": decay})
            else:
                out += split_decay(nn.ParameterList(parameters), rate, decay)
        return [group for group in out if group["params"]]
