"""Frozen values of CoSA's released code: maps, CRFs, published results."""

from wsss_lab.cam import Fusion, Normalization
from wsss_lab.methods.common.published import Published
from wsss_lab.refine import DenseCRF

CAM_FUSION = Fusion(scales=(1.0, 0.5, 1.5), source="CoSA, released code, training")
"""How the class maps of several scales and mirror images are merged in training."""
AUX_FUSION = Fusion(
    scales=(1.0, 0.5, 1.5),
    fuse_scale="last",
    source="CoSA, released code: the list of auxiliary maps is overwritten at every scale",
)
"""The same of the auxiliary maps."""
SEG_FUSION = Fusion(
    scales=(1.0, 0.5, 1.5),
    fuse_flip="sum",
    relu="none",
    source="CoSA, released code: segmentation logits",
)
"""How segmentation logits are merged in training."""
EVAL_CAM_FUSION = Fusion(scales=(1.0, 0.5, 1.5, 0.75, 1.25), source="CoSA, released code")
"""How class maps are merged at test."""
EVAL_LOGIT_FUSION = Fusion(
    scales=(1.0, 0.5, 1.5, 0.75, 1.25),
    fuse_flip="sum",
    relu="none",
    source="CoSA, released code: sum of ten passes",
)
"""How segmentation logits are merged at test."""
NORMALIZATION = Normalization(False, True, 1e-5, "class", "CoSA, released code (same rule as TSCD)")
"""How merged maps become 0..1."""
IMAGE_NORMALIZATION = Normalization(False, True, 1e-5, "image", "CoSA, released code, variant v4")
"""The same over all maps of an image; an unused variant."""
LOSS_NORMALIZATION = Normalization(True, True, 1e-4, "class", "CoSA, released code, CAM loss v2")
"""That of the student's maps in the second form of the CAM loss."""
CRFS: dict[str, DenseCRF] = {
    # evaluation ("Seg_crf"): a single iteration
    "eval": DenseCRF(1, 1, 1, 121, 5, 4),
    # second helper (not called)
    "helper": DenseCRF(10, 4, 3, 83, 5, 3),
}
"""Dense CRFs, by use."""

_VIT, _SEG = "ViT-B, ImageNet-21k and 1k", "segmentation"
_LOG = "its released log, teacher"
PUBLISHED: tuple[Published, ...] = (
    Published(
        "CoSA",
        "voc",
        "val",
        _SEG,
        76.2,
        _VIT,
        "true tags mask the logits (released code); multi-scale; CRF none in that code",
        "its README",
    ),
    Published(
        "CoSA",
        "voc",
        "val",
        _SEG,
        73.7,
        _VIT,
        "no true tags; multi-scale, no CRF; 1448 images",
        f"{_LOG}, step 24 000",
    ),
    Published(
        "CoSA",
        "voc",
        "val",
        _SEG,
        75.7,
        _VIT,
        "the same network and images, TRUE TAGS",
        f"{_LOG}, step 24 000",
    ),
    Published(
        "CoSA",
        "coco",
        "val",
        _SEG,
        51.0,
        _VIT,
        "true tags mask the logits (released code); multi-scale",
        "its README",
    ),
    Published(
        "CoSA",
        "coco",
        "val",
        _SEG,
        48.5,
        _VIT,
        "no true tags; multi-scale, no CRF; 5000 of the images",
        f"{_LOG}, step 30 000",
    ),
)
"""Published results, each with its protocol as far as it is known."""
