"""The permutohedral lattice against a slow one with a dictionary, and against the exact sum."""

import math
from collections import defaultdict

import pytest
import torch

from wsss_lab.refine import Lattice, bilateral_features, exact_filter, spatial_features


def slow_lattice(features, values):
    """Adams et al. 2010 for one image, point by point; (d, n) and (c, n) in float64."""
    d, n = features.shape
    grid = defaultdict(lambda: torch.zeros(len(values), dtype=torch.float64))
    corners = []
    for i in range(n):
        # the basis: column j is 1 in rows <= j and -(j + 1) in row j + 1, scaled to one length
        point = [0.0] * (d + 1)
        for j in range(d):
            share = (
                float(features[j, i]) * math.sqrt(2 / 3) * (d + 1) / math.sqrt((j + 1) * (j + 2))
            )
            for row in range(j + 1):
                point[row] += share
            point[j + 1] -= (j + 1) * share
        # the nearest point whose coordinates are multiples of d + 1 and sum to zero
        base = [(d + 1) * round(p / (d + 1)) for p in point]
        by_residual = sorted(range(d + 1), key=lambda k: base[k] - point[k])
        surplus = sum(base) // (d + 1)
        for k in by_residual[len(by_residual) - surplus :] if surplus > 0 else []:
            base[k] -= d + 1
        for k in by_residual[:-surplus] if surplus < 0 else []:
            base[k] += d + 1
        order = sorted(range(d + 1), key=lambda k: base[k] - point[k])  # largest residual first
        residual = [(point[k] - base[k]) / (d + 1) for k in order]
        mine = []
        for m in range(d + 1):  # corner m: m added everywhere, d + 1 taken from the m smallest
            low = set(order[d + 1 - m :])
            key = tuple(base[k] + m - (d + 1) * (k in low) for k in range(d + 1))
            if m == 0:
                weight = 1 - residual[0] + residual[d]
            else:
                weight = residual[d - m] - residual[d - m + 1]
            mine.append((key, weight))
            grid[key] = grid[key] + weight * values[:, i]
        corners.append(mine)
    slow_blur(grid, d)
    out = [sum(weight * grid[key] for key, weight in mine) for mine in corners]
    return torch.stack(out, 1) / (1 + 2.0**-d)


def slow_blur(grid, d):
    """[1/2, 1, 1/2] along each direction, in place; corners that are not there count as zero."""
    for j in range(d + 1):
        move = [-1] * (d + 1)
        move[j] = d
        old = dict(grid)
        for key in old:
            for sign in (1, -1):
                other = old.get(tuple(k + sign * s for k, s in zip(key, move, strict=True)))
                if other is not None:
                    grid[key] = grid[key] + other / 2


