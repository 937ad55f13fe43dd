"""Official archives -> folders that `ImageTagDataset` reads: download, verify, derive, check.

Needs the extra `data` (scipy for .mat files, pycocotools for polygons); imported when used.
"""

from wsss_lab.data.prepare.check import check, check_report
from wsss_lab.data.prepare.coco import prepare_coco
from wsss_lab.data.prepare.stuff10k import prepare_stuff10k
from wsss_lab.data.prepare.voc import prepare_voc
from wsss_lab.data.prepare.voc_mini import prepare_voc_mini

__all__ = [
    "check",
    "check_report",
    "prepare_coco",
    "prepare_stuff10k",
    "prepare_voc",
    "prepare_voc_mini",
]
