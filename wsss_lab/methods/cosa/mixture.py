"""Thresholds from a set of values: Gaussian mixtures, and the best split in two.

| function | source |
|---|---|
| `fit_mixture`, `mixture_bands` | CoSA, released code: three Gaussians, two thresholds |
| `mixture_split` | CoSA, released code: two Gaussians, one threshold |
| `best_split` | ours: minimum error thresholding (Kittler & Illingworth 1986) |

Nothing here copies to the host on an accelerator.
"""

import math
from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


class Mixture(NamedTuple):
    """A one-dimensional Gaussian mixture; components in the order of their starting means."""

    weights: Float[Tensor, "m"]
    means: Float[Tensor, "m"]
    variances: Float[Tensor, "m"]
    n_iter: Int[Tensor, ""]

    def log_joint(self, values: Float[Tensor, "n"]) -> Float[Tensor, "m n"]:
        """Return the logarithm of weight times density, per component and value."""
        precision = self.variances.reciprocal()[:, None]
        constant = self.weights.log() - 0.5 * (self.variances.log() + math.log(2 * math.pi))
        return constant[:, None] - 0.5 * precision * (values - self.means[:, None]).square()


def _starting_means(
    x: Float[Tensor, "n"], used: Float[Tensor, "n"], components: int
) -> Float[Tensor, "m"]:
    """Return minimum, (median,) and maximum of the values whose `used` is not 0."""
    n = used.sum().long()  # stays on the device, hence the clamps instead of slices
    ordered = x.masked_fill(used == 0, math.inf).sort().values
    median = ordered[((n - 1) // 2).clamp(min=0)] / 2 + ordered[(n // 2).clamp(max=len(x) - 1)] / 2
    top = ordered[(n - 1).clamp(min=0)]
    return torch.stack([ordered[0], median, top] if components == 3 else [ordered[0], top])


@torch.no_grad()
def fit_mixture(
    values: Float[Tensor, "..."],
    keep: Bool[Tensor, "..."] | None = None,
    components: Literal[2, 3] = 3,
    *,
    max_iter: int = 100,
    tol: float = 1e-3,
    start_variance: float = 1.0,
    floor: float = 1e-6,
    stop_early: bool | None = None,
) -> Mixture:
    """Fit Gaussians by expectation maximisation, with the start of CoSA's released code.

    Equal weights; means at minimum, (median,) maximum; variance 1, far wider than values in 0..1.
    From there the likelihood rises so slowly that `tol` stops it within a few iterations, with
    means that nearly coincide: as released, this is not the best-fitting mixture. A smaller `tol`
    and a `start_variance` of 0.01 get close to it.

    The number of iterations depends on the data. On a CPU the loop ends when it has converged; on
    an accelerator all `max_iter` iterations run and those after convergence change nothing, because
    a test would copy to the host.

    Args:
        values: any shape.
        keep: values that count; None keeps all.
        components: 2 or 3.
        max_iter: iterations at most.
        tol: stop when the mean log-likelihood changes by less.
        start_variance: of every component.
        floor: added to every variance.
        stop_early: leave the loop once converged; None decides by device as above.

    Returns:
        The mixture, in the precision of `values`; not a number if nothing is kept.

    Source:
        CoSA, released code, through scikit-learn's `GaussianMixture`.
    """
    if components not in (2, 3):
        raise ValueError(f"components must be 2 or 3, got {components}")
    stop_early = values.device.type == "cpu" if stop_early is None else stop_early
    x = values.flatten()
    used = torch.ones_like(x) if keep is None else keep.flatten().to(x.dtype)
    count = used.sum()
    means = _starting_means(x, used, components)
    tiny = 10 * torch.finfo(x.dtype).eps
    fit = Mixture(
        torch.full_like(means, 1 / components),
        means,
        torch.full_like(means, start_variance),
        torch.zeros((), dtype=torch.long, device=x.device),
    )
    bound = x.new_tensor(-math.inf)
    done = torch.zeros((), dtype=torch.bool, device=x.device)
    for _ in range(max_iter):
        joint = fit.log_joint(x)
        evidence = joint.logsumexp(0)
        share = (joint - evidence).exp() * used
        mass = share.sum(1) + tiny
        means = (share @ x) / mass
        spread = (share * (x - means[:, None]).square()).sum(1) / mass + floor
        new_bound = (evidence * used).sum() / count
        fresh = Mixture(mass / mass.sum(), means, spread, fit.n_iter + 1)
        fit = Mixture(*(torch.where(done, old, new) for old, new in zip(fit, fresh, strict=True)))
        done = done | ((new_bound - bound).abs() < tol)
        bound = new_bound
        if stop_early and bool(done):
            break
    return fit


@torch.no_grad()
def mixture_bands(
    values: Float[Tensor, "..."], mixture: Mixture, keep: Bool[Tensor, "..."] | None = None
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """Return (low, high): the largest value of the first component, the smallest of the last.

    Every value goes to its most probable component. Infinite if such a component got nothing.

    Source: CoSA, released code (option, off in the logged runs).
    """
    x = values.flatten()
    member = mixture.log_joint(x).argmax(0)
    kept = torch.ones_like(member, dtype=torch.bool) if keep is None else keep.flatten()
    first = kept & (member == 0)
    last = kept & (member == len(mixture.means) - 1)
    low = x.masked_fill(~first, -math.inf).amax()
    high = x.masked_fill(~last, math.inf).amin()
    return low, high


def mixture_split(
    values: Float[Tensor, "..."], keep: Bool[Tensor, "..."] | None = None
) -> Float[Tensor, ""]:
    """Return the largest value of the lower of two Gaussians as a threshold.

    Source: CoSA, released code (a function no run uses).
    """
    return mixture_bands(values, fit_mixture(values, keep, 2), keep)[0]


@torch.no_grad()
def best_split(
    values: Float[Tensor, "..."],
    keep: Bool[Tensor, "..."] | None = None,
    least_share: float = 0.01,
) -> Float[Tensor, ""]:
    """Find the split whose two sides, each with a Gaussian of its own, are most likely.

    All splits between neighbouring values are tried at once with running sums, so there is no
    starting point and nothing to converge.

    Args:
        values: any shape; best in float64, since running sums lose digits.
        keep: values that count; None keeps all.
        least_share: each side must have at least this share of the values, 0..0.5. Two equal
            values alone would otherwise make a side of variance 0 and infinite likelihood.

    Returns:
        The largest value of the lower side; not a number if fewer than two values count.

    Source:
        Ours; the criterion is minimum error thresholding (Kittler & Illingworth 1986). The paper
        describes a single searched threshold without details we could verify.
    """
    x = values.flatten()
    used = torch.ones_like(x, dtype=torch.bool) if keep is None else keep.flatten()
    n = used.sum()
    ordered = x.masked_fill(~used, math.inf).sort().values
    rank = torch.arange(1, len(x) + 1, device=x.device, dtype=x.dtype)
    real = rank <= n
    centre = torch.where(used, x, 0).sum() / n.clamp(min=1)
    z = torch.where(real, ordered - centre, 0)
    sums, squares = z.cumsum(0), z.square().cumsum(0)
    rest = (n - rank).clamp(min=1)
    below = (squares / rank - (sums / rank).square()).clamp(min=1e-8)
    above = ((squares[-1] - squares) / rest - ((sums[-1] - sums) / rest).square()).clamp(min=1e-8)
    score = rank * (rank.log() - below.log() / 2) + rest * (rest.log() - above.log() / 2)
    least = (least_share * n).clamp(min=1)
    score = score.masked_fill((rank < least) | (n - rank < least), -math.inf)
    best = score.argmax()
    return torch.where(score[best].isfinite(), ordered[best], math.nan)
