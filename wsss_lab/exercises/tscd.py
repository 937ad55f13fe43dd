"""Exercises of the chapter on self correspondence distillation."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from wsss_lab.exercises import register
from wsss_lab.methods.tscd.losses import scd_loss
from wsss_lab.methods.tscd.views import sample_points

OBJECT = 0.2
POINTS = 40 * 40

Loss = Callable[[Tensor, Tensor], Tensor]
Sample = Callable[[Tensor, float, float], Tensor]
Shares = Callable[[Mapping[str, Tensor], Sequence[Tensor]], Mapping[str, float]]


def _source(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _near(answer: Any, expected: tuple[float, ...], within: float = 1e-3) -> bool:
    """Compare numbers, by default to three digits."""
    given = torch.as_tensor(answer, dtype=torch.float64).flatten()
    wanted = torch.tensor(expected, dtype=torch.float64)
    return given.shape == wanted.shape and bool(((given - wanted).abs() <= within).all())


register(
    "tscd-1",
    accepts=lambda answer: _near(answer, (1 / 2**0.5,)),
    hint="Lengths first: the corner of the sail has one entry of a half, the other place has two.",
    right=lambda: 0.125 / (0.5 * (0.25**2 + 0.25**2) ** 0.5),
    wrong=lambda: 0.5 * 0.25,  # a dot product without lengths
)


def _sample(maps: Tensor, x: float, y: float, rim: int = 1) -> Tensor:
    h, w = maps.shape[-2:]
    # rim 0 is the other convention, in which -1 and 1 are the edges of the image
    right, down = ((s + 1) / 2 * (n - rim) - (1 - rim) / 2 for s, n in ((x, w), (y, h)))
    right, down = min(max(right, 0.0), w - 1.0), min(max(down, 0.0), h - 1.0)
    left, top = min(int(right), w - 2), min(int(down), h - 2)
    fx, fy = right - left, down - top
    rows = maps[:, top] * (1 - fy) + maps[:, top + 1] * fy
    return rows[:, left] * (1 - fx) + rows[:, left + 1] * fx


def _is_sample(function: Sample) -> bool:
    """Check agreement with the library inside and at the corners of a map that is not square."""
    maps = torch.rand(3, 5, 7, generator=_source(0))
    for x, y in ((0.3, -0.6), (-0.71, 0.2), (0.0, 0.0), (-1.0, -1.0), (1.0, 1.0)):
        point = torch.tensor([x, y]).view(1, 1, 1, 2)
        given = torch.as_tensor(function(maps, x, y)).flatten()
        expected = sample_points(maps[None], point).flatten()
        if given.shape != expected.shape or not torch.allclose(given, expected, atol=1e-5):
            return False
    return True


register(
    "tscd-2",
    accepts=_is_sample,
    hint="-1 and 1 are the centres of the first and last pixel; the last has no right neighbour.",
    right=lambda: _sample,
    wrong=lambda: lambda maps, x, y: _sample(maps, x, y, rim=0),
)


def _loss(map_cos: Tensor, seg_cos: Tensor, add: bool = True) -> Tensor:
    target = map_cos - map_cos.mean(dim=2, keepdim=True)
    return -(seg_cos.clamp(min=0) * (target + add * map_cos.mean())).mean()


def _is_loss(function: Loss) -> bool:
    """Check agreement with the library for a batch, in value and in slope."""
    maps = torch.rand(2, 6, 8, generator=_source(1)).requires_grad_()
    seg = (2 * torch.rand(2, 6, 8, generator=_source(2)) - 1).requires_grad_()
    given = function(maps.detach(), seg)
    (slope,) = torch.autograd.grad(given, seg)
    (expected,) = torch.autograd.grad(scd_loss(maps, seg), seg)
    level = scd_loss(maps.detach(), seg.detach())
    same = torch.allclose(given.detach(), level, atol=1e-5)
    return given.ndim == 0 and same and torch.allclose(slope, expected, atol=1e-6)


register(
    "tscd-3",
    accepts=_is_loss,
    hint="The mean of a row goes, the mean of everything comes back; then clamp which of the two?",
    right=lambda: _loss,
    wrong=lambda: lambda map_cos, seg_cos: _loss(map_cos, seg_cos, add=False),
)


def _slopes(clamp: bool = True) -> tuple[float, ...]:
    """Return the gradient of the loss at four pairs: targets and cosines as in the exercise."""
    target = (0.5, 0.5, -0.2, -0.2)
    cosine = (0.3, -0.1, 0.6, -0.4)
    return tuple(-t / 4 * (c > 0 or not clamp) for t, c in zip(target, cosine, strict=True))


register(
    "tscd-4",
    accepts=lambda answer: _near(answer, _slopes(), 1e-4),
    hint="The loss is a mean of four; where the clamp cuts, it is flat. Mind the sign.",
    right=_slopes,
    wrong=lambda: _slopes(clamp=False),
)


def _counts() -> tuple[float, ...]:
    both, neither = OBJECT**2, (1 - OBJECT) ** 2
    return both, neither, 1 - both - neither, 1 / POINTS


register(
    "tscd-5",
    accepts=lambda answer: _near(answer, _counts(), 2e-5),
    hint="The two points are drawn independently; of n times n pairs, how many are p = q?",
    right=_counts,
    wrong=lambda: (OBJECT, 1 - OBJECT, 0.0, 1.0),  # as if pairs were the same place
)


def _shares(terms: Mapping[str, Tensor], parameters: Sequence[Tensor]) -> dict[str, float]:
    norms = {}
    for name, term in terms.items():
        found = torch.autograd.grad(term, parameters, retain_graph=True, allow_unused=True)
        norms[name] = sum(float(g.square().sum()) for g in found if g is not None) ** 0.5
    return {name: norm / sum(norms.values()) for name, norm in norms.items()}


def _sizes(terms: Mapping[str, Tensor], parameters: Sequence[Tensor]) -> dict[str, float]:
    """Make the likely mistake: the size of a term is taken for its gradient."""
    total = sum(float(term.detach().abs()) for term in terms.values())
    return {name: float(term.detach().abs()) / total for name, term in terms.items()}


def _are_shares(function: Shares) -> bool:
    """Check norms over several parameters, one of which gets no gradient from a term."""
    one = torch.tensor([1.0, 2.0], requires_grad=True)
    two = torch.tensor([3.0], requires_grad=True)
    terms = {"a": 3 * one[0] + 4 * two[0], "b": 5 * one.sum() + 100, "c": 2 * two.sum()}
    given = function(terms, [one, two])
    lengths = {"a": 5.0, "b": 50**0.5, "c": 2.0}
    total = sum(lengths.values())
    same = [abs(float(given[name]) - length / total) < 1e-4 for name, length in lengths.items()]
    return len(given) == len(terms) and all(same)


register(
    "tscd-6",
    accepts=_are_shares,
    hint="Length over all parameters together; a term need not reach each of them (allow_unused).",
    right=lambda: _shares,
    wrong=lambda: _sizes,
)


def _band(share: float = OBJECT) -> tuple[float, float]:
    """Return the shifts between which all four kinds of pairs have the right sign."""
    mean = share**2 + (1 - share) ** 2
    return mean - share, mean + share  # object with background; background with itself


register(
    "tscd-7",
    accepts=lambda answer: _near(answer, _band(), 5e-3),
    hint="Rows of the object have the mean 0.2, those of the background 0.8; what is that of all?",
    right=_band,
    wrong=lambda: (-0.2, 0.2),  # the mean of everything is not added back
)


register(
    "tscd-8",
    accepts=lambda answer: _near(answer, (0.5,), 5e-3),
    hint="The target of object and background in an object's row is -s + s^2 + (1 - s)^2.",
    right=lambda: 0.5,
    wrong=lambda: 1.0,  # the other root
)
