"""ACR: a transformer must look at an image and at its mirror image in the same way.

Sun et al., "All-pairs Consistency Learning for Weakly Supervised Semantic Segmentation" (ICCV 2023
workshops, arXiv 2308.04321). Not the classifier-versus-reconstructor "ACR" of CVPR 2023. Of the
paper, title and abstract were read; its equations were not at hand. So "paper" below is the
abstract, and the rest is what the released code does when it runs.

| step | paper | released code | here |
|---|---|---|---|
| two views | augmented | image and its mirror image | `ACRConfig.views`, `View` |
| matching tokens | – | permute rows and columns | `align_attention` |
| activation consistency | regions attended by the class token | L1 | `activation_consistency` |
| affinity consistency | all pairs of patches | L1 | `affinity_consistency` |
| total loss | – | two tag losses + alpha * both | `ACR.losses` |
| localisation | class token gradients | `grad`, last 2 of 12 layers | `ACR.localise` |

The head is one linear layer with bias on the class token as the last block leaves it, *before* the
final LayerNorm. The same layer reads patch tokens in `patch_cam`; no loss trains it for that.

Deviations from the released code. Presets ending in ``-released`` switch all of them off (7: pass
the tags).

1. `joint`: both views go through the network in one batch instead of two passes. The numbers are
   the same unless the network has batch normalisation (`toy_vit`), which then sees both views.
2. `views`: vertical mirror images, right angles, shifts by whole patches and scales can be used
   besides the horizontal mirror image; step t takes view ``t % len(views)``.
3. `renormalise`: where a view hides tokens (`Shift`), both attention matrices are restricted to
   the tokens that both show and their rows brought back to 1; other views are not touched.
4. `input_stats`: ``"half"`` feeds (x - 0.5) / 0.5, as the pre-trained weights of the hybrid expect;
   the released code feeds ImageNet's mean and deviation.
5. `infer_size`: None keeps size and aspect of an image at localisation (sides are rounded to whole
   patches); the released code squashes every image to 384 x 384.
6. `batched`: all classes in one backward pass, to the used attention only; the released code runs
   one full backward pass per class. Same numbers.
7. ``localise(images)`` without tags uses the classes the network predicts; the released code always
   has the true ones.
8. Optimiser (`PRESETS`): the released call puts its weight decay, 5e-4, in the place of momentum
   and decays nothing. ``voc`` and ``coco`` decay by 5e-4 and use no momentum.
9. Batch (`PRESETS`): the released code starts 4 processes with one image each and never exchanges
   their gradients, so what it saves was trained with batch 1. That is what ``-released`` says; the
   idle replicas are not imitated. ``voc`` and ``coco`` use 4 images per step.
10. Schedule (`PRESETS`): the released loop adds a last step at the learning rate of the one before;
    ``voc`` and ``coco`` leave it out.
11. Precision (`PRESETS`): the released code trains in float32, ``voc`` and ``coco`` in bf16 by
    autocast, losses excepted; see the study `precision`.

Not imitated: attention of an earlier pass returned under ``no_grad``; one global store for the
hooks of all models; height taken for width in the alignment (wrong unless square); a random class
added to the tags in COCO validation. Without effect and left out: the final LayerNorm, and the MLP
of the last block on patch tokens, in training and localisation (`class_token_only`).
"""

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from wsss_lab.cam.attention_maps import (
    gradient_maps,
    record_for_localisation,
    spread,
)
from wsss_lab.cam.fusion import FUSIONS, fuse_cams
from wsss_lab.cam.maps import normalize_cam, present_classes
from wsss_lab.losses import tag_loss
from wsss_lab.methods.acr.config import ACRConfig
from wsss_lab.methods.acr.losses import activation_consistency as activation_consistency
from wsss_lab.methods.acr.losses import affinity_consistency as affinity_consistency
from wsss_lab.methods.acr.losses import (
    both_views,
    consistency,
)
from wsss_lab.methods.acr.views import View
from wsss_lab.methods.common.base import Batch, Method, StepOutput, normalize, split_decay
from wsss_lab.models import keymaps
from wsss_lab.models.base import Backbone
from wsss_lab.models.heads import TagHead
from wsss_lab.models.shortcut import class_token_only
from wsss_lab.models.vit import ViTBackbone
from wsss_lab.models.weights import load_strictly


