"""Random walk of AffinityNet: class maps carried along the affinities of near cells."""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from wsss_lab.methods.common.affinity_pairs import Offsets, Shifted, pair_valid


def transition(
    affinity: Float[Tensor, "b m gh gw"], offsets: Offsets, power: float = 8.0
) -> tuple[Int[Tensor, "n j"], Float[Tensor, "b n j"]]:
    """Compute the row-normalised transition matrix of the walk, as lists of neighbours.

    T = D^-1 W^power with W_ii = 1 and D the row sums: T(i, j) is how much of cell j's value cell i
    takes over in a step.

    Args:
        affinity: 0..1, from `pair_affinity`.
        offsets: those of `affinity`.
        power: beta; lets weak affinities fade. 8 in the paper.

    Returns:
        For every cell its j = 2m + 1 neighbours (itself, second cells, first cells; itself again
        where there is none) and their weights, which sum to 1 (0 where there is none).

    Raises:
        ValueError: shapes disagree or the power is negative.
    """
    if affinity.ndim != 4 or affinity.shape[1] != len(offsets):
        raise ValueError(
            f"affinity must be (b, {len(offsets)}, gh, gw), one map per offset, got "
            f"{tuple(affinity.shape)}"
        )
    if power < 0:
        raise ValueError(f"power must be at least 0, got {power}; the paper: 8")
    gh, gw = affinity.shape[2:]
    inside = pair_valid(offsets, gh, gw).to(affinity.device)
    forth = torch.where(inside, affinity**power, 0.0)
    own = torch.arange(gh * gw, device=affinity.device).view(gh, gw)
    cell, strength = Shifted(own, offsets, -1), Shifted(forth, offsets)
    backwards = [(-dy, -dx) for dy, dx in offsets]
    back = [strength(*offset)[:, m] for m, offset in enumerate(backwards)]
    index = torch.stack([own, *(cell(*offset) for offset in (*offsets, *backwards))])
    index = torch.where(index < 0, own, index).flatten(1).T
    weight = torch.cat([torch.ones_like(forth[:, :1]), forth, torch.stack(back, 1)], 1)
    weight = weight.flatten(2).transpose(1, 2)
    return index.contiguous(), weight / weight.sum(2, keepdim=True)


@torch.no_grad()
def random_walk(
    maps: Float[Tensor, "b c gh gw"],
    affinity: Float[Tensor, "b m gh gw"],
    offsets: Offsets,
    power: float = 8.0,
    steps: int = 256,
) -> Float[Tensor, "b c gh gw"]:
    """Apply the transition matrix to every map, `steps` times.

    Each step replaces a value by a weighted mean of its neighbours', so values stay in their range
    and a constant map stays as it is. Memory: the neighbour lists, b * n * (2m + 1) weights.

    Args:
        maps: class scores on the grid of the affinity, background among them.
        affinity: 0..1, from `pair_affinity`.
        offsets: those of `affinity`.
        power: see `transition`.
        steps: t; 256 in the paper.

    Returns:
        float32 (float64 for float64 maps).

    Raises:
        ValueError: shapes disagree, or a number is negative.
    """
    if maps.ndim != 4 or (len(maps), *maps.shape[2:]) != (len(affinity), *affinity.shape[2:]):
        raise ValueError(
            f"maps must be (b, c, gh, gw) on the grid of affinity, {tuple(affinity.shape)}, got "
            f"{tuple(maps.shape)}; average them over the cells first"
        )
    if steps < 0:
        raise ValueError(f"steps must be at least 0, got {steps}; the paper: 256")
    kind = torch.float64 if maps.dtype == torch.float64 else torch.float32
    with torch.autocast(maps.device.type, enabled=False):
        index, weight = transition(affinity.to(kind), offsets, power)
        b, n, _ = weight.shape
        start = n * torch.arange(b, device=maps.device)[:, None, None]
        index, weight = (start + index).flatten(0, 1), weight.flatten(0, 1).contiguous()
        rows = maps.to(kind).flatten(2).transpose(1, 2).flatten(0, 1).contiguous()
        for _ in range(steps):
            rows = F.embedding_bag(index, rows, mode="sum", per_sample_weights=weight)
    return rows.view(b, n, -1).transpose(1, 2).unflatten(2, tuple(maps.shape[2:])).contiguous()
