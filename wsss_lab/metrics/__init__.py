"""Scores, each with its protocol; imports nothing else of the library."""

from wsss_lab.metrics.baselines import all_background, random_cam, tag_oracle
from wsss_lab.metrics.boundary import BoundaryScore, boundary_counts
from wsss_lab.metrics.confusion import ConfusionMatrix, pair_counts
from wsss_lab.metrics.iou import ABSENT_POLICIES, mean_iou
from wsss_lab.metrics.regions import (
    ContextActivation,
    NearFar,
    context_activation,
    dilate,
    distance_bands,
    near_far_recall,
    near_far_regions,
    over_activation,
    under_activation,
)
from wsss_lab.metrics.report import Protocol, Report
from wsss_lab.metrics.sweep import (
    SweepResult,
    ThresholdSweep,
    strongest_class,
    threshold_sweep,
)
from wsss_lab.metrics.tags import average_precision, tag_f1, tag_map

__all__ = [
    "ABSENT_POLICIES",
    "BoundaryScore",
    "ConfusionMatrix",
    "ContextActivation",
    "NearFar",
    "Protocol",
    "Report",
    "SweepResult",
    "ThresholdSweep",
    "all_background",
    "average_precision",
    "boundary_counts",
    "context_activation",
    "dilate",
    "distance_bands",
    "mean_iou",
    "near_far_recall",
    "near_far_regions",
    "over_activation",
    "pair_counts",
    "random_cam",
    "strongest_class",
    "tag_f1",
    "tag_map",
    "tag_oracle",
    "threshold_sweep",
    "under_activation",
]
