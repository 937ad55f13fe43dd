"""Presets as they were when a study was declared.

A declaration names a preset, and its records stay valid only as long as the preset stands still.
One that moves on leaves its former values here, for the declarations of that time: these are known
by their SHA-256, so a study that is declared anew takes the preset as it is then.
"""

from collections.abc import Mapping
from typing import Any

_TSCD = {"method.backbone": "toy_mit"}
_ACR = {"backbone": "toy_vit", "method.input_stats": "imagenet"}
_COSA = {
    "method.backbone": "toy_cnn",
    "method.aux_level": -3,
    "method.beta": 1.0,
    "method.certainty": "exp",
}
FORMER: dict[str, dict[str, dict[str, Any]]] = {
    # acr
    "67a4b9516482ba553d9037f9ae076dc199292e52be2aba361aa1fa2445e28c92": {
        "acr": _ACR,
        "tscd": _TSCD,
        "cosa": _COSA,
    },
    # cosa
    "7ca0872c399e25e3960fc271a347352420706caff643682c6b83230b3f5f8545": {"cosa": _COSA},
    # precision
    "afd084407f20ef39da63a1eb55eb011e2f59311e06d8555940248f523aa7fddc": {
        "acr": _ACR,
        "tscd": _TSCD,
        "cosa": _COSA,
    },
    # tscd
    "e1d97fbd8da07f1c4f979a3307672a6c0dc0bd7125d57816c8c683d624244cb6": {"tscd": _TSCD},
}
"""SHA-256 of a declaration -> method -> settings in which its preset `toy` differed then."""


def former_settings(declaration_sha256: str, method: str) -> Mapping[str, Any]:
    """Return the settings in which a method's preset differed when a study was declared.

    Args:
        declaration_sha256: of the declaration, see `Declaration.sha256`.
        method: key in `wsss_lab.runs.recipe.RECIPES`.
    """
    return FORMER.get(declaration_sha256, {}).get(method, {})
