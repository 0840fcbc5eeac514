"""Intervals and paired differences over seeds, on plain numbers.

With n seeds the unit of observation is one training, so n is small, and small n is what limits
every statement here:

- n = 1: no interval exists; every bound is NaN.
- n = 2: Student's t has one degree of freedom and the 95 % interval is the mean +- 12.7 standard
  errors. It is valid only if the values are normal, and its width is itself almost pure chance (two
  seeds that happen to agree give a narrow interval that means nothing). Do not conclude from it.
- n = 3 to 5: usable, but the exact sign-flip test cannot go below p = 0.25 (n = 3) or 0.0625
  (n = 5), however large the effect.

The interval covers the variation between seeds on ONE split of ONE data set. It does not cover
the choice of images.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

EXACT_PAIRS = 40
"""Up to this many pairs the sign-flip p is exact; beyond it, the normal approximation is."""


@dataclass(frozen=True)
class Interval:
    """A mean with its uncertainty. sd, low and high are NaN for n = 1, and mean too for n = 0."""

    mean: float
    sd: float
    low: float
    high: float
    n: int


@dataclass(frozen=True)
class PairedDifference:
    """a - b over the seeds that both have: mean, sd of the differences, t interval, exact p."""

    mean: float
    sd: float
    low: float
    high: float
    n: int
    p: float


def mean_interval(values: Iterable[float], level: float = 0.95) -> Interval:
    """Student's t interval of the mean: m +- t_{(1 + level) / 2, n - 1} s / sqrt(n).

    Args:
        values: one per seed; NaN and infinity are left out and do not count in n.
        level: probability in (0, 1) that the interval covers the mean of the population of seeds.

    Source: Student, "The probable error of a mean", 1908. Assumes independent, normal values.
    """
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1, not {level}")
    sample = np.asarray(list(values), dtype=float)
    sample = sample[np.isfinite(sample)]
    n = len(sample)
    if n == 0:
        return Interval(math.nan, math.nan, math.nan, math.nan, 0)
    mean = float(sample.mean())
    if n == 1:
        return Interval(mean, math.nan, math.nan, math.nan, 1)
    sd = float(sample.std(ddof=1))
    half = float(stats.t.ppf((1 + level) / 2, n - 1)) * sd / math.sqrt(n)
    return Interval(mean, sd, mean - half, mean + half, n)


def paired_difference(a: pd.Series, b: pd.Series, level: float = 0.95) -> PairedDifference:
    """The difference a - b over the seeds that both have, with its t interval and sign-flip p.

        d_s = a_s - b_s,   mean(d) +- t_{(1 + level) / 2, n - 1} sd(d) / sqrt(n)

    Pairing removes what a seed does to both arms alike (initial weights, order of the images), so
    it is narrower than the two intervals apart wherever the arms are correlated over seeds.

    Args:
        a, b: values indexed by seed, each seed once; seeds that only one of them has, or whose
            value is not finite, are left out.
        level: as in mean_interval.
    """
    for name, series in (("a", a), ("b", b)):
        if not series.index.is_unique:
            raise ValueError(f"{name}: a seed occurs twice; a paired difference needs one value per seed")
    both = pd.concat({"a": a.astype(float), "b": b.astype(float)}, axis=1, join="inner")
    values = (both["a"] - both["b"]).to_numpy(dtype=float)
    values = values[np.isfinite(values)]
    interval = mean_interval(values, level)
    p = sign_flip_p(values)
    return PairedDifference(interval.mean, interval.sd, interval.low, interval.high, interval.n, p)


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
