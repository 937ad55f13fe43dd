"""WSSS Lab: weakly supervised semantic segmentation, from tags to pixels.

Shapes are types here. One letter always means one thing, in every docstring and annotation:

=========  =====================================================================
letter     meaning
=========  =====================================================================
``b``      batch
``k``      foreground classes; tag ``c`` belongs to mask value ``c + 1``
``k1``     ``k + 1``: foreground classes and background (index 0)
``h w``    pixels
``gh gw``  cells of a feature or token grid
``n``      a list of places: tokens, neighbours of a pixel, sampled points
``a``      attention heads
``l``      layers
``d``      feature width (channels)
=========  =====================================================================

Names carry the quantity: ``*_logits`` and ``*_probs``; ``*_cam`` is non-negative with maximum 1 per
class; ``*_label`` is an integer map in which 0 is background and 255 (`IGNORE`) is "no opinion";
``*_valid`` is boolean. Images are ``uint8`` in 0..255 on disk and in data sets, ``float32`` after
normalisation.
"""

import importlib
from typing import Any

__version__ = "0.1.0"

IGNORE = 255
"""Label value that every loss and every metric leaves out."""

_HOMES = {
    "register_method": "wsss_lab.runs.recipe",
    "register_backbone": "wsss_lab.models.backbones",
    "register_dataset": "wsss_lab.data.config",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


# The one place that knows all rooms: the package's own methods enter their table, as text.
importlib.import_module("wsss_lab.recipes")
