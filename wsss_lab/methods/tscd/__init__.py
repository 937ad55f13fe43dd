"""TSCD: self correspondence distillation and variation-aware refinement, end to end.

Xu et al., "Self Correspondence Distillation for End-to-End Weakly-Supervised Semantic
Segmentation", AAAI 2023, arXiv 2302.13765. Built on AFA (Ru et al., CVPR 2022).

| file | content |
|---|---|
| `method` | `TSCD`: the training step and the prediction; which part of the paper is where |
| `network` | encoder, classifier, decoder, affinity head; class maps over scales |
| `views` | the second view A(I), and the points at which views are compared |
| `losses` | self correspondence distillation (SCD), affinity loss |
| `labels` | normalised maps, their channels for SCD, affinity labels |
| `config` | settings, presets, and `TSCDQuirks`: what the released code does and we would not |
| `values` | frozen values: fusion and normalisation of maps, CRFs, published results |
| `released` | helpers of these quirks; loading of released checkpoints |
| `keymap` | names of tensors in released checkpoints |

VARM, the dense energy and pseudo-labels, which other methods share, are in `wsss_lab.refine` and
`wsss_lab.cam`. `examples/tscd.py` is the method on one page.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from wsss_lab.methods.tscd.config import PRESETS, RELEASED, LossWeights, TSCDConfig, TSCDQuirks
    from wsss_lab.methods.tscd.losses import affinity_loss, correspondence, scd_loss
    from wsss_lab.methods.tscd.method import TSCD
    from wsss_lab.methods.tscd.network import TSCDNetwork, tscd_backbone

_HOME = {
    "PRESETS": "config",
    "RELEASED": "config",
    "LossWeights": "config",
    "TSCDConfig": "config",
    "TSCDQuirks": "config",
    "affinity_loss": "losses",
    "correspondence": "losses",
    "scd_loss": "losses",
    "TSCD": "method",
    "TSCDNetwork": "network",
    "tscd_backbone": "network",
}
__all__ = [
    "PRESETS",
    "RELEASED",
    "TSCD",
    "LossWeights",
    "TSCDConfig",
    "TSCDNetwork",
    "TSCDQuirks",
    "affinity_loss",
    "correspondence",
    "scd_loss",
    "tscd_backbone",
]


def __getattr__(name: str) -> object:
    """Import a main name at its first use, so that importing the package is cheap."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
