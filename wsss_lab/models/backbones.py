"""The table of backbones: `build_backbone("mit_b1")`."""

from collections.abc import Callable
from typing import Any

from wsss_lab.models import toynets
from wsss_lab.models.base import Backbone

BACKBONES: dict[str, Callable[..., Backbone]] = {
    "toy_cnn": toynets.toy_cnn,
    "toy_mit": toynets.toy_mit,
    "toy_vit": toynets.toy_vit,
}
"""Name -> builder. The builder's arguments are the options of `build_backbone`."""


def build_backbone(name: str, **options: Any) -> Backbone:
    """Build a backbone with random weights.

    Args:
        name: a key of `BACKBONES`.
        **options: passed to the builder.

    Returns:
        The backbone; load weights with `wsss_lab.models.weights.load_backbone_weights`.

    Raises:
        ValueError: unknown name.
    """
    if name not in BACKBONES:
        raise ValueError(f"name must be one of {', '.join(BACKBONES)}; got {name!r}")
    return BACKBONES[name](**options)
