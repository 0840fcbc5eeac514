"""Two one-sided tests: is a difference small enough not to matter?"""

from __future__ import annotations

import math

from scipy import special

from ablation.analyse.statistics.intervals import Interval


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
