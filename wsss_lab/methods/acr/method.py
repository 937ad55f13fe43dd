"""ACR: a transformer must attend to an image and to its mirror image in the same way.

Sun et al., "All-pairs Consistency Learning for Weakly Supervised Semantic Segmentation" (ICCV 2023
workshops, arXiv 2308.04321). Not the classifier-versus-reconstructor "ACR" of CVPR 2023. Of the
paper, title and abstract were read; its equations were not at hand. So "paper" below is the
abstract, and the rest is what the released code does when it runs.

| step | paper | released code | here |
|---|---|---|---|
| two views | augmented | image and its mirror image | `ACRConfig.named_views`, `View` |
| matching tokens | – | permute rows and columns | `align_attention` |
| activation consistency | regions attended by the class token | L1 | `activation_consistency` |
| affinity consistency | all pairs of patches | L1 | `affinity_consistency` |
| total loss | – | two tag losses + alpha * both | `ACR.losses` |
| localisation | class token gradients | `grad`, last 2 of 12 layers | `ACR.localise` |

The head is one linear layer with bias on the class token as the last block leaves it, *before* the
final LayerNorm. The same layer reads patch tokens in `patch_cam`; no loss trains it for that.

Where the released code differs and can be had, there is a quirk (`ACRQuirks`); in the code below a
reader of the paper may skip every line with ``quirks.``. Its optimiser, batch and schedule are in
`wsss_lab.methods.acr.config.PRESETS`, its bugs that are not imitated in
`wsss_lab.methods.acr.released`. It always localises with the true tags; `ACR.localise` takes the
predicted ones unless it gets others.
"""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from wsss_lab.config import IMAGENET_MEAN, IMAGENET_STD
from wsss_lab.losses import tag_loss
from wsss_lab.methods.acr import localisation, released
from wsss_lab.methods.acr.config import ACRConfig
from wsss_lab.methods.acr.losses import consistency
from wsss_lab.methods.acr.network import forward_views
from wsss_lab.methods.acr.views import View
from wsss_lab.methods.common.base import Batch, Method, ParamGroup, StepOutput, split_decay
from wsss_lab.models.base import Backbone, normalize
from wsss_lab.models.heads import TagHead
from wsss_lab.models.modes import class_token_only
from wsss_lab.models.vit import ViTBackbone
from wsss_lab.models.weights import load_strictly


