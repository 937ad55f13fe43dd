"""Slow copies of fast things: a momentum teacher, a ring queue, and thresholds searched in it.

Everything that lasts from one step to the next is a buffer, so a checkpoint holds it and a resumed
run goes on as if nothing had happened. Nothing here copies to the host inside a step.

| what | where it comes from |
|---|---|
| `MomentumTeacher` | mean teacher (NeurIPS 2017, section 2); CoSA's assignment network |
| `fit_mixture`, `mixture_bands` | CoSA, released code: three Gaussians, two thresholds |
| `mixture_split` | CoSA, released code: two Gaussians, one threshold |
| `best_split` | ours: minimum error thresholding (Kittler & Illingworth 1986) |
"""

import math
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

Search = Literal["bands", "mixture", "split"]
SEARCHES: tuple[Search, ...] = ("bands", "mixture", "split")


class MomentumTeacher(nn.Module):
    """A network that follows another one and is never trained itself.

    Its weights are buffers under their usual names: they are in the `state_dict` and move with the
    module, but no optimiser and no gradient reduction sees them. It always runs in evaluation mode
    and without gradients.

    Args:
        network: becomes the teacher; its parameters turn into buffers. Pass a copy of the student
            (`copy.deepcopy`), or a network with weights of its own.
        decay: share of the old weights that a step keeps, 0..1 (CoSA 0.9994 in each step, from the
            first one on).

    Raises:
        ValueError: `decay` outside 0..1.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        super().__init__()
        if not 0 <= decay <= 1:
            raise ValueError(f"decay must lie in [0, 1], got {decay}; CoSA uses 0.9994")
        self.network = freeze_to_buffers(network)
        self.decay = decay
        self.eval()

    def train(self, mode: bool = True) -> "MomentumTeacher":
        """Stay in evaluation mode whatever is asked."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, *args: Tensor) -> Any:
        """Run the teacher."""
        return self.network(*args)

    @torch.no_grad()
    def update(self, student: nn.Module) -> None:
        """Move every weight by `1 - decay` towards the student; call it after the optimiser.

        The student's own buffers (running statistics) are copied. The released networks have none.

        Raises:
            ValueError: the student has a weight that the teacher lacks.
        """
        own = dict(self.network.named_buffers())
        fast = {name: weight.detach() for name, weight in student.named_parameters()}
        unknown = [name for name in fast if name not in own]
        if unknown:
            raise ValueError(
                f"student has {len(unknown)} weights that the teacher lacks ({unknown[0]}, ...); "
                "build both with the same arguments"
            )
        average = get_ema_multi_avg_fn(self.decay)
        average([own[name] for name in fast], list(fast.values()), 1)
        for name, value in student.named_buffers():
            own[name].copy_(value)


def freeze_to_buffers(network: nn.Module) -> nn.Module:
    """Turn every parameter into a buffer of the same name, in place."""
    for module in network.modules():
        for name, weight in list(module._parameters.items()):
            if weight is not None:
                del module._parameters[name]
                module.register_buffer(name, weight.detach().clone())
    return network


class RingQueue(nn.Module):
    """The latest `rows` rows of numbers; new ones overwrite the oldest.

    Args:
        rows: capacity.
        width: numbers per row.
        start: `uniform` fills it with random numbers in [0, 1) (CoSA, released code); `empty` with
            zeros, which `ThresholdSearch` leaves out.
        shared: with several processes gather the rows of all first, in the order of the global
            batch, so that all hold the same queue. (CoSA's released code: one queue each.)

    Raises:
        ValueError: a size below 1 or an unknown `start`.
    """

    values: Float[Tensor, "rows width"]
    cursor: Int[Tensor, ""]

    def __init__(
        self,
        rows: int,
        width: int,
        start: Literal["uniform", "empty"] = "empty",
        shared: bool = True,
    ) -> None:
        super().__init__()
        if rows < 1 or width < 1:
            raise ValueError(f"rows and width must be at least 1, got {rows} and {width}")
        if start not in ("uniform", "empty"):
            raise ValueError(f"start must be 'uniform' or 'empty', got {start!r}")
        make = torch.rand if start == "uniform" else torch.zeros
        self.shared = shared
        self.register_buffer("values", make(rows, width))
        self.register_buffer("cursor", torch.zeros((), dtype=torch.long))

    @torch.no_grad()
    def push(self, rows: Float[Tensor, "n width"]) -> None:
        """Write rows at the cursor and move it.

        Raises:
            ValueError: wrong width, or more rows than the queue holds.
        """
        rows = _of_all_processes(rows) if self.shared else rows
        if rows.ndim != 2 or rows.shape[1] != self.values.shape[1]:
            raise ValueError(
                f"rows must be (n, {self.values.shape[1]}) like the queue, got {tuple(rows.shape)}"
            )
        capacity = self.values.shape[0]
        if len(rows) > capacity:
            raise ValueError(f"rows must be at most {capacity}, got {len(rows)}: enlarge the queue")
        at = (self.cursor + torch.arange(len(rows), device=self.cursor.device)) % capacity
        self.values.index_copy_(0, at, rows.to(self.values.dtype))
        self.cursor.copy_((self.cursor + len(rows)) % capacity)


