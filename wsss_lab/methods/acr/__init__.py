"""ACR: all-pairs consistency learning.

Weixuan Sun, Yanhao Zhang, Zhen Qin, Zheyuan Liu, Lin Cheng, Fanyi Wang, Yiran Zhong and Nick
Barnes, "All-pairs Consistency Learning for Weakly Supervised Semantic Segmentation", ICCV 2023
workshops, arXiv 2308.04321.

================  ==================================================================================
`config`          settings, presets, and the quirks of the released code
`method`          `ACR`: network, training step, localisation; the table paper -> code
`network`         one pass over images and views that records attention
`views`           mirror images, turns, shifts, scales: of pixels and of tokens
`alignment`       attention of the view laid over that of the image
`losses`          activation and affinity consistency
`localisation`    class maps from gradients of attention
`plugin`          the losses added to any other method that trains a transformer
`released`        checkpoints of the authors
`keymap`          their names of tensors
================  ==================================================================================

The stages around it, from data to pseudo-labels and a segmentation network, are
`wsss_lab.recipes.acr`.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from wsss_lab.methods.acr.config import PRESETS, RELEASED, ACRConfig, ACRPreset, ACRQuirks
    from wsss_lab.methods.acr.losses import activation_consistency, affinity_consistency
    from wsss_lab.methods.acr.method import ACR
    from wsss_lab.methods.acr.plugin import ConsistencyConfig, with_consistency

_HOMES = {
    "ACR": "method",
    "ACRConfig": "config",
    "ACRPreset": "config",
    "ACRQuirks": "config",
    "ConsistencyConfig": "plugin",
    "PRESETS": "config",
    "RELEASED": "config",
    "activation_consistency": "losses",
    "affinity_consistency": "losses",
    "with_consistency": "plugin",
}

__all__ = [
    "ACR",
    "PRESETS",
    "RELEASED",
    "ACRConfig",
    "ACRPreset",
    "ACRQuirks",
    "ConsistencyConfig",
    "activation_consistency",
    "affinity_consistency",
    "with_consistency",
]


def __getattr__(name: str) -> object:
    """Import a main name when it is first used."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
