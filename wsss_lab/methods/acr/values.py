"""Frozen values of ACR's released code: maps, CRFs, published results."""

from wsss_lab.cam import Fusion, Normalization
from wsss_lab.methods.common.published import Published
from wsss_lab.refine import DenseCRF

CAM_FUSION = Fusion(
    scales=(1.0,), fuse_flip="sum", relu="before", align_corners=True, source="ACR, released"
)
"""How maps of an image and of its mirror image are merged: resized with aligned corners, summed."""
NORMALIZATION = Normalization(False, True, 1e-6, "class", "ACR, released code, saved maps")
"""How merged maps become 0..1: each class by its own minimum and maximum."""
PATCH_NORMALIZATION = Normalization(False, True, 1e-5, "class", "ACR, released code, patch CAM")
"""That of maps of the patch tokens."""
CRFS: dict[str, DenseCRF] = {
    # CAM dump with background (1 - max CAM)^alpha
    "cam": DenseCRF(10, 3, 3, 80, 13, 10, normalised=False),
    # helpers that are not called: probabilities; hard labels
    "seg": DenseCRF(10, 3, 3, 83, 5, 4),
    "label": DenseCRF(10, 3, 3, 50, 5, 10),
}
"""Dense CRFs, by use."""

_R101 = "ViT-hybrid, then DeepLabV2-R101"
PUBLISHED: tuple[Published, ...] = (
    Published(
        "ACR", "voc", "train", "labels", 67.3, "ViT-hybrid", "?", "arXiv 2308.04321, abstract"
    ),
    Published("ACR", "coco", "val", "segmentation", 45.0, _R101, "?", "paperswithcode"),
)
"""Published results, each with its protocol as far as it is known. This is ACR of Sun et al. (arXiv
2308.04321), not the method of the same name by Kweon et al. (CVPR 2023) that most tables mean."""
