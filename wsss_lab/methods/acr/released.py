"""Checkpoints of ACR's released code, and what of that code is not imitated.

The switches are the fields of `ACRQuirks` in ``config``; the presets `-released` set them.

Not imitated: attention of an earlier pass that is returned under ``no_grad``; one global store for
the hooks of all models; height taken for width in the alignment (wrong unless square); a random
class added to the tags in COCO validation; three more processes that train replicas which nobody
saves. Without effect and left out: the final LayerNorm, and the MLP of the last block on patch
tokens, in training and localisation (`class_token_only`).
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from wsss_lab.methods.acr.keymap import KEYMAP
from wsss_lab.methods.common.checkpoints import (
    CheckpointKind,
    Contents,
    State,
    fit_parts,
    rows_of,
    vit_side,
)
from wsss_lab.models.backbones import build_backbone
from wsss_lab.models.heads import TagHead
from wsss_lab.models.keymaps import split_checkpoint


def own_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the tensors of the authors' ``*_last.pth`` to those of `ACR`.

    Args:
        state: of the hybrid, ViT-B or DeiT-B.

    Raises:
        ValueError: a key that is not known.
    """
    parts = split_checkpoint(state, KEYMAP)
    backbone = {f"backbone.{k}": v for k, v in parts.get("backbone", {}).items()}
    return backbone | {f"head.{k}": v for k, v in parts.get("tag_head", {}).items()}


def network_of(state: Mapping[str, Tensor]) -> tuple[str, dict[str, Any]]:
    """Find the backbone of a released checkpoint by its keys.

    Args:
        state: the released tensors by name.

    Returns:
        Name and options for `build_backbone`. ViT-B and DeiT-B have the same keys and shapes; both
        load into `vit_b16`.

    Raises:
        ValueError: the position embeddings are missing.
    """
    if any(".patch_embed.backbone." in key for key in state):
        return "r50_vit_b16", {}
    return "vit_b16", {"img_size": vit_side(state, "pretrained.model.pos_embed")}


def _examine(state: State) -> Contents:
    name, options = network_of(state)
    parts = split_checkpoint(state, KEYMAP)
    classes = rows_of(parts, "tag_head", "linear.weight")
    with torch.device("meta"):
        backbone = build_backbone(name, **options)
        modules = {"backbone": backbone, "tag_head": TagHead(backbone.width, classes, bias=True)}
    fit_parts(modules, parts, "ACR")
    named = "vit_b16 or deit_b (one network, the same keys)" if options else name
    return Contents("ACR", named, classes)


CHECKPOINT = CheckpointKind(("pretrained.model.",), _examine)
"""Checkpoints of ACR."""
