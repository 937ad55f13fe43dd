"""Refinement: move the edges of maps and labels to the edges of the image.

`local` weighs the neighbours of a pixel by colour (PAMR, PAR, VARM), `neighbours` is their common
core, `labels` applies a refinement to present classes or real pixels only, and `walk` lets maps
wander along a learned affinity. Nothing here knows networks or class maps.
"""

from wsss_lab.refine.labels import refine_in_box, refine_present
from wsss_lab.refine.local import PAMR, PAR, VARM, LocalKernel, LocalRefiner, local_affinity
from wsss_lab.refine.neighbours import DILATIONS, dilated_offsets, propagate
from wsss_lab.refine.walk import affinity_label, affinity_loss, grid_label, radius_mask, random_walk

__all__ = [
    "DILATIONS",
    "PAMR",
    "PAR",
    "VARM",
    "LocalKernel",
    "LocalRefiner",
    "affinity_label",
    "affinity_loss",
    "dilated_offsets",
    "grid_label",
    "local_affinity",
    "propagate",
    "radius_mask",
    "random_walk",
    "refine_in_box",
    "refine_present",
]
