"""Affinity labels and their loss, against loops over pairs of cells."""

import pytest
import torch

from wsss_lab.methods.tscd.labels import affinity_label
from wsss_lab.methods.tscd.losses import affinity_loss
from wsss_lab.refine import radius_mask

LABEL = torch.tensor([[[0, 0, 3], [255, 3, 1]], [[2, 2, 2], [2, 2, 0]]])


@pytest.mark.parametrize("radius", [None, 1])
def test_affinity_label_by_hand(radius):
    mask = None if radius is None else radius_mask(2, 3, radius)
    target = affinity_label(LABEL, mask)
    for image, rows in zip(LABEL.flatten(1).tolist(), target.tolist(), strict=True):
        for i, a in enumerate(image):
            for j, b in enumerate(image):
                far = mask is not None and not mask[i, j]
                assert rows[i][j] == (255 if 255 in (a, b) or far else int(a == b))


def test_affinity_label_is_symmetric_and_ignores_names():
    target = affinity_label(LABEL, radius_mask(2, 3, 1))
    assert torch.equal(target, target.mT)
    renamed = torch.where(LABEL == 3, 7, LABEL)
    assert torch.equal(affinity_label(renamed, radius_mask(2, 3, 1)), target)


def test_affinity_loss_by_hand():
    target = affinity_label(LABEL, radius_mask(2, 3, 1))
    affinity = torch.rand(2, 6, 6)
    same = [1 - a for a, t in zip(affinity.flatten(), target.flatten(), strict=True) if t == 1]
    different = [a for a, t in zip(affinity.flatten(), target.flatten(), strict=True) if t == 0]
    by_hand = 0.5 * (sum(same) / (len(same) + 1) + sum(different) / (len(different) + 1))
    torch.testing.assert_close(affinity_loss(affinity, target), by_hand)


def test_affinity_loss_of_nothing_is_zero():
    affinity = torch.rand(1, 4, 4, requires_grad=True)
    loss = affinity_loss(affinity, torch.full((1, 4, 4), 255))
    loss.backward()
    assert loss == 0
    assert not affinity.grad.any()


def test_affinity_loss_is_float32_from_half():
    affinity = torch.rand(1, 4, 4).half()
    assert affinity_loss(affinity, torch.ones(1, 4, 4, dtype=torch.uint8)).dtype == torch.float32


def test_affinity_loss_gradcheck():
    affinity = torch.rand(2, 6, 6, dtype=torch.float64, requires_grad=True)
    target = affinity_label(LABEL)
    torch.autograd.gradcheck(lambda a: affinity_loss(a, target), affinity)


def test_wrong_shapes_are_refused():
    with pytest.raises(ValueError, match="mask must be"):
        affinity_label(LABEL, radius_mask(2, 2, 1))
    with pytest.raises(ValueError, match="label must be"):
        affinity_label(LABEL[0])
    with pytest.raises(ValueError, match="affinity and target"):
        affinity_loss(torch.rand(1, 4, 4), affinity_label(LABEL))
