"""ACR from recorded weights of any size; not a test."""

import torch

from wsss_lab.methods.acr.config import ACRConfig
from wsss_lab.methods.acr.keymap import KEYMAP
from wsss_lab.methods.acr.method import ACR
from wsss_lab.models.backbones import build_backbone
from wsss_lab.models.keymaps import split_checkpoint


def released_state(arrays, prefix=""):
    """Tensors under the authors' names."""
    return {
        key.removeprefix(prefix): torch.from_numpy(value)
        for key, value in arrays.items()
        if key.startswith(prefix)
    }


def build_acr(golden, kind, **config):
    """`ACR` with the recorded weights; sizes are read from them, the heads from `getam_*`."""
    state, renamed, backbone = bare_backbone(golden, kind)
    classes = renamed["tag_head"]["linear.weight"].shape[0]
    model = ACR(backbone, classes, ACRConfig(**config))
    model.load_released(state)
    return model


def bare_backbone(golden, kind):
    """Recorded state, its parts in our names, and a backbone of that size with random weights."""
    state = released_state(golden("acr")(f"weights_{kind}.npz"))
    heads = golden("acr")(f"getam_{kind}.npz")["attn_heads"].shape[1]
    renamed = split_checkpoint(state, KEYMAP)
    net = {key.removeprefix("net."): value for key, value in renamed["backbone"].items()}
    n, width = net["pos_embed"].shape[1:]
    options = {
        "embed_dim": width,
        "depth": 1 + max(int(k.split(".")[1]) for k in net if k.startswith("blocks.")),
        "num_heads": heads,
        "mlp_ratio": net["blocks.0.mlp.fc1.weight"].shape[0] / width,
        "img_size": 16 * round((n - 1) ** 0.5),
        "pos_mode": "bilinear",
    }
    if kind == "hybrid":
        options |= stem_options(net)
    name = "vit_b16" if kind == "vit" else "r50_vit_b16"
    return state, renamed, build_backbone(name, **options)


def stem_options(net):
    """Sizes of the residual network from its weights."""
    stages = {}
    for key in net:
        if ".stages." in key:
            words = key.split(".")
            stages.setdefault(int(words[3]), set()).add(int(words[5]))
    last = "patch_embed.backbone.stages.{}.blocks.0.conv3.weight"
    return {
        "weight_std": "added_eps",
        "layers": tuple(len(stages[i]) for i in sorted(stages)),
        "channels": tuple(net[last.format(i)].shape[0] for i in sorted(stages)),
        "stem_width": net["patch_embed.backbone.stem.conv.weight"].shape[0],
    }
