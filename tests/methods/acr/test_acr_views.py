"""Views and their attention: against loops, and on a network equivariant by construction."""

import pytest
import torch

from wsss_lab.methods.acr.alignment import align_attention, align_pair
from wsss_lab.methods.acr.views import Flip, Scale, Shift, Turn, View, overlap

GRIDS = [(4, 4), (3, 5), (6, 2)]
PERMUTATIONS = [Flip(), Flip("height"), Turn(1), Turn(2), Turn(-1), Turn(3)]
STRIDE = 4


def attention_of(images, prefix=1, seed=0):
    """One attention head on mean colours: permuting the patches permutes it, no positions."""
    g = torch.Generator().manual_seed(seed)
    query, key = (torch.randn(8, 3, generator=g).to(images) for _ in range(2))
    special = torch.randn(prefix, 3, generator=g).to(images)
    patches = torch.nn.functional.avg_pool2d(images, STRIDE).flatten(2).transpose(1, 2)
    tokens = torch.cat([special.expand(len(images), -1, -1), patches], 1)
    return ((tokens @ query.T) @ (tokens @ key.T).mT).softmax(-1)


def pictures(grid, b=2):
    return torch.randn(b, 3, grid[0] * STRIDE, grid[1] * STRIDE, dtype=torch.float64)


@pytest.mark.parametrize("grid", GRIDS, ids=str)
@pytest.mark.parametrize("view", PERMUTATIONS, ids=str)
@pytest.mark.parametrize("prefix", [0, 1, 2])
def test_an_equivariant_network_is_aligned_exactly(grid, view, prefix):
    images = pictures(grid)
    seen = view.image(images, STRIDE)
    assert seen.shape[2:] == tuple(side * STRIDE for side in view.grid(grid))
    aligned = align_attention(attention_of(seen, prefix), view, grid, prefix)
    torch.testing.assert_close(aligned, attention_of(images, prefix))
    assert view.valid(grid).all()
    assert view.whole


@pytest.mark.parametrize("grid", GRIDS, ids=str)
@pytest.mark.parametrize("view", PERMUTATIONS, ids=str)
def test_the_inverse_undoes(grid, view):
    n = 1 + grid[0] * grid[1]
    attention = torch.rand(2, 3, n, n)
    there = align_attention(attention, view.inverse(), view.grid(grid))
    assert torch.equal(align_attention(there, view, grid), attention)
    images = pictures(grid)
    assert torch.equal(view.inverse().image(view.image(images, STRIDE), STRIDE), images)


@pytest.mark.parametrize("axis", ["width", "height"])
def test_a_flip_is_an_involution(axis):
    attention = torch.rand(1, 13, 13)
    once = align_attention(attention, Flip(axis), (3, 4))
    assert not torch.equal(once, attention)
    assert torch.equal(align_attention(once, Flip(axis), (3, 4)), attention)


def test_four_turns_are_none_and_two_are_both_flips():
    attention = torch.rand(1, 13, 13)
    x = attention
    for grid in [(4, 3), (3, 4), (4, 3), (3, 4)]:
        x = align_attention(x, Turn(1), grid)
    assert torch.equal(x, attention)
    both = align_attention(align_attention(attention, Flip(), (3, 4)), Flip("height"), (3, 4))
    assert torch.equal(align_attention(attention, Turn(2), (3, 4)), both)


def test_flip_by_hand():
    """Rows and columns of a 2x3 grid, one entry at a time."""
    gh, gw = 2, 3
    attention = torch.rand(1 + gh * gw, 1 + gh * gw)
    aligned = align_attention(attention, Flip(), (gh, gw))
    partner = [0] + [1 + r * gw + (gw - 1 - c) for r in range(gh) for c in range(gw)]
    for i in range(1 + gh * gw):
        for j in range(1 + gh * gw):
            assert aligned[i, j] == attention[partner[i], partner[j]]


@pytest.mark.parametrize(("down", "right"), [(1, 0), (0, -2), (-1, 1), (2, 3)])
def test_shift_by_hand(down, right):
    gh, gw = 3, 4
    view, n = Shift(down, right), gh * gw
    images = pictures((gh, gw), 1)
    moved = view.image(images, STRIDE)
    valid = view.valid((gh, gw)).view(gh, gw)
    attention = torch.rand(1 + n, 1 + n)
    aligned = align_attention(attention, view, (gh, gw))
    place = {}
    for r in range(gh):
        for c in range(gw):
            there = (r + down, c + right)
            shown = 0 <= there[0] < gh and 0 <= there[1] < gw
            assert valid[r, c] == shown
            if not shown:
                assert (aligned[1 + r * gw + c] == 0).all()
                assert (aligned[:, 1 + r * gw + c] == 0).all()
                continue
            place[1 + r * gw + c] = 1 + there[0] * gw + there[1]
            old, new = (
                x[..., i * STRIDE : (i + 1) * STRIDE, j * STRIDE : (j + 1) * STRIDE]
                for x, (i, j) in ((images, (r, c)), (moved, there))
            )
            assert torch.equal(old, new)
    place[0] = 0
    for i, source_i in place.items():
        for j, source_j in place.items():
            assert aligned[i, j] == attention[source_i, source_j]


