"""How many pairs of runs tell two arms apart, or show that they are equivalent.

With sd the standard deviation of the paired differences (one per seed), n pairs have the standard
error sqrt(sd^2 / n + image_se^2). The second part is what the choice of images adds; it stays however
many seeds are trained, so some questions no number of seeds can answer.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import special

MOST_PAIRS = 100_000
"""Searches end here: a study that needs more is impossible in practice."""

# Gauss-Legendre points of (0, 1): expectations over the estimated variance.
_POINTS, _WEIGHTS = np.polynomial.legendre.leggauss(200)
_POINTS, _WEIGHTS = (_POINTS + 1) / 2, _WEIGHTS / 2


@lru_cache(maxsize=1024)
def _estimated(df: float) -> NDArray[np.float64]:
    """Estimated over true standard error, sqrt(chi^2_df / df), at the points."""
    return np.asarray(np.sqrt(special.chdtri(df, 1 - _POINTS) / df), np.float64)


def power_of_difference(
    effect: float, sd: float, n: int, level: float = 0.95, image_se: float = 0.0
) -> float:
    """Probability that the two-sided paired t test at 1 - level finds a true difference.

        P(|T| > t_{(1 + level) / 2, n - 1}),  T noncentral t with ncp = effect / sqrt(sd^2 / n + image_se^2)

    Args:
        effect: true mean difference, in the metric's units; its sign does not matter.
        sd: of the paired differences, same units, >= 0.
        n: pairs; below 2 the power is 0.
        image_se: standard error that the choice of images adds. The test then has more than n - 1
            degrees of freedom (Welch, Satterthwaite); image_se itself is taken as known.

    Source: Student's t under the alternative; Cohen, "Statistical Power Analysis", 1988.
    """
    if n < 2:
        return 0.0
    error, df = _error(sd, n, image_se)
    if error == 0:
        return 1.0 if effect else 1 - level
    spread = _estimated(df) * special.stdtrit(df, (1 + level) / 2)
    shift = abs(effect) / error
    # The noncentral t by its definition: scipy's is NaN in the far tail.
    return float((special.ndtr(shift - spread) + special.ndtr(-shift - spread)) @ _WEIGHTS)


def power_of_equivalence(
    margin: float, sd: float, n: int, level: float = 0.95, image_se: float = 0.0, true: float = 0.0
) -> float:
    """Probability that two one-sided t tests (TOST), each at 1 - level, show |difference| < margin.

    They do so where |mean| < margin - t_{level, n - 1} s / sqrt(n). With U = chi^2_{n-1} / (n - 1) and
    e the standard error, that has the probability
    E_U max(0, Phi((margin - true) / e - t sqrt(U)) - Phi((-margin - true) / e + t sqrt(U))).

    Args:
        margin: largest difference that does not matter, > 0.
        true: the true difference.
        sd, n, level, image_se: as in power_of_difference.

    Source: Schuirmann, J. Pharmacokin. Biopharm. 15, 1987.
    """
    if n < 2:
        return 0.0
    error, df = _error(sd, n, image_se)
    if error == 0:
        return 1.0 if abs(true) < margin else 0.0
    spread = _estimated(df) * special.stdtrit(df, level)
    above = special.ndtr((margin - true) / error - spread)
    below = special.ndtr((-margin - true) / error + spread)
    return float(np.maximum(above - below, 0) @ _WEIGHTS)


def _error(sd: float, n: int, image_se: float) -> tuple[float, float]:
    """Standard error of the mean difference and its degrees of freedom."""
    seeds = sd**2 / n
    total = seeds + image_se**2
    if image_se == 0 or seeds == 0:
        return math.sqrt(total), float(n - 1)
    return math.sqrt(total), (n - 1) * (total / seeds) ** 2


def detectable_effect(n: int, power: float = 0.8, level: float = 0.95) -> float:
    """The true difference, in standard deviations of the paired differences, found with `power`.

    n = 3/5/8/10/20 pairs: 3.26/1.68/1.16/1.00/0.66 at 80 %.
    """
    if n < 2:
        return math.inf
    low, high = 0.0, 100.0
    for _ in range(60):  # halved to 1e-16; scipy.optimize would take longer to import than this to compute
        middle = (low + high) / 2
        below = power_of_difference(middle, 1.0, n, level) < power
        low, high = (middle, high) if below else (low, middle)
    return high


def seeds_to_detect(
    effect: float, sd: float, power: float = 0.8, level: float = 0.95, image_se: float = 0.0
) -> int | None:
    """The smallest number of pairs whose t test finds `effect` with `power`.

    Returns None where no number of pairs does (up to MOST_PAIRS): the effect is 0, or the images limit.
    """
    return _smallest(lambda n: power_of_difference(effect, sd, n, level, image_se), power)


def seeds_for_equivalence(
    margin: float, sd: float, power: float = 0.8, level: float = 0.95, image_se: float = 0.0
) -> int | None:
    """The smallest number of pairs whose TOST shows equal arms to be equivalent with `power`.

    36 pairs for a margin of 0.5 sd, 11 for 1 sd. None as in seeds_to_detect.
    """
    return _smallest(lambda n: power_of_equivalence(margin, sd, n, level, image_se), power)


def seeds_to_tell(
    margin: float, sd: float, power: float = 0.8, level: float = 0.95, image_se: float = 0.0, family: int = 1
) -> int | None:
    """Pairs after which a verdict is likely: a difference of the margin is found, or equality is shown.

    The larger of seeds_to_detect (at 1 - (1 - level) / family: what Holm asks of the first arm of a
    family) and seeds_for_equivalence; None where either is.
    """
    strict = 1 - (1 - level) / max(family, 1)
    to_detect = seeds_to_detect(margin, sd, power, strict, image_se)
    to_equate = seeds_for_equivalence(margin, sd, power, level, image_se)
    return None if to_detect is None or to_equate is None else max(to_detect, to_equate)


def _smallest(power_of: Callable[[int], float], power: float) -> int | None:
    """The smallest n >= 2 with power_of(n) >= power; power_of grows with n."""
    high = 2
    while power_of(high) < power:
        if high >= MOST_PAIRS:
            return None
        high = min(2 * high, MOST_PAIRS)
    low = max(high // 2, 1)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if power_of(middle) >= power else (middle, high)
    return high
