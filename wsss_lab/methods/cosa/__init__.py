"""CoSA: co-training with swapping assignments.

Xinyu Yang, Hossein Rahmani, Sue Black and Bryan M. Williams, "Weakly Supervised Co-training with
Swapping Assignments for Semantic Segmentation", ECCV 2024, arXiv 2402.17891.

===========  =======================================================================================
`config`     settings, presets, and the quirks of the released code
`method`     `CoSA`: both networks and the training step; the table paper -> code
`network`    backbone and heads of one network; its outputs at several scales
`labels`     pseudo-labels from the teacher's maps and from its segmentation
`losses`     every loss and every pixel weight as a pure function
`threshold`  queue of map values and the thresholds searched in it
`mixture`    Gaussian mixtures and the best split of values in two
`released`   checkpoints and optimiser groups of the authors
`keymap`     their names of tensors
===========  =======================================================================================

From data to `metrics.json`: `wsss_lab.recipes.cosa`.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from wsss_lab.methods.cosa.config import PRESETS, RELEASED, CoSAConfig, CoSAQuirks, LossWeights
    from wsss_lab.methods.cosa.method import CoSA
    from wsss_lab.methods.cosa.network import CoSANetwork, cosa_backbone

_HOMES = {
    "CoSA": "method",
    "CoSAConfig": "config",
    "CoSANetwork": "network",
    "CoSAQuirks": "config",
    "LossWeights": "config",
    "PRESETS": "config",
    "RELEASED": "config",
    "cosa_backbone": "network",
}

__all__ = [
    "PRESETS",
    "RELEASED",
    "CoSA",
    "CoSAConfig",
    "CoSANetwork",
    "CoSAQuirks",
    "LossWeights",
    "cosa_backbone",
]


def __getattr__(name: str) -> object:
    """Import a main name when it is first used."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