class ACR(Method):
    """Transformer with a class token, linear tag head, consistency losses, localisation.

    Args:
        backbone: a vision transformer: `r50_vit_b16` (the paper's), `vit_b16`, `deit_*` or
            `toy_vit2`.
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
                "deit_s, deit_b or toy_vit2; affinity_consistency(prefix=0) alone needs none"
            )
        self.config = config or ACRConfig()
        self.backbone = backbone
        backbone.final_norm = self.config.final_norm
        # distributed training waits for a gradient of every parameter, and an unused one gets none
        backbone.net.norm.requires_grad_(self.config.final_norm)
        self.head = TagHead(backbone.width, classes, bias=True)

    def prepare(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
        """Normalise images in [0, 1] for the backbone, by `input_stats`."""
        match self.config.input_stats:
            case "half":
                return 2 * images - 1
            case "imagenet":
                return normalize(images, IMAGENET_MEAN, IMAGENET_STD)
        return self.backbone.normalize(images)

    @property
    def input_mean(self) -> tuple[float, ...]:
        """Colour that is 0 after `prepare`."""
        means = {"half": (0.5, 0.5, 0.5), "imagenet": IMAGENET_MEAN}
        return means.get(self.config.input_stats, self.backbone.input_mean)

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b k"]:
        """Compute tag logits of images in [0, 1]."""
        return self.head.linear(self.backbone(self.prepare(images)).cls)

    def training_step(self, batch: Batch, step: int) -> StepOutput:
        """Compute the losses of a batch and of one view of it; views take turns by `step`."""
        views = self.config.views
        # by the step and no counter of its own, so that a resumed run goes on with the same view
        view = views[step % len(views)]
        return self.losses(self.prepare(batch["images"]), batch["tags"], view)

    def losses(
        self, images: Float[Tensor, "b 3 h w"], tags: Float[Tensor, "b k"], view: View
    ) -> StepOutput:
        """Compute tag losses of images and of a view, and the consistency of their attention.

        Args:
            images: normalised; sides are multiples of the stride.
            tags: 0 or 1, the same for both views.
            view: any, also one that has no name in `NAMED_VIEWS`.

        Returns:
            Loss; parts "tags", "tags_view", "activation", "affinity", without weight; panels of the
            last layer's attention (b n n), both views.
        """
        config = self.config
        other = view.image(images, self.backbone.stride)
        # unless attention is compared the fused kernel is faster, and forms no matrix
        compare = config.alpha > 0 and (config.activation or config.affinity)
        joint = not config.quirks.two_passes
        tokens, pairs, grid = forward_views(
            self.backbone, images, other, config.layers, record=compare, joint=joint
        )
        logits = [self.head.linear(each) for each in tokens]
        # the tag losses are what keeps attention from ignoring the image: that would be consistent
        tag_1, tag_2 = (tag_loss(one, tags) for one in logits)
        parts = {"tags": tag_1, "tags_view": tag_2}
        loss = tag_1 + tag_2
        if compare:
            # neither view is detached: no view is right, so both move towards each other
            used = {"activation": config.activation, "affinity": config.affinity}
            renormalise = not config.quirks.raw_rows
            terms = consistency(pairs, view, grid, renormalise=renormalise, **used)
            parts |= terms
            for term in terms.values():
                loss = loss + config.alpha * term
        panels = {"logits": logits[0], "view": other}
        if pairs:
            panels["attention"], panels["attention_view"] = (a.detach() for a in pairs[-1])
        return StepOutput(loss, parts, panels)

    def start_from_classifier(self, state: Mapping[str, Tensor]) -> None:
        """Load the backbone of a plain tag classifier; its head reads patches, not class tokens."""
        head = {key: value.clone() for key, value in self.head.state_dict().items()}
        super().start_from_classifier(state)
        self.head.load_state_dict(head)

    def param_groups(self, lr: float, head_lr: float, weight_decay: float) -> list[ParamGroup]:
        """List the backbone at `lr`, the head at `head_lr`; the released code has one group."""
        head = split_decay(self.head, head_lr, weight_decay)
        return split_decay(self.backbone, lr, weight_decay) + head

    def token_maps(
        self,
        images: Float[Tensor, "b 3 h w"],
        tags: Float[Tensor, "b k"] | None = None,
        mirror: bool = False,
    ) -> tuple[Float[Tensor, "v k gh gw"], Float[Tensor, "b k"]]:
        """Localise on the token grid, in eval mode.

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
            with (
                localisation.record_for_localisation(
                    self, config.start_layer, config.propagate
                ) as trace,
                class_token_only(self.backbone),
            ):
                x = torch.cat([images, images.flip(-1)]) if mirror else images
                features = self.backbone(x)
                logits = self.head.linear(features.cls)
            if tags is None:
                tags = localisation.predicted_tags(logits, 1 + mirror)
            wanted = tags.repeat(1 + mirror, 1)
            maps = localisation.gradient_maps(
                logits, trace.attention, wanted, config.variant, batched=config.batched
            )
        finally:
            self.train(training)
        maps = localisation.spread(maps, trace.affinity)
        return maps.unflatten(2, tuple(features.last.shape[-2:])), tags

    def localise(
        self,
        images: Float[Tensor, "b 3 h w"],
        tags: Float[Tensor, "b k"] | None = None,
        size: tuple[int, int] | None = None,
    ) -> Float[Tensor, "b k oh ow"]:
        """Compute class maps: image and mirror image summed, each class in 0..1.

        Args:
            images: RGB in [0, 1], any size.
            tags: classes wanted; None for those that the network predicts.
            size: (h, w) of the maps; None takes that of the images.

        Returns:
            Maps at `size`; 0 for classes that are not wanted.
        """
        shape = (images.shape[2], images.shape[3])
        sides = localisation.whole_patches(shape, self.backbone.stride)
        if square := self.config.quirks.squash:
            sides = (square, square)
        x = self.prepare(images)
        if sides != shape:
            x = F.interpolate(x, sides, mode="bilinear", align_corners=False)
        maps, tags = self.token_maps(x, tags, mirror=True)
        return localisation.join_mirror(maps, tags, size or shape)

    @torch.no_grad()
    def patch_cam(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b k gh gw"]:
        """Apply the head, with bias and ReLU, to every patch: a conventional map, not trained."""
        features = self.backbone(self.prepare(images)).last
        return self.head.cam(features, with_bias=True).relu()

    def load_released(self, state: Mapping[str, Tensor]) -> None:
        """Load the authors' ``*_last.pth`` (hybrid, ViT-B, DeiT-B), nothing missing or left over.

        Raises:
            ValueError: keys or shapes do not fit, for instance another number of classes.
        """
        load_strictly(self, released.own_names(state), "the checkpoint of ACR")
        self.backbone.weight_tag = "file:ACR"
