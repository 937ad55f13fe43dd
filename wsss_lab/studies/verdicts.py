"""Verdicts of studies that declare ``verdicts: blocks``: one test for all comparisons of a study.

Every arm is compared with its baseline in the primary metric. One precedence holds:

1. *incomplete*: a declared run of the arm or of its baseline is missing;
2. *better* or *worse*: the difference is shown, see below;
3. *not shown*: everything else. It never means that there is no difference; beside it stands the
   smallest one that would have been shown.

**Spread of seeds.** A seed fixes the start, the order of the images and their crops, so it is a
block: arms of one seed share its luck. Arms that baselines connect are a family; in a family the
residual of the additive model (arm plus seed) has (arms - 1) (seeds - 1) degrees of freedom, and
the difference of two arms' means has the variance 2 s^2 / seeds. With two arms this is the paired
t test. It takes for granted that seeds spread all differences of a family alike.

**Spread of images.** Where a scorer has left counts per image, a bootstrap draws images, the same
for both arms and all seeds, and its variance is added; degrees of freedom by Satterthwaite. So the
verdict is about other seeds and other images. A bootstrap that draws seeds *and* images is
recorded, too, and decides nothing: of three seeds it is too narrow.

**Many comparisons.** p values are corrected by Holm's step-down rule over all comparisons of the
profile, those that are missing counted; the intervals are not.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from wsss_lab.studies.rules import RESAMPLES, miou_of, read_counts
from wsss_lab.studies.student_t import MOST_DF, t_quantile, t_tail

SeedValues = Mapping[str, Mapping[int, float]]
"""Arm -> seed -> value of the primary metric."""


@dataclass(frozen=True)
class Spread:
    """Standard error of a difference of two arms' means."""

    error: float
    df: int
    """Degrees of freedom, rounded down."""


def families(baselines: Mapping[str, str]) -> list[list[str]]:
    """Group arms that are connected by baselines, in the given order.

    Args:
        baselines: arm -> its baseline, or "".
    """
    groups: list[set[str]] = []
    for arm, baseline in baselines.items():
        joined = {arm, baseline} - {""}
        apart = []
        for group in groups:
            if group & joined:
                joined |= group
            else:
                apart.append(group)
        groups = [*apart, joined]
    ordered = [[arm for arm in baselines if arm in group] for group in groups]
    return sorted(ordered, key=lambda group: list(baselines).index(group[0]))


def residual_variance(table: Float[np.ndarray, "a s"]) -> tuple[float, int]:
    """Compute variance and degrees of freedom of what arm and seed leave over.

    Args:
        table: one row per arm, one column per seed.

    Returns:
        NaN and 0 with fewer than two arms or seeds.
    """
    arms, seeds = table.shape
    df = (arms - 1) * (seeds - 1)
    if df < 1:
        return math.nan, 0
    rest = table - table.mean(1, keepdims=True) - table.mean(0, keepdims=True) + table.mean()
    return float((rest**2).sum() / df), df


def joined_spread(variance: float, df: int, seeds: int, images: float = 0.0) -> Spread | None:
    """Join the spread of seeds and of images.

    Args:
        variance: of `residual_variance`.
        df: its degrees of freedom; 0 gives None.
        seeds: number of seeds.
        images: variance of the difference over images.
    """
    if df < 1:
        return None
    between = 2 * variance / seeds
    total = between + images
    share = between / total if total > 0 else 1.0
    return Spread(math.sqrt(total), min(MOST_DF, int(df / share**2)) if share else MOST_DF)


def holm(values: Mapping[str, float], comparisons: int) -> dict[str, float]:
    """Correct p values by Holm's rule.

    Args:
        values: p value by name.
        comparisons: number of all planned ones, at least as many.

    Raises:
        ValueError: more values than comparisons.
    """
    if len(values) > comparisons:
        raise ValueError(f"comparisons: expected at least {len(values)}, got {comparisons}")
    found, highest = {}, 0.0
    for rank, name in enumerate(sorted(values, key=lambda key: values[key])):
        highest = max(highest, min(1.0, (comparisons - rank) * values[name]))
        found[name] = highest
    return found


def bootstrap(
    one: Int[np.ndarray, "s i 3 k1"],
    other: Int[np.ndarray, "s i 3 k1"],
    confidence: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, Any]:
    """Bootstrap the difference of two arms' mIoU, paired, over images and over seeds and images.

    Args:
        one: counts of `miou_of` per seed and image.
        other: counts of the other arm, same seeds, same images.
        confidence: of the percentile interval.
        resamples: number of draws.
        seed: of the draws.

    Returns:
        `images`, the variance over draws of images alone; `interval`, [low, high] over draws of
        seeds and images.

    Raises:
        ValueError: arms on different seeds, images or classes.
    """
    if one.shape != other.shape:
        raise ValueError(
            f"one, other: expected counts of the same seeds, images and classes, got {one.shape} "
            f"and {other.shape}"
        )
    seeds, images = one.shape[:2]
    random = np.random.default_rng(seed)
    draws = random.multinomial(images, np.full(images, 1 / images), size=resamples)
    drawn_seeds = random.multinomial(seeds, np.full(seeds, 1 / seeds), size=resamples) / seeds
    scores = []
    for counts in (one, other):
        flat = counts.transpose(1, 0, 2, 3).reshape(images, -1).astype(np.float64)
        scores.append(miou_of((draws @ flat).reshape(resamples, seeds, *counts.shape[2:])))
    difference = scores[0] - scores[1]
    tail = 50 * (1 - confidence)
    both = np.percentile((difference * drawn_seeds).sum(1), [tail, 100 - tail])
    return {
        "images": float(difference.mean(1).var(ddof=1)),
        "interval": [float(end) for end in both],
    }


