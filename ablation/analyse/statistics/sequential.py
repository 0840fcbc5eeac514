"""Interim looks: deciding on paired differences as soon as they tell, with the error of one look.

A study that tests after 4 pairs, adds seeds, tests again, and stops when it likes the answer is wrong
far more often than 1 - level. Here the numbers of pairs at which it looks are declared, and the error is
spent on them: after the share t = pairs / last look, at most (1 - level) t^exponent has been spent
(Lan and DeMets' spending function of Kim and DeMets' power family). Each look then has its own nominal
level, at which the ordinary tests of one look are made:

- better or worse: two-sided p of Student's t below `difference[look]`;
- equivalent: the larger p of the two one-sided t tests (TOST) below `equivalence[look]`.

The levels hold for t statistics of few pairs. They come from simulated studies, not from the normal
approximation, which at 4 pairs is too generous by a factor of several.

Sources: Lan and DeMets, Biometrika 70, 1983; Kim and DeMets, Biometrika 74, 1987; Jennison and Turnbull,
"Group Sequential Methods", 2000 (repeated confidence intervals, chapter 9); Emerson and Fleming,
Biometrika 77, 1990 (ordering by the sample mean).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import special

from ablation.analyse.statistics.sequential_levels import LEVELS

Array = NDArray[np.float64]

MOST_PRIOR_WEIGHT = 10.0
"""Degrees of freedom that other runs may weigh in the variance: with a prior of a quarter of the true
variance the error stays near 5 % (docs/statistics.md)."""
LEAST_PAIRS = 3
"""A look at fewer pairs cannot decide anything."""
SIMULATED = 1_000_000
"""Studies behind the nominal levels of looks that are not in the table; the standard error of the error
spent up to a look is then at most 0.02 points."""


@dataclass(frozen=True)
class SequentialDesign:
    """The looks of a study and what each may spend.

    Attributes:
        looks: numbers of pairs, ascending, the first at least 3.
        level: 1 - level is the chance, over all looks, of "better or worse" when the arms do not differ,
            and of "equivalent" when they differ by the margin.
        exponent: of the spending function, > 0; small values spend early.
        difference: nominal two-sided p of each look.
        equivalence: nominal one-sided p of each look.
    """

    looks: tuple[int, ...]
    level: float
    exponent: float
    difference: tuple[float, ...]
    equivalence: tuple[float, ...]

    def index_of(self, pairs: int) -> int | None:
        """The look that is due with this many pairs: the last one reached, None before the first."""
        reached = [i for i, look in enumerate(self.looks) if look <= pairs]
        return reached[-1] if reached else None


@dataclass(frozen=True)
class PriorSpread:
    """What other runs say about the spread of a paired difference.

    Attributes:
        variance: of one paired difference, in squared units of the metric.
        df: degrees of freedom of that estimate.
    """

    variance: float
    df: float


def sequential_design(looks: Sequence[int], level: float = 0.95, exponent: float = 2.0) -> SequentialDesign:
    """The design with these looks; its nominal levels from the table, else simulated (some seconds).

    Raises:
        ValueError: the looks do not ascend or start below 3 pairs, or level or exponent are out of range.
    """
    looks = tuple(int(look) for look in looks)
    if not looks or looks[0] < LEAST_PAIRS or any(b <= a for a, b in itertools.pairwise(looks)):
        raise ValueError(
            f"looks: {list(looks)}; give ascending numbers of pairs, the first at least {LEAST_PAIRS}"
        )
    if not 0 < level < 1 or exponent <= 0:
        raise ValueError(f"level {level} must lie between 0 and 1, exponent {exponent} above 0")
    if len(looks) == 1:  # the ordinary tests
        return SequentialDesign(looks, level, exponent, (1 - level,), (1 - level,))
    row = LEVELS.get((looks, exponent)) if level == 0.95 else None
    difference, equivalence = row or simulated_levels(looks, level, exponent)
    return SequentialDesign(looks, level, exponent, difference, equivalence)


@lru_cache(maxsize=32)
def simulated_levels(
    looks: tuple[int, ...], level: float, exponent: float, studies: int = SIMULATED, seed: int = 0
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Nominal levels of every look, by simulating studies without a difference.

    At each look the level is the quantile of p among the studies not yet stopped that spends just what
    the spending function allows. For equivalence the study's true difference is the margin itself, so
    that the p of the one-sided test against it has the same distribution as a one-sided p under no
    difference.

    Returns:
        (two-sided p of a difference, one-sided p of equivalence), one value for each look.
    """
    rng = np.random.default_rng(seed)
    k = np.array(looks)
    one_sided = np.empty((studies, len(looks)))
    for start in range(0, studies, 100_000):
        rows = slice(start, min(start + 100_000, studies))
        mean, variance = cumulative(rng.standard_normal((rows.stop - start, looks[-1])), looks)
        one_sided[rows] = special.stdtr(k - 1.0, -mean / np.sqrt(variance / k))
    two_sided = 2 * np.minimum(one_sided, 1 - one_sided)
    spending = (1 - level) * (k / k[-1]) ** exponent
    return _spend(two_sided, spending), _spend(one_sided, spending)


def _spend(p: Array, spending: Array) -> tuple[float, ...]:
    """The level of each look with which the share of stopped studies follows `spending`."""
    going = np.ones(len(p), bool)
    levels = []
    for look, allowed in enumerate(spending):
        stops = round(allowed * len(p)) - int((~going).sum())
        level = float(np.partition(p[going, look], stops)[stops])
        levels.append(level)
        going &= p[:, look] >= level
    return tuple(levels)


