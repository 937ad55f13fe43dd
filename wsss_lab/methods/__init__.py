"""Methods: one folder per paper, with one name for the same thing in all of them.

=================  =================================================================================
``config``         settings and presets; quirks of a released code apart
``network``        layers
``losses``         the paper's equations, pure functions
``labels``         how pseudo-labels are made (ACR: ``localisation``, how class maps are)
``method``         the training step: start reading here
``values``         frozen values: fusion and normalisation of maps, CRFs, published results
``released``       what only the released code does, and its checkpoints
``keymap``         names of tensors in released checkpoints
=================  =================================================================================

`cam_baseline` is the plain reference, `mix` one base for the techniques of all papers; `common`
holds what methods share. The main names can be imported from here:
``from wsss_lab.methods import CoSA``.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from wsss_lab.methods.acr.config import ACRConfig as ACRConfig
    from wsss_lab.methods.acr.method import ACR as ACR
    from wsss_lab.methods.asdt.config import ASDTConfig as ASDTConfig
    from wsss_lab.methods.asdt.method import ASDT as ASDT
    from wsss_lab.methods.cam_baseline import SegNetwork as SegNetwork
    from wsss_lab.methods.cam_baseline import TagClassifier as TagClassifier
    from wsss_lab.methods.common.base import Method as Method
    from wsss_lab.methods.cosa.config import CoSAConfig as CoSAConfig
    from wsss_lab.methods.cosa.method import CoSA as CoSA
    from wsss_lab.methods.mix.config import MixConfig as MixConfig
    from wsss_lab.methods.mix.method import Mix as Mix
    from wsss_lab.methods.tscd.config import TSCDConfig as TSCDConfig
    from wsss_lab.methods.tscd.method import TSCD as TSCD

_HOMES = {
    "ACR": "acr.method",
    "ACRConfig": "acr.config",
    "ASDT": "asdt.method",
    "ASDTConfig": "asdt.config",
    "CoSA": "cosa.method",
    "CoSAConfig": "cosa.config",
    "TSCD": "tscd.method",
    "TSCDConfig": "tscd.config",
    "Mix": "mix.method",
    "MixConfig": "mix.config",
    "SegNetwork": "cam_baseline",
    "TagClassifier": "cam_baseline",
    "Method": "common.base",
}
"""Name -> module; imported at the first use, because each method imports torch."""


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(_HOMES)
