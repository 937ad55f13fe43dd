"""Frozen values of ASDT's released code: maps, CRFs, published results."""

from wsss_lab.cam import Fusion, Normalization
from wsss_lab.methods.common.published import Published
from wsss_lab.refine import DenseCRF

CAM_FUSION = Fusion(
    scales=(1.0, 0.5, 1.5, 2.0),
    flip=False,
    fuse_scale="mean",
    relu="before",
    source="ASDT, released code; the maps are joined at the grid of scale 1",
)
"""How the class maps of several scales are merged."""
NORMALIZATION = Normalization(False, False, 1e-5, "class", "ASDT, released code")
"""How merged maps become 0..1."""
CRFS: dict[str, DenseCRF] = {
    # teacher A from CAMs, background (1 - max CAM)^4 and ^32
    "cam": DenseCRF(10, 3, 3, 80, 13, 10, normalised=False),
    # teacher B and inference. Inference feeds the element-wise maximum of two softmaxes, which is
    # not normalised
    "seg": DenseCRF(10, 3, 3, 83, 5, 4, normalised=False),
}
"""Dense CRFs, by use."""

_LIST = "result table of gyguo/awesome-weakly-supervised-semantic-segmentation"
_DEEPLAB, _PSP = "WRN-38, then DeepLabV2-R101", "WRN-38, then PSPNet-Res2Net101"
PUBLISHED: tuple[Published, ...] = (
    Published("ASDT", "voc", "val", "segmentation", 69.7, _DEEPLAB, "retrained; ?", _LIST),
    Published("ASDT", "voc", "val", "segmentation", 71.1, _PSP, "retrained; ?", _LIST),
)
"""Published results, each with its protocol as far as it is known. None for COCO-Stuff 10K: we
found no number with a protocol."""