def cumulative(differences: Array, looks: Sequence[int]) -> tuple[Array, Array]:
    """Mean and sample variance of the first `look` differences of each study.

    Args:
        differences: (studies, pairs).

    Returns:
        Two arrays (studies, looks).
    """
    k = np.array(looks)
    # Around the first value: the sums of squares of values far from 0 would cancel.
    centre = differences[:, :1]
    shifted = differences - centre
    total, squares = np.cumsum(shifted, axis=1)[:, k - 1], np.cumsum(shifted**2, axis=1)[:, k - 1]
    mean = total / k
    variance = np.maximum(squares - k * mean**2, 0) / (k - 1)
    return mean + centre, variance


def moderated_variance(variance: Array, df: Array, prior: PriorSpread | None) -> Array:
    """The variance of the differences, drawn towards what other runs say about it.

        (d0 s0^2 + d s^2) / (d0 + d),  d0 = min(prior df, 2 d, 10)

    A few differences that agree by luck, as they do when an arm's rare failures have not occurred yet,
    otherwise look far too certain. The test keeps the d degrees of freedom of the differences alone, so
    that the prior protects and does not sharpen.

    Source: Smyth, Stat. Appl. Genet. Mol. Biol. 3, 2004, with the prior's weight capped.
    """
    if prior is None or prior.df <= 0:
        return variance
    weight = np.minimum(min(prior.df, MOST_PRIOR_WEIGHT), 2 * df)
    return (weight * prior.variance + df * variance) / (weight + df)


@dataclass(frozen=True)
class Outcomes:
    """How each of many studies ended.

    Attributes:
        decided: +1 better, -1 worse, 0 equivalent, NaN undecided at the last look.
        look: index of the look at which it stopped, the last one where undecided.
        mean, variance: of the differences at that look.
    """

    decided: Array
    look: NDArray[np.intp]
    mean: Array
    variance: Array


def outcomes(
    differences: Array, design: SequentialDesign, margin: float | None, prior: PriorSpread | None = None
) -> Outcomes:
    """Apply the design to many studies at once.

    Args:
        differences: (studies, pairs), pairs at least the last look.
        margin: of equivalence; None: nothing is called equivalent.
    """
    k = np.array(design.looks)
    mean, raw = cumulative(differences, design.looks)
    variance = moderated_variance(raw, k - 1.0, prior)
    error = np.sqrt(np.maximum(variance, 1e-300) / k)
    differs = 2 * special.stdtr(k - 1.0, -np.abs(mean) / error) < np.array(design.difference)
    within = np.zeros_like(differs)
    if margin is not None:
        within = special.stdtr(k - 1.0, (np.abs(mean) - margin) / error) < np.array(design.equivalence)
    stops = differs | within
    look = np.where(stops.any(1), stops.argmax(1), len(k) - 1)
    rows = np.arange(len(mean))
    decided = np.where(within[rows, look], 0.0, np.sign(mean[rows, look]))
    decided[~stops.any(1)] = math.nan
    return Outcomes(decided, look, mean[rows, look], variance[rows, look])


def median_unbiased(
    mean: float,
    sd: float,
    design: SequentialDesign,
    margin: float | None,
    prior: PriorSpread | None = None,
    studies: int = 20_000,
) -> float:
    """The difference under which the design's final mean lies above and below the observed one equally often.

    The mean at the moment of stopping is too large on average when it stopped for being large. Studies
    with normal differences of standard deviation `sd` are simulated from fixed random numbers; the true
    difference is found by bisection.

    Args:
        mean: observed at the look at which the study stopped, in the metric's units.
        sd: of the paired differences, > 0.
        prior: as the study used it.

    Source: Emerson and Fleming, Biometrika 77, 1990, with the ordering by the sample mean.
    """
    noise = np.random.default_rng(0).standard_normal((studies, design.looks[-1]))
    scaled = None if margin is None else margin / sd
    spread = None if prior is None else PriorSpread(prior.variance / sd**2, prior.df)

    def share_above(shift: float) -> float:
        return float((outcomes(noise + shift, design, scaled, spread).mean >= mean / sd).mean())

    low, high = mean / sd - 3.0, mean / sd + 3.0
    for _ in range(24):
        middle = (low + high) / 2
        low, high = (middle, high) if share_above(middle) < 0.5 else (low, middle)
    return sd * (low + high) / 2


def chance_to_tell(
    differences: Array,
    design: SequentialDesign,
    margin: float | None,
    prior: PriorSpread | None = None,
    studies: int = 4_000,
) -> float:
    """Probability that one of the looks still to come decides, given the differences so far.

    The missing pairs are drawn from the predictive distribution of normal differences with unknown mean
    and variance (Student's t around the mean so far). Nothing is stopped by it unless the user wants
    so (a non-binding rule): the levels hold either way.

    Args:
        differences: (pairs,) so far, at least 2.
    """
    d = np.asarray(differences, float)
    n, last = len(d), design.looks[-1]
    to_come = [i for i, look in enumerate(design.looks) if look > n]
    if not to_come:
        return 0.0
    rng = np.random.default_rng(0)
    df = np.array([n - 1.0])
    variance = float(moderated_variance(np.array([d.var(ddof=1)]), df, prior)[0])
    sd = np.sqrt(variance * (n - 1) / rng.chisquare(n - 1, studies))
    mean = d.mean() + sd / math.sqrt(n) * rng.standard_normal(studies)
    future = mean[:, None] + sd[:, None] * rng.standard_normal((studies, last - n))
    whole = np.concatenate([np.broadcast_to(d, (studies, n)), future], axis=1)
    rest = SequentialDesign(
        tuple(design.looks[i] for i in to_come),
        design.level,
        design.exponent,
        tuple(design.difference[i] for i in to_come),
        tuple(design.equivalence[i] for i in to_come),
    )
    return float(np.isfinite(outcomes(whole, rest, margin, prior).decided).mean())
