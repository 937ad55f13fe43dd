"""The permutohedral lattice's geometry: the simplex around a point, its corners and neighbours."""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor


def elevate(features: Float[Tensor, "d n"]) -> Float[Tensor, "d1 n"]:
    """Embed into the hyperplane `sum = 0` of d1 = d + 1 dimensions, with the lattice's spacing.

    Column sums are taken in the order of the C++ originals, so float32 rounds as theirs does.
    """
    d = features.shape[0]
    # through a tensor: rounded to float32 once, as the C++ constant is
    spacing = torch.tensor(math.sqrt(2 / 3) * (d + 1), dtype=features.dtype).item()
    total = torch.zeros_like(features[0])
    elevated = [total] * (d + 1)
    for j in range(d, 0, -1):
        scaled = features[j - 1] * (spacing / math.sqrt(j * (j + 1)))
        elevated[j] = total - j * scaled
        total = total + scaled
    elevated[0] = total
    return torch.stack(elevated)


def enclosing_simplex(
    elevated: Float[Tensor, "d1 n"],
) -> tuple[Int[Tensor, "d1 n"], Int[Tensor, "d1 n"], Float[Tensor, "d1 n"]]:
    """Return the nearest remainder-0 point, rank of the residuals and barycentric weights.

    Returns:
        cell: the remainder-0 corner divided by d + 1.
        rank: rank of each coordinate's residual, 0 for the largest.
        weight: weight of the corner with remainder m, for m = 0..d; they sum to 1.
    """
    size = elevated.shape[0]
    cell = torch.round(elevated * (1 / size))
    residual = elevated - size * cell
    rank = torch.zeros_like(elevated, dtype=torch.long)
    for i in range(size):
        for j in range(i + 1, size):  # ties: the earlier coordinate comes first
            less = residual[i] < residual[j]
            rank[i] += less
            rank[j] += ~less
    rank += cell.sum(0).long()  # move back onto the hyperplane `sum = 0`
    below, above = rank < 0, rank >= size  # these coordinates move by one cell, the others stay
    rank += size * below.long() - size * above.long()
    cell = cell + below.to(cell.dtype) - above.to(cell.dtype)
    part = (elevated - size * cell) * (1 / size)
    part = torch.zeros_like(part).scatter_(0, rank, part)  # largest residual first
    # barycentric weights are the gaps between sorted residuals, so they sum to 1
    weight = torch.cat([1 + part[-1:] - part[:1], (part[:-1] - part[1:]).flip(0)])
    return cell.long(), rank, weight


def number_corners(
    cell: Int[Tensor, "d1 n"], rank: Int[Tensor, "d1 n"], image: Int[Tensor, " n"]
) -> tuple[Int[Tensor, "d1 n"], Int[Tensor, " d1"], Int[Tensor, " d"]]:
    """Number the corners such that the neighbour along axis j is `step[j]` away.

    A lattice point p has p_0 = ... = p_d modulo d + 1, so u_i = (p_{i+1} - p_i) / (d + 1) for
    i < d are integers that identify it. They become the digits of one number, with room for a
    neighbour on each side. Along axis j u_{j-1} and u_j change by one each: a constant step. The
    corner with remainder m + 1 is the corner m moved along the axis of rank d - m.
    """
    size = cell.shape[0]
    digit = cell[1:] - cell[:-1]
    low = digit.amin(1, keepdim=True) - 2
    extent = digit.amax(1) - low[:, 0] + 3
    ends = extent.flip(0).cumprod(0).flip(0)  # the first coordinate is the slowest
    stride = torch.cat([ends[1:], ends.new_ones(1)])
    none = stride.new_zeros(1)
    step = torch.cat([stride, none]) - torch.cat([none, stride])
    by_rank = torch.empty_like(rank).scatter_(0, rank, step[:, None].expand_as(rank))
    first = ((digit - low) * stride[:, None]).sum(0) + image * ends[0]
    moves = torch.cat([first[None], by_rank.flip(0)[: size - 1]])
    return moves.cumsum(0), step, extent


def find_neighbours(corner: Int[Tensor, " m"], step: Int[Tensor, " a"]) -> Int[Tensor, "a m+1 3"]:
    """Return, per axis and corner, itself and its two neighbours; row m means "no such corner"."""
    m = corner.numel()
    itself = torch.arange(m + 1, device=corner.device, dtype=torch.int32)
    target = corner + step[:, None]
    place = torch.searchsorted(corner, target).clamp_(max=m - 1)
    there = corner[place] == target
    up = itself.new_full((step.numel(), m + 1), m)
    up[:, :m] = torch.where(there, place.int(), m)
    down = torch.full_like(up, m)  # inverse of `up`: saves a second search
    down.scatter_(1, up.long(), itself.expand_as(up))
    down[:, m] = m
    return torch.stack([itself.expand_as(up), up, down], dim=2)
