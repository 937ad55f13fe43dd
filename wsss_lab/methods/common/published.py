"""A published result, and those of work that has no folder here.

Only numbers from sources we have read are here. A question mark stands for what the source does not
state. Do not compare two rows without comparing their columns: pre-training, stages, multi-scale,
CRF and true tags at test time each move mIoU by points.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Published:
    """One published mIoU with its protocol."""

    method: str
    data: str
    """A name of `wsss_lab.data.config.DataConfig`."""
    split: str
    what: str
    """"segmentation", or "labels": maps of images whose tags are given."""
    miou: float
    """Per cent."""
    network: str
    protocol: str
    """Multi-scale, CRF, true tags at test time, as far as it is known."""
    source: str


_IRN = "Ahn et al. 2019; quoted in issue 4 of jiwoon-ahn/irn"
_RRM = "abstract of RRM (Zhang et al., AAAI 2020)"
_MIT, _SEG = "MiT-B1, ImageNet-1k", "segmentation"

PUBLISHED: tuple[Published, ...] = (
    Published("CAM (IRN)", "voc", "train", "labels", 48.3, "ResNet-50", "threshold: ?", _IRN),
    Published("AFA", "voc", "val", _SEG, 66.0, _MIT, "CRF", "arXiv 2203.02664, abstract"),
    Published(
        "AFA",
        "voc",
        "val",
        _SEG,
        63.9,
        _MIT,
        "single scale, no CRF, no true tags; best of ten looks",
        "its released log, step 18 000",
    ),
    Published("RRM", "voc", "val", _SEG, 62.6, "WRN-38, one stage", "CRF", _RRM),
    Published(
        "ToCo", "voc", "val", _SEG, 69.8, "DeiT-B, ImageNet-1k", "multi-scale, CRF", "its README"
    ),
    Published("full masks", "voc", "val", _SEG, 78.7, "MiT-B1", "?", "Table 3 of DuPL (CVPR 2024)"),
    Published("AFA", "coco", "val", _SEG, 38.9, _MIT, "?", "arXiv 2203.02664"),
    Published("ToCo", "coco", "val", _SEG, 41.3, "DeiT-B", "multi-scale, CRF", "its README"),
)
"""Image-level labels only, but for the row of full masks."""
