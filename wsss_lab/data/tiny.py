"""Example of 4x4 px that the book computes by hand: a sailing boat on water.

Sixteen pixels, three features, two classes. The numbers are small enough to check with a pencil and
chosen so that the two classic failures are already there: the sail, which only boats have, scores
high; the hull, which looks like the body of a car, scores low; and the water, which is not the boat
but is never far from one, scores as much as the hull. No threshold separates hull from water.

    . S . .        S  sail   (boat, distinctive)
    . S S .        H  hull   (boat, shared with cars)
    H H H w        W  water  (background that comes with boats)
    W W W W        .  sky    (background)
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

TINY_CLASSES = ("boat", "car")
TINY_FEATURES = ("sail", "hull", "water")


def tiny_image() -> Float[Tensor, "1 3 4 4"]:
    """RGB in [0, 1]: sky, sail, hull and water in one flat colour each."""
    colours = {
        ".": (0.70, 0.85, 1.00),
        "S": (0.85, 0.20, 0.20),
        "H": (0.55, 0.35, 0.20),
        "W": (0.20, 0.40, 0.70),
    }
    rows = (".S..", ".SS.", "HHHW", "WWWW")
    return torch.tensor([[colours[c] for c in row] for row in rows]).permute(2, 0, 1)[None]


def tiny_mask() -> Int[Tensor, "1 4 4"]:
    """Label map: 1 (boat) on sail and hull, 0 (background) elsewhere; no car."""
    return torch.tensor([[[0, 1, 0, 0], [0, 1, 1, 0], [1, 1, 1, 0], [0, 0, 0, 0]]])


def tiny_tags() -> Float[Tensor, "1 2"]:
    """Image-level tags: boat present, car absent."""
    return torch.tensor([[1.0, 0.0]])


def tiny_features() -> Float[Tensor, "1 3 4 4"]:
    """Feature map: similarity of every cell to sail, hull and water."""
    sail = [[0, 2, 0, 0], [0, 2, 1, 0], [0, 0, 0, 0], [0, 0, 0, 0]]
    hull = [[0, 0, 0, 0], [0, 0, 0, 0], [1, 2, 1, 0], [0, 0, 0, 0]]
    water = [[0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 1], [2, 2, 2, 2]]
    return torch.tensor([[sail, hull, water]], dtype=torch.float32)


def tiny_weights() -> Float[Tensor, "2 3"]:
    """Weights of a linear classifier, one row for boat and one for car."""
    return torch.tensor([[2.0, 0.5, 0.5], [-1.0, 1.5, -0.5]])
