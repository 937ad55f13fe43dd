"""Thresholds that follow the maps: a queue of map values, a search in it, a slow average.

Everything that lasts from one step to the next is a buffer, so a checkpoint holds it and a resumed
run goes on as if nothing had happened. Nothing here copies to the host inside a step.
"""

from typing import Literal, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from wsss_lab.methods.cosa.config import CoSAConfig, Search
from wsss_lab.methods.cosa.mixture import best_split, fit_mixture, mixture_bands, mixture_split

SEARCHES: tuple[Search, ...] = get_args(Search)
"""Ways to search, see `ThresholdSearch`."""


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
    """Gather the rows of all processes, in the order of the global batch."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return rows
    parts = [torch.empty_like(rows) for _ in range(torch.distributed.get_world_size())]
    torch.distributed.all_gather(parts, rows.contiguous())
    return torch.stack(parts, dim=1).flatten(0, 1)  # rank r holds images r, r + n, ...


class ThresholdSearch(nn.Module):
    """Thresholds that follow the maps: a queue of map values, a search, and a slow average.

    Args:
        queue: holds one row of values per image.
        low: starting value of the lower threshold, 0..1.
        high: starting value of the upper one; ignored by the searches of a single threshold, which
            start in the middle between the two.
        how: `bands` (two thresholds from three Gaussians), `mixture` (one from two Gaussians) or
            `split` (one, see `best_split`).
        momentum: share of the old threshold that a step keeps, 0..1 (CoSA 0.99).
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
        momentum: float = 0.99,
        least: float = 0.05,
    ) -> None:
        super().__init__()
        if how not in SEARCHES:
            raise ValueError(f"how must be one of {SEARCHES}, got {how!r}")
        if not 0 <= low <= high <= 1:
            raise ValueError(f"low and high must satisfy 0 <= low <= high <= 1, got {low}, {high}")
        self.how, self.momentum, self.least = how, momentum, least
        self.queue = queue
        first = [low, high] if how == "bands" else [(low + high) / 2] * 2
        self.register_buffer("thresholds", torch.tensor(first))

    @torch.no_grad()
    def forward(self, rows: Float[Tensor, "n width"]) -> Float[Tensor, "2"]:
        """Push the values, search, and return the averaged (low, high).

        A search without result (too few values, an empty component, low above high) leaves the
        thresholds alone; the released code stops with an error there.
        """
        self.queue.push(rows)
        # one outlier of a batch must not flip the labels of the next: hence the average
        raw = torch.stack(self.search(self.queue.values)).to(self.thresholds.dtype)
        sound = raw.isfinite().all() & (raw[0] <= raw[1])
        moved = self.momentum * self.thresholds + (1 - self.momentum) * raw
        self.thresholds.copy_(torch.where(sound, moved, self.thresholds))
        return self.thresholds.clone()

    def search(self, values: Float[Tensor, "..."]) -> tuple[Tensor, Tensor]:
        """Return (low, high) of some values, in float64; nothing is stored."""
        # best_split subtracts running sums of squares, which cancel in float32
        exact = values if values.device.type == "mps" else values.double()
        keep = exact > self.least
        if self.how == "bands":
            return mixture_bands(exact, fit_mixture(exact, keep, 3), keep)
        single = mixture_split(exact, keep) if self.how == "mixture" else best_split(exact, keep)
        return single, single


def threshold_searches(config: CoSAConfig) -> nn.ModuleList:
    """Build the searches for maps and for auxiliary maps; none where thresholds are fixed."""
    searches, quirks = nn.ModuleList(), config.quirks
    if config.search == "none":
        return searches
    for low, high in ((config.low, config.high), (config.aux_low, config.aux_high)):
        queue = RingQueue(
            config.queue_rows,
            config.queue_grid[0] * config.queue_grid[1],
            "uniform" if quirks.random_queue else "empty",
            shared=not quirks.queue_per_process,
        )
        searches.append(ThresholdSearch(queue, low, high, config.search))
    return searches
