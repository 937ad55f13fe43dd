"""Class maps from features, and labels from class maps.

`maps` turns features into one map per class, `fusion` merges the maps of several scales and of the
mirrored image, `labels` turns maps into label images. Everything is a pure function of tensors.
"""

from wsss_lab.cam.fusion import FUSIONS, Fusion, fuse_cams, multi_scale_cam
from wsss_lab.cam.labels import box_to_valid, cam_to_label, cam_to_pseudo_label
from wsss_lab.cam.maps import (
    NORMALIZATIONS,
    Normalization,
    class_activation_map,
    grad_cam,
    normalize_cam,
    present_classes,
)

__all__ = [
    "FUSIONS",
    "NORMALIZATIONS",
    "Fusion",
    "Normalization",
    "box_to_valid",
    "cam_to_label",
    "cam_to_pseudo_label",
    "class_activation_map",
    "fuse_cams",
    "grad_cam",
    "multi_scale_cam",
    "normalize_cam",
    "present_classes",
]
