"""Trained networks that come with this package, by name; `predict --weights NAME` takes them.

| name | network | knows |
|---|---|---|
| `voc-mini` | tag classifier of the baseline's preset `voc-mini` | 20 classes of VOC, in photos |

The toy world's packaged classifier is `wsss_lab.evaluate.predict.toy_classifier`.
"""

from pathlib import Path

from wsss_lab.evaluate.trained import Trained
from wsss_lab.runs.weights import load_trained

WEIGHTS = Path(__file__).parent.parent / "weights"
PACKAGED = {"voc-mini": WEIGHTS / "lite0_voc_mini.safetensors"}
"""Name -> file; half precision, its card beside it."""


def packaged_file(name: str) -> Path:
    """Return the file of a packaged network.

    Raises:
        FileNotFoundError: this installation lacks it, or there is none of that name.
    """
    if name not in PACKAGED:
        raise FileNotFoundError(f"weights: expected one of {', '.join(PACKAGED)}, got {name!r}")
    if not PACKAGED[name].is_file():
        raise FileNotFoundError(f"{PACKAGED[name].name} is not in this installation; reinstall it")
    return PACKAGED[name]


def load_packaged(name: str) -> Trained:
    """Return a packaged network, ready to predict.

    Raises:
        FileNotFoundError: see `packaged_file`.
    """
    return load_trained(packaged_file(name), widen=True)
