"""Refinement of maps and labels: align their edges with the edges of the image.

*Near neighbours*: `local` weighs the neighbours of a pixel by colour (PAMR, PAR, VARM),
`neighbours` is their common core, `labels` applies a refinement to present classes or real pixels
only, and `walk` propagates maps along a learned affinity.

*All pixels at once*: `lattice` filters with a Gaussian over positions and colours, `crf` is the
dense CRF on top of it, and `energy` the dense energy as a loss.

Nothing here depends on networks or class maps.
"""

from wsss_lab.refine.crf import (
    DenseCRF,
    unary_from_labels,
    unary_from_probs,
)
from wsss_lab.refine.energy import DenseEnergyLoss, bilateral_energy, confidence_gate
from wsss_lab.refine.exact import exact_filter, exact_mean_field
from wsss_lab.refine.features import bilateral_features, spatial_features
from wsss_lab.refine.labels import refine_in_box, refine_present
from wsss_lab.refine.lattice import Lattice
from wsss_lab.refine.local import PAMR, PAR, VARM, LocalKernel, LocalRefiner, local_affinity
from wsss_lab.refine.neighbours import DILATIONS, dilated_offsets, propagate
from wsss_lab.refine.walk import grid_label, radius_mask, random_walk

__all__ = [
    "DILATIONS",
    "PAMR",
    "PAR",
    "VARM",
    "DenseCRF",
    "DenseEnergyLoss",
    "Lattice",
    "LocalKernel",
    "LocalRefiner",
    "bilateral_energy",
    "bilateral_features",
    "confidence_gate",
    "dilated_offsets",
    "exact_filter",
    "exact_mean_field",
    "grid_label",
    "local_affinity",
    "propagate",
    "radius_mask",
    "random_walk",
    "refine_in_box",
    "refine_present",
    "spatial_features",
    "unary_from_labels",
    "unary_from_probs",
]
