"""Rules of the library and of all papers' folders by name, e.g. `cosa.CAM_FUSION`."""

import importlib

from wsss_lab import cam
from wsss_lab.cam import Fusion, Normalization

PAPERS = ("tscd", "asdt", "acr", "cosa")
_VALUES = {paper: importlib.import_module(f"wsss_lab.methods.{paper}.values") for paper in PAPERS}


def _all(kind):
    return {
        f"{paper}.{name}": value
        for paper, module in _VALUES.items()
        for name, value in vars(module).items()
        if isinstance(value, kind)
    }


ALL_FUSIONS = cam.FUSIONS | _all(Fusion)
ALL_NORMALIZATIONS = cam.NORMALIZATIONS | _all(Normalization)
ALL_CRFS = {
    f"{paper}-{name}": crf for paper, module in _VALUES.items() for name, crf in module.CRFS.items()
}
