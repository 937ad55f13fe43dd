"""The random walk and its grids, against loops over pairs of cells."""

import pytest
import torch

from wsss_lab.refine import grid_label, radius_mask, random_walk


@pytest.mark.parametrize(("gh", "gw", "radius"), [(1, 1, 0), (3, 4, 1), (4, 3, 2), (2, 5, 8)])
def test_radius_mask_by_hand(gh, gw, radius):
    mask = radius_mask(gh, gw, radius)
    for i in range(gh * gw):
        for j in range(gh * gw):
            near = max(abs(i // gw - j // gw), abs(i % gw - j % gw)) <= radius
            assert mask[i, j] == near


def test_radius_mask_is_remembered():
    assert radius_mask(5, 4, 2) is radius_mask(5, 4, 2, torch.device("cpu"))


def test_grid_label_reads_the_upper_left_pixel():
    label = torch.arange(2 * 6 * 9).view(2, 6, 9)
    assert torch.equal(grid_label(label, (3, 3)), label[:, ::2, ::3])
    assert torch.equal(grid_label(label, (6, 9)), label)
    odd = grid_label(label, (4, 2))
    assert torch.equal(odd, label[:, [0, 1, 3, 4]][:, :, [0, 4]])


@pytest.mark.parametrize("background", [None, 0.35])
@pytest.mark.parametrize("with_mask", [False, True])
def test_random_walk_by_hand(background, with_mask):
    cam, affinity = torch.rand(2, 3, 2, 3), torch.rand(2, 6, 6)
    tags = torch.tensor([[1.0, 0, 1], [0, 0, 1]])
    mask = radius_mask(2, 3, 1) if with_mask else None
    out = random_walk(cam, affinity, tags, mask=mask, background=background)
    for i in range(2):
        maps = {c: cam[i, c].flatten() for c in range(3) if tags[i, c]}
        little = 1e-4
        if background is not None:
            little = 0.1
            rows = torch.stack([torch.full((6,), background), *maps.values()]).softmax(dim=0)
            maps = dict(zip([-1, *maps], rows, strict=True))
        expected = torch.zeros_like(out[i]).flatten(1)
        for c, values in maps.items():
            for j in range(6):
                near = [n for n in range(6) if mask is None or mask[n, j]]
                step = torch.stack([affinity[i, n, j] ** 2 for n in near])
                share = step / (step.sum() + little)
                expected[c + (background is not None), j] = (values[near] * share).sum()
        torch.testing.assert_close(out[i].flatten(1), expected)


def test_random_walk_along_the_identity_stays():
    cam = torch.rand(1, 2, 3, 3)
    out = random_walk(cam, torch.eye(9)[None], torch.ones(1, 2))
    torch.testing.assert_close(out, cam / (1 + 1e-4))


def test_random_walk_takes_all_classes_without_tags():
    cam, affinity = torch.rand(1, 2, 3, 3), torch.rand(1, 9, 9)
    assert torch.equal(random_walk(cam, affinity), random_walk(cam, affinity, torch.ones(1, 2)))


def test_random_walk_permutes_with_classes():
    cam, affinity = torch.rand(2, 3, 2, 2), torch.rand(2, 4, 4)
    tags = torch.tensor([[1.0, 0, 1], [0, 1, 1]])
    out = random_walk(cam, affinity, tags, background=0.3)
    turned = random_walk(cam.flip(1), affinity, tags.flip(1), background=0.3)
    torch.testing.assert_close(turned, torch.cat([out[:, :1], out[:, 1:].flip(1)], dim=1))


def test_random_walk_keeps_its_inputs_and_float32():
    cam, affinity = torch.rand(1, 2, 2, 2), torch.rand(1, 4, 4)
    before = affinity.clone()
    plain = random_walk(cam, affinity, mask=radius_mask(2, 2, 0))
    assert torch.equal(affinity, before)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(random_walk(cam, affinity, mask=radius_mask(2, 2, 0)), plain)


def test_random_walk_gradcheck():
    cam = torch.rand(1, 2, 2, 2, dtype=torch.float64, requires_grad=True)
    affinity = torch.rand(1, 4, 4, dtype=torch.float64, requires_grad=True)
    tags = torch.tensor([[1.0, 0]])
    torch.autograd.gradcheck(lambda c, a: random_walk(c, a, tags, background=0.35), (cam, affinity))


def test_bad_input():
    cam, affinity, tags = torch.rand(1, 2, 2, 2), torch.rand(1, 4, 4), torch.ones(1, 2)
    with pytest.raises(ValueError, match="affinity must be"):
        random_walk(cam, torch.rand(1, 9, 9), tags)
    with pytest.raises(ValueError, match="tags must be"):
        random_walk(cam, affinity, torch.ones(1, 3))
    with pytest.raises(ValueError, match="cam must be"):
        random_walk(cam[:, :0], affinity)
    with pytest.raises(ValueError, match="mask must be"):
        random_walk(cam, affinity, tags, mask=radius_mask(3, 3, 1))
    with pytest.raises(ValueError, match="label must be"):
        grid_label(torch.zeros(2, 3), (1, 1))
    with pytest.raises(ValueError, match="radius"):
        radius_mask(2, 2, -1)
