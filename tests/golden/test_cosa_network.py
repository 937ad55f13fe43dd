"""CoSA: the whole network against recorded outputs at three image sizes."""

import numpy as np
import torch

from wsss_lab.methods.cosa.keymap import KEYMAP
from wsss_lab.models.backbones import build_backbone
from wsss_lab.models.heads import LargeFOV, TagHead
from wsss_lab.models.keymaps import split_checkpoint

# Not visible in the recorded arrays; from the description that comes with them.
HEADS, AUX_LEVEL = 3, -2


def build(weights):
    state = {key: torch.from_numpy(value).float() for key, value in weights.items()}
    parts = split_checkpoint(state, KEYMAP)
    net = {key.removeprefix("net."): value for key, value in parts["backbone"].items()}
    width, patch = net["patch_embed.proj.weight"].shape[0], net["patch_embed.proj.weight"].shape[-1]
    backbone = build_backbone(
        "vit_b16",
        levels=(AUX_LEVEL,),
        train_pos_embed=False,
        patch_size=patch,
        img_size=patch * round((net["pos_embed"].shape[1] - 1) ** 0.5),
        embed_dim=width,
        depth=1 + max(int(k.split(".")[1]) for k in net if k.startswith("blocks.")),
        num_heads=HEADS,
    )
    hidden = parts["seg_head"]["conv1.weight"].shape[0]
    heads = {
        "seg_head": LargeFOV(width, parts["seg_head"]["classify.weight"].shape[0], hidden),
        "tag_head": TagHead(width, parts["tag_head"]["linear.weight"].shape[0], pool="gmp"),
        "aux_head": TagHead(width, parts["aux_head"]["linear.weight"].shape[0], pool="gmp"),
    }
    backbone.load_state_dict(parts["backbone"])
    for name, head in heads.items():
        head.load_state_dict(parts[name])
    return backbone.eval(), heads


@torch.no_grad()
def test_cosa_forward(golden):
    arrays = golden("cosa")("model_forward.npz")
    backbone, heads = build(golden("cosa")("tiny_weights.npz"))
    inputs = [key for key in arrays if key.startswith("x_")]
    assert inputs
    for key in inputs:
        suffix = key.removeprefix("x")
        features = backbone(torch.from_numpy(arrays[key]))
        aux = features.pyramid[0]
        got = {
            "tokens": backbone.embed(torch.from_numpy(arrays[key]))[0],
            "cls_token": features.cls,
            "feat": features.last,
            "aux_tokens": aux.flatten(2).transpose(1, 2),
            "cls": heads["tag_head"](features.last),
            "cls_aux": heads["aux_head"](aux),
            "cam": heads["tag_head"].cam(features.last),
            "cam_aux": heads["aux_head"].cam(aux),
            "seg": heads["seg_head"](features.last),
        }
        for name, value in got.items():
            expected = arrays[name + suffix]
            np.testing.assert_allclose(
                value.numpy(),
                expected,
                rtol=1e-4,
                atol=1e-5 * np.abs(expected).max(),
                err_msg=name + suffix,
            )
