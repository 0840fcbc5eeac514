"""Tests on paired differences: sign flips, equivalence within a margin, and several arms at once."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import special, stats

from ablation.analyse.statistics.intervals import Interval

EXACT_PAIRS = 40
"""Up to this many pairs the sign-flip p is exact; beyond it, the normal approximation is."""


def sign_flip_p(differences: Iterable[float]) -> float:
    """Exact two-sided p of the sign-flip (Fisher randomisation) test on the sum of the differences.

        p = #{ s in {-1, +1}^n : |sum s_i d_i| >= |sum d_i| } / 2^n

    Under "the arms do not differ" each difference is as likely to have the other sign. No normality
    is assumed, but the smallest p possible is 2^(1 - n): 0.5, 0.25, 0.125, 0.0625 for n = 2 to 5.
    All 2^n sums are counted through the sorted sums of two halves, so n = 40 costs 2^20 steps;
    beyond that, sum d_i / sqrt(sum d_i^2) is taken as normal. NaN without differences.
    """
    d = np.asarray(list(differences), dtype=float)
    d = d[np.isfinite(d)]
    n = len(d)
    if n == 0:
        return math.nan
    # Sums that are equal on paper differ in the last bits: they must count as equal.
    observed = abs(float(d.sum())) - 1e-12 * float(np.abs(d).sum())
    if observed <= 0:
        return 1.0
    if n > EXACT_PAIRS:
        return float(2 * stats.norm.sf(observed / math.sqrt(float((d * d).sum()))))
    left, right = _all_sums(d[: n // 2]), np.sort(_all_sums(d[n // 2 :]))
    upper = len(right) * len(left) - int(np.searchsorted(right, observed - left, side="left").sum())
    return float(2 * upper / 2**n)


def _all_sums(d: NDArray[np.float64]) -> NDArray[np.float64]:
    """The 2^n sums of d with every choice of signs."""
    sums = np.zeros(1)
    for value in d:
        sums = np.concatenate([sums + value, sums - value])
    return sums


def tost_p(interval: Interval, margin: float) -> float:
    """p of "the difference is not within (-margin, margin)".

        max of P(T > (mean + margin) / se) and P(T < (mean - margin) / se),  T Student's t

    It takes standard error and degrees of freedom from the interval, so that both speak of the same
    seeds and images; without an image part it is the paired TOST of the textbooks (statsmodels'
    ttost_paired). It is below alpha just where the interval at 1 - 2 alpha lies within the margin.

    Returns:
        NaN where the interval has no standard error.

    Source: Schuirmann, J. Pharmacokin. Biopharm. 15, 1987.
    """
    if not math.isfinite(interval.se):
        return math.nan
    if interval.se == 0:
        return 0.0 if abs(interval.mean) < margin else 1.0
    above = special.stdtr(interval.df, -(interval.mean + margin) / interval.se)
    below = special.stdtr(interval.df, (interval.mean - margin) / interval.se)
    return float(max(above, below))


def holm(p_values: Sequence[float], tested: int | None = None) -> list[float]:
    """Holm's step-down p-values: below alpha, the chance of any false finding is at most alpha.

    With the p sorted, p'_(i) = max_{j <= i} min(1, (k - j + 1) p_(j)), k the size of the family.

    Args:
        p_values: one per arm; NaN (no test was possible) stays NaN.
        tested: size k of the family; None: as many as have a p. Arms that were planned but could not
            be tested belong to it: they would have been winners had they won.

    Source: Holm, Scand. J. Statistics 6, 1979.
    """
    p = np.asarray(p_values, float)
    tests = np.flatnonzero(np.isfinite(p))
    family = max(tested or 0, len(tests))
    order = tests[np.argsort(p[tests])]
    # By hand: multipletests of statsmodels collects all garbage each time, a second in a large process.
    steps = p[order] * np.arange(family, family - len(tests), -1)
    adjusted = np.full(len(p), math.nan)
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return [float(value) for value in adjusted]
