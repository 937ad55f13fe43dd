"""Decision rules of single studies, in addition to the comparison with the baseline.

A rule is a pure function of finished runs: the same runs always give the same result. A declaration
names it as ``rule``, and the aggregate has the result under that name.

`asdt` is the rule of a former declaration and stays as history: the standard deviation of seeds
that it asks for does not shrink with their number, so a difference that every seed shows can fail
it. Newer declarations judge by `wsss_lab.studies.verdicts`. It asks: is alternating better than any
fixed use of the same two teachers? Written down before any run, in three claims:

1. *alternating helps*: the mIoU of ASDT's arm on training images, of its student and of the fused
   prediction, exceeds that of every other use of the teachers (A only, B only, both mixed, a coin
   per step) by more than two standard deviations of the seeds, and a bootstrap over images does not
   contain zero;
2. *the period matters*: 1, and the same against a coin per step and a coin per block;
3. *more than regularisation*: 1, and the same against pulses without any supervision.
"""

import math
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, variance
from typing import Any

import numpy as np
from jaxtyping import Float, Int

SPREADS = 2.0
"""Standard deviations that a difference must exceed."""
CONFIDENCE = 0.95
RESAMPLES = 2000
"""Number of bootstrap samples."""


@dataclass(frozen=True)
class FinishedRun:
    """Input of a rule: one finished run."""

    arm: str
    seed: int
    metrics: Mapping[str, float | None]
    """Values by the declaration's metric names."""
    kept: Mapping[str, Path]
    """Files that the declaration keeps."""


Rule = Callable[[Sequence[FinishedRun], Mapping[str, set[int]]], dict[str, Any]]
"""(finished runs, arm -> planned seeds) -> `verdicts` by claim, `lines` in words, more."""


def pooled_sd(one: Sequence[float], other: Sequence[float]) -> float:
    """Return the pooled standard deviation of two samples (n - 1 each); NaN below two values.

    Args:
        one: sample of two or more values.
        other: sample of two or more values.
    """
    n, m = len(one), len(other)
    if n < 2 or m < 2:
        return math.nan
    return math.sqrt(((n - 1) * variance(one) + (m - 1) * variance(other)) / (n + m - 2))


def miou_of(counts: Float[np.ndarray, "*s 3 k1"]) -> Float[np.ndarray, "*s"]:
    """Compute the mean IoU, 0..1, over the classes that occur in the truth.

    Args:
        counts: correct, predicted and true pixels, summed over images.
    """
    hit, predicted, true = np.moveaxis(counts, -2, 0)
    union = predicted + true - hit
    iou = np.divide(hit, union, out=np.zeros_like(union, dtype=float), where=union > 0)
    return (iou * (true > 0)).sum(-1) / np.maximum(1, (true > 0).sum(-1))


def bootstrap_difference(
    one: Int[np.ndarray, "s i 3 k1"],
    other: Int[np.ndarray, "s i 3 k1"],
    resamples: int = RESAMPLES,
    confidence: float = CONFIDENCE,
    seed: int = 0,
) -> tuple[float, float]:
    """Compute the bootstrap interval over images of the difference of two arms' mIoU.

    Images are drawn with replacement, the same ones for both arms and all seeds (paired); an arm's
    mIoU is the mean over its seeds of the mIoU of all drawn pixels. Percentile interval.

    Args:
        one: counts of `miou_of` per seed and image.
        other: counts of the other arm, on the same images.
        resamples: number of bootstrap samples.
        confidence: confidence of the interval.
        seed: seed of the draws.

    Raises:
        ValueError: arms on different numbers of images or classes.
    """
    if one.shape[1:] != other.shape[1:]:
        raise ValueError(
            f"one, other: expected counts on the same images and classes, got {one.shape[1:]} and "
            f"{other.shape[1:]}"
        )
    images = one.shape[1]
    draws = np.random.default_rng(seed).multinomial(
        images, np.full(images, 1 / images), size=resamples
    )
    arms = []
    for counts in (one, other):
        s, _, three, k1 = counts.shape
        flat = counts.transpose(1, 0, 2, 3).reshape(images, -1).astype(np.float64)
        drawn = (draws.astype(np.float64) @ flat).reshape(resamples, s, three, k1)
        arms.append(miou_of(drawn).mean(1))
    tail = 50 * (1 - confidence)
    low, high = np.percentile(arms[0] - arms[1], [tail, 100 - tail])
    return float(low), float(high)


def exceeds(
    one: Mapping[int, float],
    other: Mapping[int, float],
    counts: tuple[np.ndarray, np.ndarray],
) -> dict[str, Any]:
    """Test whether an arm is clearly above another one, and by how much.

    Args:
        one: mIoU by seed.
        other: mIoU of the other arm by seed.
        counts: counts of both, see `bootstrap_difference`.

    Returns:
        `difference`, `sd` (pooled), `low`, `high`, and `holds`: the difference exceeds
        `SPREADS` pooled standard deviations, and the interval lies above zero. With a single seed
        there is no spread, and it does not hold.
    """
    mine, theirs = ([arm[seed] for seed in sorted(arm)] for arm in (one, other))
    difference, sd = fmean(mine) - fmean(theirs), pooled_sd(mine, theirs)
    low, high = bootstrap_difference(*counts)
    return {
        "difference": difference,
        "sd": None if math.isnan(sd) else sd,
        "low": low,
        "high": high,
        "holds": bool(difference > SPREADS * sd and low > 0),
    }


