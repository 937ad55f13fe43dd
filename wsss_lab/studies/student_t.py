"""Student's t distribution for whole degrees of freedom, in closed form."""

import math

MOST_DF = 1000
"""Degrees of freedom from which on the quantiles hardly change; more are not counted."""


def t_quantile(confidence: float, df: int) -> float:
    """Return the half-width, in standard errors, of a two-sided interval of Student's t.

    Args:
        confidence: 0..1, e.g. 0.95.
        df: degrees of freedom, from 1.
    """
    if df < 1 or not 0 < confidence < 1:
        raise ValueError(f"expected df from 1 and 0 < confidence < 1, got {df}, {confidence}")
    low, high = 0.0, 1.0
    while _t_mass(high, df) < confidence:
        high *= 2
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if _t_mass(middle, df) < confidence else (low, middle)
    return (low + high) / 2


def t_tail(t: float, df: int) -> float:
    """Return the two-sided p value, 0..1.

    Args:
        t: difference in standard errors, of any sign.
        df: degrees of freedom, from 1.
    """
    return max(0.0, 1 - _t_mass(abs(t), df))


def _t_mass(t: float, df: int) -> float:
    """Probability of [-t, t]: finite series for whole df (Abramowitz and Stegun 26.7.3, 26.7.4)."""
    angle = math.atan(t / math.sqrt(df))
    cos2 = math.cos(angle) ** 2
    total, term = 0.0, 1.0
    for k in range(2 + df % 2, df + 1, 2):
        total += term
        term *= (k - 1) / k * cos2
    if df % 2:
        return 2 / math.pi * (angle + math.sin(angle) * math.cos(angle) * total)
    return math.sin(angle) * total
