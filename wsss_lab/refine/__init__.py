"""Refinement of class maps by the image: lattice filter, dense CRF, dense energy."""

from wsss_lab.refine.crf import (
    PRESETS,
    DenseCRF,
    exact_filter,
    exact_mean_field,
    unary_from_labels,
    unary_from_probs,
)
from wsss_lab.refine.energy import DenseEnergyLoss, bilateral_energy, confidence_gate
from wsss_lab.refine.lattice import Lattice, bilateral_features, spatial_features

__all__ = [
    "PRESETS",
    "DenseCRF",
    "DenseEnergyLoss",
    "Lattice",
    "bilateral_energy",
    "bilateral_features",
    "confidence_gate",
    "exact_filter",
    "exact_mean_field",
    "spatial_features",
    "unary_from_labels",
    "unary_from_probs",
]