ASDT_MAIN = "r8"
ASDT_CLAIMS: dict[str, tuple[str, ...]] = {
    "alternating helps": ("r1", "r2", "r3", "r5"),
    "the period matters": ("r5", "r6"),
    "more than regularisation": ("r10",),
}
"""Claim -> arms that must be exceeded; the later ones also need the first."""
ASDT_VOICES = {"head2": "train_head2", "fused": "train_fused"}
"""Prediction in the counts per image -> metric of the declaration. Both must exceed."""
PER_IMAGE = "per_image.npz"


def asdt(finished: Sequence[FinishedRun], planned: Mapping[str, set[int]]) -> dict[str, Any]:
    """Apply the rule `asdt`, see the module."""
    runs = {arm: {r.seed: r for r in finished if r.arm == arm} for arm in planned}
    whole = {arm for arm in planned if set(runs[arm]) == planned[arm]}
    rivals = sorted({arm for arms in ASDT_CLAIMS.values() for arm in arms}, key=_number)
    compared = {
        rival: {voice: _compare(runs[ASDT_MAIN], runs[rival], voice) for voice in ASDT_VOICES}
        for rival in rivals
        if {ASDT_MAIN, rival} <= whole
    }
    beaten = {
        rival: all(found["holds"] for found in voices.values())
        for rival, voices in compared.items()
    }
    verdicts: dict[str, str] = {}
    for claim, arms in ASDT_CLAIMS.items():
        first = next(iter(verdicts.values()), "supported")
        verdicts[claim] = _verdict(arms, beaten, planned, first)
    return {
        "name": "asdt",
        "comparisons": compared,
        "verdicts": verdicts,
        "lines": [_line(*item, compared) for item in verdicts.items()] + [ASDT_HOW],
    }


ASDT_HOW = (
    f"How: {ASDT_MAIN} must exceed each arm in both the student's and the fused mIoU on training "
    f"images, by more than {SPREADS:g} pooled standard deviations of the seeds, and the "
    f"{100 * CONFIDENCE:g} % interval of {RESAMPLES} paired draws of images must lie above zero."
)


def _number(arm: str) -> int:
    return int(arm.removeprefix("r"))


def _compare(one: Mapping[int, FinishedRun], other: Mapping[int, FinishedRun], voice: str) -> Any:
    metric = ASDT_VOICES[voice]
    scores = []
    for runs in (one, other):
        values = {seed: run.metrics[metric] for seed, run in runs.items()}
        if bad := [seed for seed, value in values.items() if value is None]:
            raise ValueError(f"rule asdt: {metric} is not a number for seeds {bad}")
        scores.append({seed: float(value) for seed, value in values.items() if value is not None})
    return exceeds(scores[0], scores[1], (_counts(one, voice), _counts(other, voice)))


def _counts(runs: Mapping[int, FinishedRun], voice: str) -> np.ndarray:
    return np.stack([read_counts(runs[seed].kept[PER_IMAGE], voice) for seed in sorted(runs)])


def read_counts(path: Path, entry: str) -> Int[np.ndarray, "i 3 k1"]:
    """Read the counts per image that a run has left.

    Raises:
        ValueError: the file is not there, or damaged, or lacks the entry.
    """
    try:
        with np.load(path) as file:
            return file[entry]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path}: no counts of {entry} ({error}); run it again") from error


def _verdict(
    arms: Sequence[str],
    beaten: Mapping[str, bool],
    planned: Mapping[str, set[int]],
    first: str,
) -> str:
    """Judge a claim: one failed comparison refutes it, a missing one leaves it open."""
    if any(arm in beaten and not beaten[arm] for arm in arms):
        return "not supported"
    if first == "not supported":
        return first
    if any(arm not in planned for arm in arms):
        return "not judged"
    if any(arm not in beaten for arm in arms):
        return "incomplete"
    return first


WORDS = {
    "supported": "supported",
    "not supported": "not shown",
    "incomplete": "incomplete: runs are missing",
    "not judged": "not judged: an arm that it needs is not part of this profile",
}
"""Verdict -> words."""


def _line(claim: str, verdict: str, compared: Mapping[str, Any]) -> str:
    parts = []
    for arm in ASDT_CLAIMS[claim]:
        for voice, found in compared.get(arm, {}).items():
            sd = "–" if found["sd"] is None else f"{100 * found['sd']:.1f}"
            parts.append(
                f"{voice} against {arm} {100 * found['difference']:+.1f} "
                f"[{100 * found['low']:+.1f}, {100 * found['high']:+.1f}] points, SD {sd}"
            )
    shown = f" ({'; '.join(parts)})" if parts else ""
    return f"Claim “{claim}”: {WORDS[verdict]}{shown}."


RULES: dict[str, Rule] = {"asdt": asdt}
"""Name in a declaration -> rule."""


def find_rule(name: str) -> Rule:
    """Return a rule by its name.

    Raises:
        ValueError: there is no such rule.
    """
    if name not in RULES:
        raise ValueError(f"rule: expected one of {', '.join(RULES)}, got {name!r}")
    return RULES[name]