def _of_all_processes(rows: Tensor) -> Tensor:
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return rows
    parts = [torch.empty_like(rows) for _ in range(torch.distributed.get_world_size())]
    torch.distributed.all_gather(parts, rows.contiguous())
    return torch.stack(parts, dim=1).flatten(0, 1)  # rank r holds images r, r + n, ...


class Mixture(NamedTuple):
    """A one-dimensional Gaussian mixture; components in the order of their starting means."""

    weights: Float[Tensor, "m"]
    means: Float[Tensor, "m"]
    variances: Float[Tensor, "m"]
    n_iter: Int[Tensor, ""]

    def log_joint(self, values: Float[Tensor, "n"]) -> Float[Tensor, "m n"]:
        """Log of weight times density, per component and value."""
        precision = self.variances.reciprocal()[:, None]
        constant = self.weights.log() - 0.5 * (self.variances.log() + math.log(2 * math.pi))
        return constant[:, None] - 0.5 * precision * (values - self.means[:, None]).square()


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
    From there the likelihood rises so slowly that `tol` stops it within a few rounds, with means
    that nearly coincide: as released, this is not the best-fitting mixture. A smaller `tol` and a
    `start_variance` of 0.01 get close to it.

    The number of rounds depends on the data. On a CPU the loop ends when it has converged; on an
    accelerator all `max_iter` rounds run and those after convergence change nothing, because
    asking would copy to the host.

    Args:
        values: any shape.
        keep: values that count; None keeps all.
        components: 2 or 3.
        max_iter: rounds at most.
        tol: stop when the mean log-likelihood changes by less.
        start_variance: of every component.
        floor: added to every variance.
        stop_early: leave the loop once converged; None decides by device as said above.

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
    ordered = x.masked_fill(used == 0, math.inf).sort().values
    n = count.long()
    median = ordered[((n - 1) // 2).clamp(min=0)] / 2 + ordered[(n // 2).clamp(max=len(x) - 1)] / 2
    top = ordered[(n - 1).clamp(min=0)]
    means = torch.stack([ordered[0], median, top] if components == 3 else [ordered[0], top])
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
    """(low, high): the largest value of the first component, the smallest of the last.

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
    """One threshold: the largest value of the lower of two Gaussians.

    Source: CoSA, released code (a function no run uses).
    """
    return mixture_bands(values, fit_mixture(values, keep, 2), keep)[0]


@torch.no_grad()
def best_split(
    values: Float[Tensor, "..."],
    keep: Bool[Tensor, "..."] | None = None,
    least_share: float = 0.01,
) -> Float[Tensor, ""]:
    """One threshold: the split whose two sides, each with a Gaussian of its own, are most likely.

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


class ThresholdSearch(nn.Module):
    """Thresholds that follow the data: a queue of map values, a search, and a slow average.

    Args:
        queue: remembers one row of values per image.
        low: starting value of the lower threshold, 0..1.
        high: starting value of the upper one; ignored by the searches of a single threshold, which
            start in the middle between the two.
        how: `bands` (two thresholds from three Gaussians), `mixture` (one from two Gaussians) or
            `split` (one, see `best_split`).
        decay: share of the old threshold that a step keeps (CoSA 0.99).
        least: values up to this one are left out of the search (CoSA 0.05).

    Raises:
        ValueError: unknown `how`, or thresholds out of order.
    """

    thresholds: Float[Tensor, "2"]

    def __init__(
        self,
        queue: RingQueue,
        low: float,
        high: float,
        how: Search = "bands",
        decay: float = 0.99,
        least: float = 0.05,
    ) -> None:
        super().__init__()
        if how not in SEARCHES:
            raise ValueError(f"how must be one of {SEARCHES}, got {how!r}")
        if not 0 <= low <= high <= 1:
            raise ValueError(f"low and high must satisfy 0 <= low <= high <= 1, got {low}, {high}")
        self.how, self.decay, self.least = how, decay, least
        self.queue = queue
        first = [low, high] if how == "bands" else [(low + high) / 2] * 2
        self.register_buffer("thresholds", torch.tensor(first))

    @torch.no_grad()
    def forward(self, rows: Float[Tensor, "n width"]) -> Float[Tensor, "2"]:
        """Remember the values, search, and return the averaged (low, high).

        A search without result (too few values, an empty component, low above high) leaves the
        thresholds alone; the released code stops with an error there.
        """
        self.queue.push(rows)
        raw = torch.stack(self.search(self.queue.values)).to(self.thresholds.dtype)
        sound = raw.isfinite().all() & (raw[0] <= raw[1])
        moved = self.decay * self.thresholds + (1 - self.decay) * raw
        self.thresholds.copy_(torch.where(sound, moved, self.thresholds))
        return self.thresholds.clone()

    def search(self, values: Float[Tensor, "..."]) -> tuple[Tensor, Tensor]:
        """(low, high) of some values without remembering anything; computed in float64."""
        exact = values if values.device.type == "mps" else values.double()
        keep = exact > self.least
        if self.how == "bands":
            return mixture_bands(exact, fit_mixture(exact, keep, 3), keep)
        single = mixture_split(exact, keep) if self.how == "mixture" else best_split(exact, keep)
        return single, single
