"""AffinityNet-style propagation against loops over pairs and dense matrices."""

import math

import pytest
import torch

from wsss_lab import IGNORE
from wsss_lab.methods.common.affinity_net import AffinityNetwork
from wsss_lab.methods.common.affinity_pairs import (
    pair_affinity,
    pair_distance,
    pair_kinds,
    pair_loss,
    pair_offsets,
    pair_valid,
)
from wsss_lab.methods.common.affinity_walk import random_walk, transition
from wsss_lab.models.backbones import build_backbone

GRIDS = [(5, 7), (6, 3), (1, 4), (2, 1)]


def pairs_of(offsets, gh, gw):
    """(offset number, first cell, second cell) of all pairs inside the grid, by loops."""
    for m, (dy, dx) in enumerate(offsets):
        for y in range(gh):
            for x in range(gw):
                if 0 <= y + dy < gh and 0 <= x + dx < gw:
                    yield m, (y, x), (y + dy, x + dx)


def features_of(gh, gw, b=2, d=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(b, d, gh, gw, generator=generator, dtype=torch.float64)


def dense_affinity(features, radius):
    """W of all cells by broadcasting: 0 for far pairs, 1 on the diagonal."""
    cells = features.flatten(2)
    distance = (cells[:, :, :, None] - cells[:, :, None, :]).abs().mean(1)
    y, x = torch.meshgrid(*(torch.arange(s) for s in features.shape[2:]), indexing="ij")
    place = torch.stack([y.flatten(), x.flatten()], 1).double()
    near = (place[:, None] - place).square().sum(2) < radius**2 - 1e-9
    return torch.exp(-distance) * near


@pytest.mark.parametrize("radius", [1.1, 2, 3.5, 5])
def test_offsets_are_one_half_of_a_disc(radius):
    found = pair_offsets(radius)
    reach = range(-6, 7)
    disc = {(y, x) for y in reach for x in reach if 0 < math.hypot(y, x) < radius}
    assert len(set(found)) == len(found)
    assert set(found) | {(-y, -x) for y, x in found} == disc
    assert not set(found) & {(-y, -x) for y, x in found}
    assert radius != 5 or len(found) == 34


@pytest.mark.parametrize("size", GRIDS)
def test_distance_by_loops(size):
    offsets, features = pair_offsets(3), features_of(*size)
    found = pair_distance(features, offsets)
    expected = torch.full_like(found, torch.inf)
    inside = torch.zeros(len(offsets), *size, dtype=torch.bool)
    for m, (y, x), (v, u) in pairs_of(offsets, *size):
        inside[m, y, x] = True
        expected[:, m, y, x] = (features[:, :, y, x] - features[:, :, v, u]).abs().mean(1)
    torch.testing.assert_close(found, expected)
    assert torch.equal(pair_valid(offsets, *size), inside)
    assert torch.equal(pair_affinity(found) > 0, inside.expand_as(found))


@pytest.mark.parametrize("size", GRIDS)
def test_gradients_are_those_of_dense_differences(size):
    offsets, features = pair_offsets(3), features_of(*size).requires_grad_()
    weight = features_of(*size, d=len(offsets), seed=1)
    terms = [
        weight[:, m, y, x] * (features[:, :, y, x] - features[:, :, v, u]).abs().mean(1)
        for m, (y, x), (v, u) in pairs_of(offsets, *size)
    ]
    (expected,) = torch.autograd.grad(torch.stack(terms).sum(), features)
    distance = pair_distance(features, offsets)
    known = distance.masked_fill(distance.isinf(), 0)
    (found,) = torch.autograd.grad((known * weight).sum(), features)
    torch.testing.assert_close(found, expected)


def test_kinds_and_loss_by_loops():
    size, offsets = (5, 6), pair_offsets(2.5)
    label = torch.tensor([0, 0, 1, 2, IGNORE, 1])[
        torch.randint(6, (3, *size), generator=torch.Generator().manual_seed(3))
    ]
    distance = pair_distance(features_of(*size, b=3), offsets)
    kinds, sums = pair_kinds(label, offsets), {"fg": [], "bg": [], "no": []}
    for b in range(3):
        for m, first, second in pairs_of(offsets, *size):
            one, other = int(label[b][first]), int(label[b][second])
            kind = None
            if IGNORE not in (one, other):
                kind = "no" if one != other else "fg" if one else "bg"
            for name, mask in zip(("fg", "bg", "no"), kinds, strict=True):
                assert bool(mask[(b, m, *first)]) == (name == kind)
            if kind:
                affinity = math.exp(-float(distance[(b, m, *first)]))
                target = 1 + 1e-5 - affinity if kind == "no" else affinity
                sums[kind].append(-math.log(target))
    assert sum(int(mask.sum()) for mask in kinds) == sum(map(len, sums.values()))
    means = [sum(values) / len(values) for values in sums.values()]
    loss, parts = pair_loss(distance, kinds)
    assert loss.item() == pytest.approx(means[0] / 4 + means[1] / 4 + means[2] / 2)
    assert [value.item() for value in parts.values()] == pytest.approx(means)
    assert list(parts) == ["foreground", "background", "different"]


def test_a_batch_without_sure_pairs_has_no_loss_and_no_gradient():
    offsets, features = pair_offsets(5), features_of(4, 4).requires_grad_()
    label = torch.full((2, 4, 4), IGNORE)
    loss, _ = pair_loss(pair_distance(features, offsets), pair_kinds(label, offsets))
    (grad,) = torch.autograd.grad(loss, features)
    assert loss.item() == 0
    assert torch.equal(grad, torch.zeros_like(grad))


def test_equal_features_have_a_finite_loss():
    offsets, features = pair_offsets(5), torch.zeros(1, 3, 4, 4, requires_grad=True)
    label = torch.arange(16).view(1, 4, 4)
    loss, _ = pair_loss(pair_distance(features, offsets), pair_kinds(label, offsets))
    (grad,) = torch.autograd.grad(loss, features)
    assert loss.item() == pytest.approx(-math.log(1e-5) / 2, rel=0.01)
    assert grad.isfinite().all()


@pytest.mark.parametrize("size", GRIDS)
@pytest.mark.parametrize(("power", "steps"), [(1, 1), (8, 0), (8, 5), (0.5, 64)])
def test_the_walk_is_a_power_of_the_dense_matrix(size, power, steps):
    radius = 3
    offsets, features = pair_offsets(radius), features_of(*size)
    affinity = pair_affinity(pair_distance(features, offsets))
    dense = dense_affinity(features, radius) ** power
    dense = dense * (dense_affinity(features, radius) > 0)
    dense = dense / dense.sum(2, keepdim=True)
    index, weight = transition(affinity, offsets, power)
    n = size[0] * size[1]
    found = torch.zeros(2, n, n, dtype=torch.float64)
    found.scatter_add_(2, index.expand(2, -1, -1), weight)
    torch.testing.assert_close(found, dense)
    torch.testing.assert_close(weight.sum(2), torch.ones(2, n, dtype=torch.float64))

    maps = features_of(*size, d=4, seed=5)
    expected = maps.flatten(2) @ torch.linalg.matrix_power(dense, steps).transpose(1, 2)
    walked = random_walk(maps, affinity, offsets, power, steps)
    torch.testing.assert_close(walked, expected.view_as(maps))


def test_values_of_a_walk_stay_in_range_and_constant_maps_stay():
    offsets = pair_offsets(5)
    affinity = pair_affinity(pair_distance(features_of(9, 8).float(), offsets))
    maps = torch.rand(2, 3, 9, 8, generator=torch.Generator().manual_seed(0))
    maps[:, 2] = 0.3
    walked = random_walk(maps, affinity, offsets)
    assert walked.dtype == torch.float32
    torch.testing.assert_close(walked[:, 2], maps[:, 2], rtol=1e-3, atol=0)
    assert walked.amin() >= maps.amin() - 1e-5
    assert walked.amax() <= maps.amax() + 1e-5
    assert walked[:, :2].std() < maps[:, :2].std()
    alone = random_walk(maps[1:], affinity[1:], offsets)
    torch.testing.assert_close(walked[1:], alone)


def test_mirrored_features_give_mirrored_maps():
    offsets, features = pair_offsets(4), features_of(6, 5)
    maps = features_of(6, 5, d=2, seed=7)
    one, other = (
        random_walk(m, pair_affinity(pair_distance(f, offsets)), offsets, 2, 20)
        for f, m in ((features, maps), (features.flip(-1), maps.flip(-1)))
    )
    torch.testing.assert_close(one, other.flip(-1))


def test_autocast_does_not_touch_the_arithmetic():
    offsets, features = pair_offsets(3), features_of(5, 5).float()
    plain = pair_distance(features, offsets)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(pair_distance(features, offsets), plain)
        walked = random_walk(features, pair_affinity(plain), offsets)
    assert torch.equal(walked, random_walk(features, pair_affinity(plain), offsets))


@pytest.mark.parametrize(
    ("name", "widths"), [("toy_cnn", (4, 4, 8)), ("toy_mit", (4, 8)), ("toy_vit", (8,))]
)
@pytest.mark.parametrize("size", [(48, 64), (37, 59)])
def test_any_backbone_any_size(name, widths, size):
    torch.manual_seed(0)
    network = AffinityNetwork(build_backbone(name), widths).eval()
    images = torch.rand(2, 3, *size)
    with torch.no_grad():
        features = network(images)
        grid = network.backbone(images).last.shape[-2:]
    assert features.shape == (2, sum(widths), *grid)
    walked = network.propagate(images, torch.rand(2, 4, *size), steps=3)
    assert walked.shape == (2, 4, *size)
    assert walked.isfinite().all()


def test_batch_norms_stay_as_they_are():
    network = AffinityNetwork(build_backbone("toy_cnn"), (4, 4, 8))
    network.train()
    before = {k: v.clone() for k, v in network.backbone.state_dict().items() if "running" in k}
    assert before
    network(torch.rand(2, 3, 48, 48))
    after = network.backbone.state_dict()
    assert all(torch.equal(value, after[key]) for key, value in before.items())
    groups = network.param_groups(1.0, 10.0, 0.1)
    trained = {id(p) for group in groups for p in group["params"]}
    assert trained == {id(p) for p in network.parameters() if p.requires_grad}
    assert {group["lr"] for group in groups} == {1.0, 10.0}
    free = AffinityNetwork(build_backbone("toy_cnn"), (4,), freeze_norm=False).train()
    assert all(m.training for m in free.modules())


def test_it_learns_an_edge_and_maps_stop_there():
    """Two halves, each labelled on a strip only; a seed spreads over its own half."""
    torch.manual_seed(0)
    network = AffinityNetwork(build_backbone("toy_cnn"), (8, 8, 16), radius=4).train()
    image = torch.zeros(1, 3, 64, 64)
    image[:, 0, :, :32], image[:, 2, :, 32:] = 1, 1
    image += 0.05 * torch.randn(image.shape)
    label = torch.full((1, 64, 64), IGNORE)
    label[:, 16:48, 16:32], label[:, 16:48, 32:48] = 1, 0
    optimizer = torch.optim.Adam([p for p in network.parameters() if p.requires_grad], 3e-3)
    losses = []
    for step in range(25):
        loss = network.training_step({"images": image, "masks": label, "tags": None}, step).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]
    network.eval()
    maps = torch.zeros(1, 1, 64, 64)
    maps[:, :, 24:40, 8:24] = 1
    walked = network.propagate(image, maps, power=8, steps=64)[0, 0]
    assert walked[:8, :24].mean() > 5 * walked[:, 40:].mean()
    assert walked[:8, :24].mean() > 0.01  # where the map was 0