def judge_study(
    baselines: Mapping[str, str],
    values: SeedValues,
    planned: Sequence[int],
    confidence: float,
    higher_is_better: bool,
    counts: Mapping[str, Mapping[int, Path]] | None = None,
) -> dict[str, dict[str, Any]]:
    """Judge all arms of a profile that have a baseline.

    Args:
        baselines: arm -> its baseline, or "".
        values: finished runs.
        planned: seeds of the profile.
        confidence: 1 - the error of the whole study.
        higher_is_better: direction of the metric.
        counts: arm -> seed -> file with the counts per image of the primary metric, as `main`.

    Returns:
        By arm: `verdict`; `comparisons`; and with two seeds or more `error` (standard error),
        `df`, `p`, `p_corrected`, `smallest` (the least difference of means that would have been
        shown whatever the others), `low` and `high` (interval, not corrected), and with counts
        `bootstrap`.
    """
    compared = {arm: baseline for arm, baseline in baselines.items() if baseline}
    whole = {arm for arm in baselines if set(planned) <= set(values.get(arm, {}))}
    found: dict[str, dict[str, Any]] = {}
    for family in families(baselines):
        arms = [arm for arm in family if arm in whole]
        table = np.array([[values[arm][seed] for seed in planned] for arm in arms])
        variance, df = residual_variance(table) if len(arms) else (math.nan, 0)
        for arm in (arm for arm in family if arm in compared):
            if {arm, compared[arm]} <= whole:
                files = _pair(counts, arm, compared[arm], planned)
                found[arm] = _tested(
                    values[arm], values[compared[arm]], variance, df, planned, confidence, files
                )
    corrected = holm({arm: one["p"] for arm, one in found.items() if "p" in one}, len(compared))
    level = 1 - (1 - confidence) / max(1, len(compared))
    for arm, one in found.items():
        one["comparisons"] = len(compared)
        if "p" not in one:
            one["verdict"] = "not shown"
            continue
        one["p_corrected"] = corrected[arm]
        one["smallest"] = t_quantile(level, one["df"]) * one["error"]
        shown = corrected[arm] < 1 - confidence
        up = (one["mean"] > 0) == higher_is_better
        one["verdict"] = ("better" if up else "worse") if shown else "not shown"
    missing = {"verdict": "incomplete", "comparisons": len(compared)}
    return {arm: found.get(arm, dict(missing)) for arm in compared}


def _pair(
    counts: Mapping[str, Mapping[int, Path]] | None, arm: str, baseline: str, seeds: Sequence[int]
) -> tuple[np.ndarray, np.ndarray] | None:
    if counts is None:
        return None
    one, other = (
        np.stack([read_counts(counts[name][seed], "main") for seed in seeds])
        for name in (arm, baseline)
    )
    return one, other


def _tested(
    arm: Mapping[int, float],
    baseline: Mapping[int, float],
    variance: float,
    df: int,
    seeds: Sequence[int],
    confidence: float,
    counts: tuple[np.ndarray, np.ndarray] | None,
) -> dict[str, Any]:
    mean = float(np.mean([arm[seed] - baseline[seed] for seed in seeds]))
    drawn = bootstrap(*counts, confidence) if counts else None
    spread = joined_spread(variance, df, len(seeds), drawn["images"] if drawn else 0.0)
    found: dict[str, Any] = {"mean": mean}
    if drawn:
        found["bootstrap"] = drawn["interval"]
    if spread is None:
        return found
    half = t_quantile(confidence, spread.df) * spread.error
    return found | {
        "error": spread.error,
        "df": spread.df,
        "p": t_tail(mean / spread.error, spread.df) if spread.error else float(mean == 0),
        "low": mean - half,
        "high": mean + half,
    }


def describe(confidence: float, comparisons: int, images: bool) -> str:
    """Describe the intervals and the verdicts in words.

    Args:
        confidence: of intervals and verdicts.
        comparisons: number of planned ones.
        images: whether the spread of images is part of them.
    """
    over = "seeds (pooled over the arms of a family, a seed is a block)"
    other = "other seeds on the same images"
    if images:
        over, other = f"{over} and images (bootstrap)", "other seeds and other images"
    return (
        f"Intervals are two-sided {100 * confidence:g} % t intervals of the mean paired difference "
        f"over {over}: they speak of {other}. They are not widened for the number of arms; "
        f"verdicts are: by Holm's rule over {comparisons} comparisons. Not shown does not mean "
        "none: the smallest difference that would have been shown stands beside each verdict."
    )
