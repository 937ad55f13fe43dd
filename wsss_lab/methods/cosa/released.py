"""Behaviour that only the released code has, and its checkpoints.

The switches are the fields of `CoSAQuirks` in ``config``; the presets `-released` set them.

Nothing here is needed to understand or to train CoSA as this library does by default.
"""

import copy
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from wsss_lab.methods.common.base import ParamGroup
from wsss_lab.methods.common.checkpoints import (
    CheckpointKind,
    Contents,
    State,
    fit_parts,
    rows_of,
    vit_side,
)
from wsss_lab.methods.cosa.keymap import KEYMAP
from wsss_lab.methods.cosa.network import CoSANetwork
from wsss_lab.models.backbones import build_backbone
from wsss_lab.models.base import split_norm_parameters
from wsss_lab.models.heads import LargeFOV, TagHead
from wsss_lab.models.keymaps import split_checkpoint
from wsss_lab.models.weights import load_strictly


def load_released(network: CoSANetwork, state: Mapping[str, Tensor]) -> None:
    """Load the `model` entry of a released checkpoint, strictly, in place.

    Args:
        network: of the size of the checkpoint's.
        state: released names, e.g. from `wsss_lab.models.weights.read_state_dict`.

    Raises:
        ValueError: a tensor is missing, left over, or of another shape.
    """
    parts = split_checkpoint(state, KEYMAP)
    flat = {f"{part}.{key}": value for part, some in parts.items() for key, value in some.items()}
    load_strictly(network, flat, what="the CoSA checkpoint")


def _examine(state: State) -> Contents:
    parts = split_checkpoint(state, KEYMAP)
    classes = rows_of(parts, "tag_head", "linear.weight")
    hidden = rows_of(parts, "seg_head", "conv1.weight")
    side = vit_side(parts.get("backbone", {}))
    with torch.device("meta"):
        backbone = build_backbone("vit_b16", img_size=side)
        modules = {
            "backbone": backbone,
            "seg_head": LargeFOV(backbone.width, classes + 1, hidden),
            "tag_head": TagHead(backbone.width, classes, pool="gmp"),
            "aux_head": TagHead(backbone.width, classes, pool="gmp"),
        }
    fit_parts(modules, parts, "CoSA")
    return Contents("CoSA", "vit_b16", classes)


CHECKPOINT = CheckpointKind(("encoder.blocks.", "decoder.conv6."), _examine)
"""Checkpoints of CoSA."""


def with_other_heads(network: CoSANetwork, classes: int, hidden: int) -> CoSANetwork:
    """Return a network with a copy of the backbone and with freshly drawn heads.

    Args:
        network: gives the backbone.
        classes: foreground classes `k`.
        hidden: channels of the segmentation head.
    """
    return CoSANetwork(copy.deepcopy(network.backbone), classes, hidden)


def param_groups(
    network: CoSANetwork, lr: float, head_lr: float, weight_decay: float
) -> list[ParamGroup]:
    """Return the four optimiser groups of the released code, each with weight decay.

    In their order: the encoder without its norms, its norms, both tag classifiers, the segmentation
    head. Biases, norms and the class token decay like everything else.

    Args:
        network: the student.
        lr: learning rate of the encoder.
        head_lr: learning rate of the heads.
        weight_decay: of all groups.
    """
    norm, other = split_norm_parameters(network.backbone)
    tags = nn.ModuleList([network.tag_head, network.aux_head])
    groups = [(other, lr), (norm, lr)]
    groups += [(list(head.parameters()), head_lr) for head in (tags, network.seg_head)]
    return [
        {"params": [p for p in some if p.requires_grad], "lr": rate, "weight_decay": weight_decay}
        for some, rate in groups
    ]
