"""The toy world: drawn animals and vehicles with pixel truth, where CAM fails for known reasons.

Every class shares coats, paints, bodies and wheels with other classes and differs in one
distinctive part (partial activation); boats come with water and trains with rails, which are
background in the truth (co-occurrence); cats and dogs differ in their ears alone (twins).
"""

from wsss_lab.data.catalog import TOY_CLASSES
from wsss_lab.data.toy.dataset import (
    TOY_VERSION,
    ToySample,
    ToyTensors,
    ToyWorld,
    render,
    write_voc,
)
from wsss_lab.data.toy.knobs import ToyKnobs
from wsss_lab.data.toy.scene import CONTEXTS, PART_KINDS, SPLITS, TAG_SHARE, Scene, scene

__all__ = [
    "CONTEXTS",
    "PART_KINDS",
    "SPLITS",
    "TAG_SHARE",
    "TOY_CLASSES",
    "TOY_VERSION",
    "Scene",
    "ToyKnobs",
    "ToySample",
    "ToyTensors",
    "ToyWorld",
    "render",
    "scene",
    "write_voc",
]