def test_bad_input():
    offsets = pair_offsets(3)
    affinity = torch.ones(1, len(offsets), 4, 4)
    kinds = pair_kinds(torch.zeros(1, 4, 4, dtype=torch.long), offsets)
    for call, message in (
        (lambda: pair_offsets(1), "radius must be above 1"),
        (lambda: pair_offsets(float("nan")), "radius must be above 1"),
        (lambda: pair_distance(torch.ones(3, 4, 4), offsets), "features must be"),
        (lambda: pair_kinds(torch.zeros(4, 4, dtype=torch.long), offsets), "label must be"),
        (lambda: pair_kinds(torch.zeros(1, 4, 4), offsets), "label must be integers"),
        (lambda: pair_loss(torch.ones(1, 2, 4, 4), kinds), "pairs must have the shape"),
        (lambda: transition(affinity[:, :3], offsets), "one map per offset"),
        (lambda: transition(affinity, offsets, -1), "power must be at least 0"),
        (lambda: random_walk(torch.ones(1, 2, 4, 5), affinity, offsets), "maps must be"),
        (lambda: random_walk(torch.ones(2, 2, 4, 4), affinity, offsets), "maps must be"),
        (lambda: random_walk(affinity, affinity, offsets, steps=-1), "steps must be at least 0"),
        (lambda: AffinityNetwork(build_backbone("toy_cnn"), ()), "widths must name 1 to 3 maps"),
        (lambda: AffinityNetwork(build_backbone("toy_cnn"), (1,) * 4), "widths must name"),
        (lambda: AffinityNetwork(build_backbone("toy_cnn")).predict(None), "not their classes"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
