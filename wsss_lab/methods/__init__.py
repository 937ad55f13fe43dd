"""Methods: one folder per paper, with the same file names in each.

=================  =================================================================================
``config``         settings and presets; quirks of a released code apart
``network``        layers
``losses``         the paper's equations, pure functions
``labels``         how pseudo-labels are made
``method``         the training step: start reading here
``values``         frozen values: fusion and normalisation of maps, CRFs, published results
``released``       what only the released code does, and its checkpoints
``keymap``         names of tensors in released checkpoints
=================  =================================================================================

`cam_baseline` is the plain reference; `common` holds what methods share. The main names can be
imported from here: ``from wsss_lab.methods import CoSA``.
"""

from typing import Any

_HOMES = {
    "ACR": "acr.method",
    "ACRConfig": "acr.config",
    "ASDT": "asdt.method",
    "ASDTConfig": "asdt.config",
    "CoSA": "cosa.method",
    "CoSAConfig": "cosa.config",
    "TSCD": "tscd.method",
    "TSCDConfig": "tscd.config",
    "SegNetwork": "cam_baseline",
    "TagClassifier": "cam_baseline",
    "Method": "common.base",
}
"""Name -> module; imported at the first use, because each method imports torch."""


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(_HOMES)