def test_a_shift_that_leaves_nothing_and_one_that_moves_nothing():
    assert not Shift(5, 0).valid((3, 4)).any()
    assert (Shift(-9, 2).image(pictures((3, 4)), STRIDE) == 0).all()
    still, images = Shift(0, 0), pictures((3, 4))
    assert still.whole
    assert torch.equal(still.image(images, STRIDE), images)


@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_shifted_attention_agrees_on_common_tokens(grid):
    """A softmax over other tokens has another sum: rows must be renormalised to agree."""
    images, view = pictures(grid), Shift(1, -1)
    first, second = attention_of(images), attention_of(view.image(images, STRIDE))
    a, b, valid = align_pair(first, second, view, grid)
    torch.testing.assert_close(a[:, 0], b[:, 0])
    raw_a, raw_b, _ = align_pair(first, second, view, grid, renormalise=False)
    assert (raw_a[:, 0] - raw_b[:, 0]).abs().max() > 1e-3
    assert valid.sum() == (grid[0] - 1) * (grid[1] - 1)
    aligned = align_attention(second, view, grid)
    keep = torch.cat([torch.ones(1, dtype=torch.bool), valid])
    common = [x[:, keep][:, :, keep] for x in (first, aligned)]
    common = [x / x.sum(-1, keepdim=True) for x in common]
    torch.testing.assert_close(*common)


@pytest.mark.parametrize(("old", "new"), [(4, 4), (2, 6), (6, 2), (3, 5), (7, 4)])
def test_overlap_against_fine_cells(old, new):
    share = torch.tensor(overlap(old, new))
    fine = torch.zeros(new, old)
    for x in range(old * new):  # the segment in equal bits, each inside one cell of either grid
        fine[x // old, x // new] += 1 / new
    torch.testing.assert_close(share, fine)
    torch.testing.assert_close(share.sum(0), torch.ones(old))


@pytest.mark.parametrize("factor", [0.5, 0.75, 1.0, 1.25, 2.0])
@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_scaled_attention_keeps_its_mass_and_uniform_stays_uniform(factor, grid):
    view = Scale(factor)
    gh, gw = view.grid(grid)
    n, m = grid[0] * grid[1], gh * gw
    attention = torch.rand(2, 1 + m, 1 + m, dtype=torch.float64).softmax(-1)
    aligned = align_attention(attention, view, grid)
    assert aligned.shape == (2, 1 + n, 1 + n)
    torch.testing.assert_close(aligned.sum(-1), torch.ones(2, 1 + n, dtype=torch.float64))
    torch.testing.assert_close(aligned[:, 0, 0], attention[:, 0, 0])
    uniform = align_attention(torch.full((m, m), 1 / m), view, grid, prefix=0)
    torch.testing.assert_close(uniform, torch.full((n, n), 1 / n))
    images = view.image(pictures(grid), STRIDE)
    assert images.shape[2:] == (gh * STRIDE, gw * STRIDE)


@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_doubled_patches_align_exactly(grid):
    """Every patch four times: its copies share its attention."""
    images = pictures(grid)
    means = torch.nn.functional.avg_pool2d(images, STRIDE)
    doubled = means.repeat_interleave(2 * STRIDE, -1).repeat_interleave(2 * STRIDE, -2)
    aligned = align_attention(attention_of(doubled, 0), Scale(2.0), grid, prefix=0)
    torch.testing.assert_close(aligned, attention_of(images, 0))


@pytest.mark.parametrize("view", [Flip(), Turn(1), Shift(1, 0), Scale(0.5), Scale(1.5)], ids=str)
def test_gradients(view):
    grid = (2, 3)
    n = 1 + view.grid(grid)[0] * view.grid(grid)[1]
    attention = torch.rand(n, n, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda a: align_attention(a, view, grid), attention)


def test_bad_input():
    with pytest.raises(ValueError, match="multiples of the stride 4"):
        Flip().image(torch.rand(1, 3, 8, 10), 4)
    with pytest.raises(ValueError, match=r"must end in \(13, 13\)"):
        align_attention(torch.rand(1, 12, 12), Flip(), (3, 4))
    with pytest.raises(ValueError, match=r"must end in \(7, 7\)"):
        align_attention(torch.rand(1, 13, 13), Scale(0.5), (4, 6))
    with pytest.raises(ValueError, match="as many keys"):
        align_pair(torch.rand(13, 5), torch.rand(13, 13), Flip(), (3, 4))
    with pytest.raises(ValueError, match="axis: expected one of width, height"):
        Flip("depth")
    with pytest.raises(ValueError, match=r"factor: expected a number in \(0, 100\], got 0"):
        Scale(0.0)
    with pytest.raises(ValueError, match="through `restore`"):
        Scale().move(torch.rand(4, 4))
    for call in (View().inverse, lambda: View().move(torch.rand(2, 2))):
        with pytest.raises(TypeError, match="View"):
            call()
