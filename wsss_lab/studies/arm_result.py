"""Results of one arm of a study."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Summary:
    """A metric over the seeds of an arm."""

    mean: float | None
    sd: float | None
    """Of a sample (n - 1); None below two seeds."""
    n: int
    per_seed: dict[int, float]


@dataclass(frozen=True)
class Difference(Summary):
    """Arm minus baseline, seed by seed."""

    low: float | None
    high: float | None
    """Interval of the mean; None below two seeds."""


@dataclass(frozen=True)
class ArmResult:
    """Results of an arm."""

    what: str
    settings: dict[str, Any]
    metrics: dict[str, Summary]
    differences: dict[str, Difference]
    """Differences to its baseline, by metric; empty for the study's baseline."""
    verdict: str
    """Verdict on the primary metric, a key of `SIGNS`; "" for the study's baseline."""
    baseline: str
    """The arm it is compared with; "" for the study's baseline."""
    test: dict[str, Any] = field(default_factory=dict)
    """How the verdict was found, see `wsss_lab.studies.verdicts`; empty for a former declaration.
    """

    def smallest(self, metric: str) -> float | None:
        """Return the least difference of means in a metric that would have been shown.

        That of the test where there is one, which is the primary metric's; otherwise half the
        interval, without correction for the number of arms. None below two seeds.

        Args:
            metric: name of the metric.
        """
        found = self.differences.get(metric)
        if "smallest" in self.test:
            return self.test["smallest"]
        if found is None or found.low is None or found.high is None:
            return None
        return (found.high - found.low) / 2
