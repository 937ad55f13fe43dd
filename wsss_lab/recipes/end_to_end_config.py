"""Settings of methods that are trained in one go."""

from dataclasses import dataclass, field

from wsss_lab.config import OptimConfig, RunConfig
from wsss_lab.data.config import DataConfig
from wsss_lab.methods.acr.plugin import ConsistencyConfig
from wsss_lab.ranges import SettingError, Settings
from wsss_lab.runs.scoring import TestConfig

SMALLEST = 4
"""Least side of a training view, px."""


@dataclass(frozen=True)
class EndToEndConfig(Settings):
    """Settings common to all these methods; each adds its own as `method`."""

    data: DataConfig = field(default_factory=DataConfig)
    """Which images, and how they are cut for training."""
    weights: str = "toy"
    """Weights the backbone starts from: `toy`, `imagenet`, `random`, the exact name of timm
    weights, or a file."""
    start: str = ""
    """Go on from the end of a warm-up, heads included, see `wsss_lab.runs.start`: `toy`
    for the package's own weights, a run's folder, or nothing."""
    run: RunConfig = field(default_factory=RunConfig)
    """Length, batch, seed, devices, precision, log."""
    optim: OptimConfig = field(default_factory=OptimConfig)
    """Optimiser and learning rate."""
    test: TestConfig = field(default_factory=TestConfig)
    """How the result is scored."""
    acr: ConsistencyConfig = field(default_factory=ConsistencyConfig)
    """All-pairs consistency as a plug-in; off, unless `acr.alpha` is above 0."""

    @property
    def trains_on_masks(self) -> bool:
        """Whether training reads pixel truth: an upper bound, no weak supervision."""
        return False

    def require(self) -> None:
        """Refuse scales at which a crop would vanish, which shows only after the warm-up."""
        method = getattr(self, "method", None)
        least = min(getattr(method, "scales", (1.0,))) * getattr(method, "view_scale", 1.0)
        if least * self.data.crop < SMALLEST:
            raise SettingError(
                ["method.scales"],
                f"expected views of at least {SMALLEST} px, the smallest of a crop of "
                f"{self.data.crop} px has {least * self.data.crop:.1f}; use larger scales or crops",
            )