def picture(b=2, h=9, w=11):
    """Two colour regions with a little noise, float in 0..255."""
    image = torch.full((b, 3, h, w), 60.0) + 6 * torch.randn(b, 3, h, w)
    image[..., w // 2 :] += 80
    return image.clamp(0, 255)


@pytest.mark.parametrize("d", [1, 2, 3, 5])
@pytest.mark.parametrize("spread", [0.5, 3.0])
def test_equals_a_slow_lattice(d, spread):
    features = spread * torch.randn(2, d, 40, dtype=torch.float64)
    values = torch.randn(2, 3, 40, dtype=torch.float64)
    out = Lattice(features).filter(values)
    for i in range(2):
        torch.testing.assert_close(out[i], slow_lattice(features[i], values[i]))


def test_float32_is_close_to_float64():
    features = bilateral_features(picture(), 8.0, 15.0)
    values = torch.rand(2, 4, 9, 11)
    single = Lattice(features).filter(values)
    double = Lattice(features.double()).filter(values.double())
    assert single.dtype == torch.float32
    assert double.dtype == torch.float64
    torch.testing.assert_close(single.double(), double, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("d", [2, 5])
def test_follows_the_exact_sum(d):
    """About half of it in five dimensions, and nearly proportional to it."""
    image = picture(1, 24, 28)
    features = spatial_features((24, 28), 6.0) if d == 2 else bilateral_features(image, 20.0, 15.0)
    values = torch.rand(1, 3, 6, 7).repeat_interleave(4, 2).repeat_interleave(4, 3)
    fast = Lattice(features).filter(values).flatten()
    exact = exact_filter(features.flatten(2), values.flatten(2)).flatten()
    assert torch.corrcoef(torch.stack([fast, exact]))[0, 1] > 0.94
    low, high = (0.7, 1.2) if d == 2 else (0.4, 0.75)
    assert low < (fast / exact).median() < high


def test_gradients():
    lattice = Lattice(1.5 * torch.randn(2, 3, 4, 3, dtype=torch.float64))
    values = torch.randn(2, 2, 4, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lattice.filter, values)
    assert torch.autograd.gradgradcheck(lattice.filter, values)


def test_transpose_is_the_adjoint():
    lattice = Lattice(2 * torch.randn(1, 4, 50, dtype=torch.float64))
    x, y = torch.randn(2, 50, 3, dtype=torch.float64)
    forward = (y * lattice.filter_rows(x)).sum()
    torch.testing.assert_close(forward, (x * lattice.filter_rows(y, transpose=True)).sum())
    # the order of the blurs matters, so the filter is not its own adjoint
    assert not torch.allclose(lattice.filter_rows(x), lattice.filter_rows(x, transpose=True))


def test_batch_equals_single_images():
    features = bilateral_features(picture(3), 8.0, 15.0)
    values = torch.rand(3, 4, 9, 11)
    together = Lattice(features).filter(values)
    for i in range(3):
        alone = Lattice(features[i : i + 1]).filter(values[i : i + 1])
        torch.testing.assert_close(together[i : i + 1], alone)


def test_equal_images_of_a_batch_do_not_mix():
    features = bilateral_features(picture(1).expand(2, -1, -1, -1), 8.0, 15.0)
    values = torch.zeros(2, 1, 9, 11)
    values[0] = 1
    out = Lattice(features).filter(values)
    assert (out[0] > 0).all()
    assert (out[1] == 0).all()


def test_channels_are_filtered_alike():
    lattice = Lattice(bilateral_features(picture(), 8.0, 15.0))
    values, order = torch.rand(2, 5, 9, 11), torch.tensor([3, 0, 4, 1, 2])
    torch.testing.assert_close(lattice.filter(values)[:, order], lattice.filter(values[:, order]))


def test_constants_stay_constant_after_normalisation():
    lattice = Lattice(bilateral_features(picture(), 8.0, 15.0))
    ones = torch.ones(2, 1, 9, 11)
    ratio = lattice.filter(7 * ones) / lattice.filter(ones)
    torch.testing.assert_close(ratio, 7 * ones)


def test_far_apart_points_keep_to_themselves():
    out = Lattice(torch.tensor([[[0.0, 1000.0], [0.0, -500.0]]])).filter(torch.eye(2)[None])
    assert (out[0].diagonal() > 0).all()
    assert out[0, 0, 1] == out[0, 1, 0] == 0


def test_autocast_leaves_float32():
    lattice = Lattice(bilateral_features(picture(), 8.0, 15.0))
    values = torch.rand(2, 2, 9, 11)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = lattice.filter(values)
    assert torch.equal(inside, lattice.filter(values))
    assert lattice.filter(values.bfloat16()).dtype == torch.float32


def test_twice_the_same_bits():
    features, values = bilateral_features(picture(), 8.0, 15.0), torch.rand(2, 2, 9, 11)
    assert torch.equal(Lattice(features).filter(values), Lattice(features).filter(values))


@pytest.mark.parametrize(
    ("features", "words"),
    [
        (torch.zeros(5, 9), r"features: expected \(batch.*features\[None\]"),
        (torch.zeros(1, 5, 0), "empty"),
        (torch.zeros(1, 2, 9, dtype=torch.long), "float32 or float64"),
        (torch.zeros(1, 2, 9, dtype=torch.half), "float32 or float64"),
        (torch.full((1, 2, 9), math.nan), "NaN"),
        (torch.eye(5)[None] * 1e6, "within 1"),
        (torch.eye(5)[None] * 9e4, "lattice cells"),
    ],
)
def test_bad_features(features, words):
    with pytest.raises(ValueError, match=words):
        Lattice(features)


@pytest.mark.parametrize("bad", [math.nan, math.inf, 1e30])
def test_where_values_go_unchecked_nan_comes_out(monkeypatch, bad):
    """As on a GPU, where a check would have to wait for the device."""
    monkeypatch.setattr("wsss_lab.refine.lattice._check_features", lambda features: None)
    features = bilateral_features(picture(), 8.0, 15.0)
    features[1, 3, 4, 5] = bad
    values = torch.rand(2, 2, 9, 11)
    lattice = Lattice(features)
    assert lattice.filter(values)[1, :, 4, 5].isnan().all()
    clean = lattice.filter_rows(values.flatten(2).transpose(1, 2).flatten(0, 1))[: 9 * 11]
    assert clean.isfinite().all()  # the other image is not touched


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (torch.zeros(1, 2, 9, 11), "batch 2"),
        (torch.zeros(2, 2, 11, 9), r"grid \(9, 11\)"),
        (torch.zeros(2, 9), "channels"),
        (torch.full((2, 1, 9, 11), math.inf), "infinity"),
        (torch.zeros(2, 1, 9, 11, device="meta"), "device"),
    ],
)
def test_bad_values(values, words):
    lattice = Lattice(bilateral_features(picture(), 8.0, 15.0))
    with pytest.raises(ValueError, match=words):
        lattice.filter(values)
