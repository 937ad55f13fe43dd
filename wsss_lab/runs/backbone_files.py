"""Checkpoints of backbones and of our own networks without a description, by their keys."""

import re

import torch

from wsss_lab.methods.common.checkpoints import (
    CheckpointKind,
    Contents,
    State,
    mit_name,
    vit_side,
)
from wsss_lab.models import keymaps
from wsss_lab.models.backbones import build_backbone
from wsss_lab.models.weights import load_strictly


def _examine_psa(state: State) -> Contents:
    with torch.device("meta"):
        net = build_backbone("wrn38").net
    load_strictly(net, keymaps.rename(state, keymaps.WRN38), what="PSA", widen=True)
    classes = state["fc8.weight"].shape[0] if "fc8.weight" in state else None
    return Contents("PSA, RRM (Wide ResNet-38)", "wrn38", classes)


def _examine_mit(state: State) -> Contents:
    name = mit_name(state)
    with torch.device("meta"):
        net = build_backbone(name).net
    load_strictly(net, keymaps.rename(state, keymaps.MIT), what="SegFormer MiT", widen=True)
    return Contents("SegFormer MiT, official names", name)


def _examine_hub_mit(state: State) -> Contents:
    network = _first_fit(keymaps.mit_from_hub(state), [f"mit_b{i}" for i in range(6)])
    return Contents("SegFormer MiT, names of the Hugging Face hub", network)


def _examine_timm(state: State) -> Contents:
    bare = {k: v for k, v in state.items() if k.split(".")[0] not in ("head", "fc", "pre_logits")}
    if "cls_token" in bare:
        names = ["vit_b16", "deit_s", "r50_vit_b16"]
    elif "conv1.weight" in bare:
        names = [f"resnet{n}" for n in (18, 34, 50, 101)]
    else:
        names = [f"mit_b{i}" for i in range(6)]
    return Contents("timm", _first_fit(bare, names))


def _first_fit(state: State, names: list[str]) -> str:
    """The first backbone into which the tensors go strictly."""
    problems = []
    for name in names:
        options = {}
        if name in ("vit_b16", "deit_s") and "pos_embed" in state:
            options["img_size"] = vit_side(state, "pos_embed")
        with torch.device("meta"):
            net = build_backbone(name, **options).net
        try:
            load_strictly(net, state, what=f"the file, as {name},", widen=True)
        except ValueError as error:
            problems.append(error)
        else:
            return name
    raise min(problems, key=_size_of_misfit)


def _size_of_misfit(error: ValueError) -> int:
    """How many tensors do not fit, from the message: the smallest is the network that was meant."""
    return sum(int(n) for n in re.findall(r"(\d+) (?:missing|unexpected|of another)", str(error)))


def _examine_toy(state: State) -> Contents:
    tagged = "head.linear.weight" in state
    what = "tag classifier" if tagged else "backbone"
    classes = state["head.linear.weight"].shape[0] if tagged else None
    return Contents(f"wsss_lab, {what}", backbone_inside(state), classes)


def backbone_inside(state: State) -> str:
    """Find the backbone of tensors with our own names, and load it strictly.

    Args:
        state: tensors by name: of a backbone, or of a network that holds one.

    Raises:
        ValueError: they fit no backbone.
    """
    for prefix in ("backbone.net.", "net.", ""):
        inner = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
        if inner:
            break
    toys = ["toy_cnn", "toy_mit", "toy_vit", "toy_mit2", "toy_vit2"]
    others = ["vit_b16", "deit_s", "r50_vit_b16", "wrn38"]
    others += [f"resnet{n}" for n in (18, 34, 50, 101)] + [f"mit_b{i}" for i in range(6)]
    return _first_fit(inner, toys + others)


BACKBONES: tuple[CheckpointKind, ...] = (
    CheckpointKind(("conv1a.", "b2."), _examine_psa),
    CheckpointKind(("patch_embed1.", "block1."), _examine_mit),
    CheckpointKind(("segformer.encoder.",), _examine_hub_mit),
    CheckpointKind(("encoder.patch_embeddings.0.",), _examine_hub_mit),
    CheckpointKind(("backbone.net.",), _examine_toy),
    CheckpointKind(("net.",), _examine_toy),
    CheckpointKind(("stem.", "stage1.", "stage2."), _examine_toy),
    CheckpointKind(("cls_token", "patch_embed.", "blocks."), _examine_timm),
    CheckpointKind(("conv1.", "layer1.", "layer4."), _examine_timm),
    CheckpointKind(("patch_embed.", "stages."), _examine_timm),
)
"""Most specific first."""
