"""ASDT: alternate self-dual teaching.

Dingwen Zhang, Hao Li, Wenyuan Zeng, Chaowei Fang, Lechao Cheng, Ming-Ming Cheng and Junwei Han,
"Weakly Supervised Semantic Segmentation via Alternate Self-Dual Teaching", IEEE Transactions on
Image Processing 34, 2025, arXiv 2112.09459.

=============  =====================================================================================
`config`       settings, presets, and the quirks of the released code
`arms`         arms of the ablation, and those with an oracle
`values`       frozen values: fusion and normalisation of maps, CRFs, published results
`method`       `ASDT`: network and training step; the table paper -> code
`network`      backbone, class branch (teacher A), two segmentation heads (teacher B, student)
`signal`       the pulse-width modulated signal that selects the student's teacher, and its rivals
`labels`       pseudo-labels of both teachers
`losses`       cross-entropy in two parts, distillation, the fused prediction
`predictions`  all heads and labels side by side, for the ablation
`released`     behaviour and checkpoints of the released code
`keymap`       its names of tensors
=============  =====================================================================================

The run from data to scores is `wsss_lab.recipes.asdt`.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from wsss_lab.methods.asdt.arms import ARMS, arm
    from wsss_lab.methods.asdt.config import PRESETS, RELEASED, ASDTConfig, ASDTQuirks
    from wsss_lab.methods.asdt.labels import teacher_a_label, teacher_b_label
    from wsss_lab.methods.asdt.method import ASDT
    from wsss_lab.methods.asdt.network import ASDTNetwork
    from wsss_lab.methods.asdt.signal import pulse_signal

_HOMES = {
    "ARMS": "arms",
    "ASDT": "method",
    "ASDTConfig": "config",
    "ASDTNetwork": "network",
    "ASDTQuirks": "config",
    "PRESETS": "config",
    "RELEASED": "config",
    "arm": "arms",
    "pulse_signal": "signal",
    "teacher_a_label": "labels",
    "teacher_b_label": "labels",
}

__all__ = [
    "ARMS",
    "ASDT",
    "PRESETS",
    "RELEASED",
    "ASDTConfig",
    "ASDTNetwork",
    "ASDTQuirks",
    "arm",
    "pulse_signal",
    "teacher_a_label",
    "teacher_b_label",
]


def __getattr__(name: str) -> object:
    """Import a main name when it is first used."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
