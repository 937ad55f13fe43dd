"""ImageNet classifiers, complete with classifier, weights and class names."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
from jaxtyping import Float
from timm.data import ImageNetInfo, infer_imagenet_subset
from torch import Tensor, nn

from wsss_lab.models.lite0 import LITE0_TAG, read_lite0
from wsss_lab.models.state import load_strictly, read_state_dict
from wsss_lab.models.timm_nets import PREFIX, create_net
from wsss_lab.models.timm_weights import timm_donor

LITE0 = "tf_efficientnet_lite0"


@dataclass(frozen=True)
class ImageNetClassifier:
    """A timm network with its classifier.

    Attributes:
        net: in eval mode; (b, 3, h, w) normalised images to logits (b, k).
        weight_tag: origin of the weights.
        class_names: k names.
        multiple: sides of images must be multiples of this, px.
    """

    net: Any
    weight_tag: str
    class_names: tuple[str, ...]
    multiple: int

    def normalize(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
        """Shift and scale RGB in [0, 1] to what the network was trained on."""
        mean, std = (images.new_tensor(self.net.pretrained_cfg[key]) for key in ("mean", "std"))
        return (images - mean[:, None, None]) / std[:, None, None]


def imagenet_classifier(name: str = "lite0", weights: str = "") -> ImageNetClassifier:
    """Build a classifier of ImageNet classes with its weights.

    Args:
        name: `lite0`, or `timm:NAME`.
        weights: "" takes the weights of the pip package for `lite0`, else timm's for this name;
            otherwise a file with all tensors of the network, or "random".

    Raises:
        ValueError: unknown name, a file of another network, or a network whose classes have no
            names in timm.
        FileNotFoundError, ConnectionError: the weights cannot be had; the message says how to.
    """
    if name != "lite0" and not name.startswith(PREFIX):
        raise ValueError(f"backbone: expected lite0 or timm:NAME, got {name!r}")
    tag = LITE0 if name == "lite0" else name.removeprefix(PREFIX)
    known = timm.get_pretrained_cfg(tag) if timm.is_model(tag) else None
    net: Any = create_net(tag, {"num_classes": known.num_classes} if known else {})
    weights = weights or (LITE0_TAG if name == "lite0" else "timm")
    if weights == LITE0_TAG:
        load_strictly(net, read_lite0(), what=LITE0_TAG, widen=True)
    elif weights == "timm":
        load_strictly(net, timm_donor(tag).state_dict(), what=f"timm weights {tag}")
    elif weights != "random":
        load_strictly(net, read_state_dict(Path(weights)), what=weights, widen=True)
    subset = infer_imagenet_subset(net)
    if subset is None:
        raise ValueError(f"backbone: timm has no class names for the {net.num_classes} of {name}")
    info = ImageNetInfo(subset)
    names = tuple(info.index_to_description(i) for i in range(info.num_classes()))
    return ImageNetClassifier(net.eval(), weights, names, _multiple(net))


def _multiple(net: nn.Module) -> int:
    """Stride of the patches, which must cover the image; convolutions pad what does not fit."""
    stride = getattr(getattr(getattr(net, "patch_embed", None), "proj", None), "stride", 1)
    return max(stride) if isinstance(stride, tuple | list) else int(stride)