class ACR(Method):
    """Transformer with a class token, linear tag head, consistency losses, localisation.

    Args:
        backbone: a vision transformer: `r50_vit_b16` (the paper's), `vit_b16`, `deit_*`, `toy_vit`.
        classes: number of foreground classes `k`.
        config: see `ACRConfig`. `final_norm` of the backbone is set by it.

    Raises:
        ValueError: the backbone has no class token.
    """

    def __init__(self, backbone: Backbone, classes: int, config: ACRConfig | None = None):
        super().__init__()
        if not isinstance(backbone, ViTBackbone):
            raise ValueError(
                f"backbone must have a class token, got {backbone.name}: use r50_vit_b16, vit_b16, "
                "deit_s, deit_b or toy_vit; affinity_consistency(prefix=0) alone needs none"
            )
        self.config = config or ACRConfig()
        self.backbone = backbone
        backbone.final_norm = self.config.final_norm
        backbone.net.norm.requires_grad_(self.config.final_norm)
        self.head = TagHead(backbone.width, classes, bias=True)

    def prepare(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
        """Images in [0, 1] -> what the backbone takes, by `input_stats`."""
        return 2 * images - 1 if self.config.input_stats == "half" else normalize(images)

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b k"]:
        """Tag logits of images in [0, 1]."""
        return self.head.linear(self.backbone(self.prepare(images)).cls)

    def training_step(self, batch: Batch, step: int) -> StepOutput:
        """Tag loss of images and of one of their views, and the consistency of their attention."""
        views = self.config.second_views
        view = views[step % len(views)]
        return self.losses(self.prepare(batch["images"]), batch["tags"], view)

    def losses(
        self, images: Float[Tensor, "b 3 h w"], tags: Float[Tensor, "b k"], view: View
    ) -> StepOutput:
        """All losses of normalised images (sides: multiples of the stride) and their views."""
        config = self.config
        other = view.image(images, self.backbone.stride)
        compare = config.alpha > 0 and (config.activation or config.affinity)
        tokens, pairs, grid = both_views(
            self.backbone, images, other, config.layers, record=compare, joint=config.joint
        )
        logits = [self.head.linear(each) for each in tokens]
        tag_1, tag_2 = (tag_loss(one, tags) for one in logits)
        parts = {"tags": tag_1, "tags_view": tag_2}
        loss = tag_1 + tag_2
        if compare:
            used = {"activation": config.activation, "affinity": config.affinity}
            terms = consistency(pairs, view, grid, renormalise=config.renormalise, **used)
            parts |= terms
            for term in terms.values():
                loss = loss + config.alpha * term
        panels = {"logits": logits[0], "view": other}
        if pairs:
            panels["attention"], panels["attention_view"] = (a.detach() for a in pairs[-1])
        return StepOutput(loss, parts, panels)

    def param_groups(self, lr: float, head_lr: float, weight_decay: float) -> list[dict[str, Any]]:
        """Backbone at `lr`, head at `head_lr`; the released code has one group for all."""
        head = split_decay(self.head, head_lr, weight_decay)
        return split_decay(self.backbone, lr, weight_decay) + head

    def token_maps(
        self,
        images: Float[Tensor, "b 3 h w"],
        tags: Float[Tensor, "b k"] | None = None,
        mirror: bool = False,
    ) -> tuple[Float[Tensor, "v k gh gw"], Float[Tensor, "b k"]]:
        """Localisation of normalised images before resizing and normalisation, in eval mode.

        Args:
            images: normalised.
            tags: classes wanted; None for those with a positive logit (mean of both flip states).
            mirror: also the mirrored images, in the same batch: [images; mirrored images].

        Returns:
            Maps >= 0, detached, not mirrored back, 0 for classes that are not wanted; the tags.
        """
        config, training = self.config, self.training
        self.eval()
        try:
            localisation = record_for_localisation(self, config.start_layer, config.propagate)
            with localisation as trace, class_token_only(self.backbone):
                x = torch.cat([images, images.flip(-1)]) if mirror else images
                features = self.backbone(x)
                logits = self.head.linear(features.cls)
            if tags is None:
                seen = logits.detach().unflatten(0, (1 + mirror, -1)).mean(dim=0)
                tags = (seen > 0).to(seen.dtype)
            wanted = tags.repeat(1 + mirror, 1)
            maps = gradient_maps(
                logits, trace.attention, wanted, config.variant, batched=config.batched
            )
        finally:
            self.train(training)
        maps = spread(maps, trace.affinity)
        return maps.unflatten(2, tuple(features.last.shape[-2:])), tags

    def localise(
        self,
        images: Float[Tensor, "b 3 h w"],
        tags: Float[Tensor, "b k"] | None = None,
        size: tuple[int, int] | None = None,
    ) -> Float[Tensor, "b k oh ow"]:
        """Class maps of images in [0, 1]: image and mirror image, summed, each class in 0..1.

        Args:
            images: RGB in [0, 1], any size.
            tags: classes wanted; None for those that the network sees (7).
            size: (h, w) of the maps; None takes that of the images.

        Returns:
            Maps at `size`; 0 for classes that are not wanted.
        """
        h, w = images.shape[-2:]
        stride, square = self.backbone.stride, self.config.infer_size
        sides = tuple(square or max(1, int(s / stride + 0.5)) * stride for s in (h, w))
        x = self.prepare(images)
        if sides != (h, w):
            x = F.interpolate(x, sides, mode="bilinear", align_corners=False)
        maps, tags = self.token_maps(x, tags, mirror=True)
        index, present = present_classes(tags)
        picked = index.repeat(2, 1)[:, :, None, None].expand(-1, -1, *maps.shape[2:])
        views = maps.gather(1, picked)  # only the wanted classes are resized
        cam = normalize_cam(fuse_cams([views], size or (h, w), FUSIONS["acr"]), "acr")
        cam = cam * present[:, :, None, None]
        out = cam.new_zeros(*tags.shape, *cam.shape[2:])
        return out.scatter_(1, index[:, :, None, None].expand_as(cam), cam)

    @torch.no_grad()
    def patch_cam(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b k gh gw"]:
        """ReLU of the head, with bias, on every patch token: the conventional map, untrained."""
        features = self.backbone(self.prepare(images)).last
        return self.head.cam(features, with_bias=True).relu()

    def load_released(self, state: Mapping[str, Tensor]) -> None:
        """Load the authors' ``*_last.pth`` (hybrid, ViT-B, DeiT-B), nothing missing or left over.

        Raises:
            ValueError: keys or shapes do not fit, for instance another number of classes.
        """
        parts = keymaps.split_checkpoint(state, keymaps.ACR)
        whole = {f"backbone.{k}": v for k, v in parts.get("backbone", {}).items()}
        whole |= {f"head.{k}": v for k, v in parts.get("tag_head", {}).items()}
        load_strictly(self, whole, "the checkpoint of ACR")
        self.backbone.weight_tag = "file:ACR"
