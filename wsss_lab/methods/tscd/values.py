"""Frozen values of TSCD, and of AFA on which it is built: maps, CRFs, published results."""

from wsss_lab.cam import Fusion, Normalization
from wsss_lab.methods.common.published import Published
from wsss_lab.refine import DenseCRF

CAM_FUSION = Fusion(scales=(1.0, 0.5, 1.5), source="TSCD and AFA, released code")
"""How the class maps of several scales and mirror images are merged."""
LOGIT_FUSION = Fusion(
    scales=(1.0, 0.5, 0.75),
    fuse_flip="mean",
    fuse_scale="max",
    relu="none",
    source="AFA, released test script, which TSCD takes over: flips averaged, then the maximum",
)
"""How segmentation logits are merged at test."""
NORMALIZATION = Normalization(False, True, 1e-5, "class", "TSCD and AFA, released code")
"""How merged maps become 0..1."""
CRFS: dict[str, DenseCRF] = {
    # AFA's test script, which the TSCD paper's protocol follows; TSCD's release has none
    "eval": DenseCRF(10, 3, 3, 64, 5, 4),
    # CAM to foreground and background labels (not called in training)
    "cam": DenseCRF(10, 3, 3, 80, 13, 10),
    # hard labels, confidence 0.7 (`unary_from_labels`)
    "label": DenseCRF(10, 3, 3, 50, 5, 10),
}
"""Dense CRFs of the released code, by use."""

_QUOTED = "arXiv 2302.13765, as three later papers quote it"
_MIT = "MiT-B1, ImageNet-1k"
PUBLISHED: tuple[Published, ...] = (
    Published(
        "TSCD",
        "voc",
        "val",
        "segmentation",
        67.3,
        _MIT,
        "CRF; better of maps and network (the author, issue 11)",
        _QUOTED,
    ),
    Published("TSCD", "coco", "val", "segmentation", 40.1, _MIT, "?", _QUOTED),
)
"""Published results, each with its protocol as far as it is known."""
