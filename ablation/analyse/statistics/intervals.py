"""The interval of a paired difference that covers both other seeds and other images.

One study sees n seeds and m images. Its paired differences d_s = AP(arm, s) - AP(BCE, s) vary because
of the seeds (initial weights, order of the images) and because of the images they are measured on:

    d_s on the images I = theta + u_s + v_I + w_sI,    variances S, V, W

The mean of d over the seeds on one set of images has the variance S/n + V + W/n.

- Between seeds, the sample variance s^2 of the d_s on ALL images estimates S + W. This level of the
  nest needs no resampling: the bootstrap's variance of a mean is known, (n - 1)/n s^2 / n, and its
  factor is what makes a percentile interval over 6 seeds too short.
- Between images, AP is recomputed on resampled images, the SAME resample for every run: the variance
  of the mean of d over resamples estimates V + W/n, the mean of the variances of single d_s V + W,
  so W = n/(n - 1) x their difference, and V what is left; neither below 0.

Their sum s^2/n + V is the variance; its degrees of freedom follow Welch and Satterthwaite, and the
interval is mean +- t x its root. docs/statistics.md shows how often it covers.

With n seeds the unit of observation is one training, so n is small, and small n is what limits
every statement here:

- n = 1: no interval exists; every bound is NaN.
- n = 2: Student's t has one degree of freedom and the 95 % interval is the mean +- 12.7 standard
  errors. It is valid only if the values are normal, and its width is itself almost pure chance (two
  seeds that happen to agree give a narrow interval that means nothing). Do not conclude from it.
- n = 3 to 5: usable, but the exact sign-flip test cannot go below p = 0.25 (n = 3) or 0.0625
  (n = 5), however large the effect.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from ablation.analyse.statistics.sequential import PriorSpread, moderated_variance

RESAMPLES = 200
"""Resamples of the images; the relative error of a standard error is then 5 %."""


@dataclass(frozen=True)
class ImagePart:
    """What the choice of images adds.

    Attributes:
        se: standard error of the mean difference over the choice of images, root of V.
        interaction_sd: how much more a single seed's difference moves with the images, root of W.
        df: degrees of freedom of se^2.
    """

    se: float
    interaction_sd: float
    df: float


@dataclass(frozen=True)
class Interval:
    """A mean over seeds with its uncertainty; what cannot be given is NaN.

    Attributes:
        mean, low, high: in the metric's units; low <= mean <= high.
        n: values, one per seed (or pair of runs of one seed).
        sd: standard deviation of the values between seeds.
        image: what the choice of images adds; None where no detections are stored.
        se: standard error of the mean, both parts.
        df: degrees of freedom of se^2.
        p: two-sided p of the t test with the same se and df: p < 1 - level just where the interval
            does not include 0.
    """

    mean: float
    low: float
    high: float
    n: int
    sd: float
    image: ImagePart | None
    se: float
    df: float
    p: float


def image_part(resampled: NDArray[np.float64], images: int) -> ImagePart:
    """V and W from differences on resampled images.

    Args:
        resampled: (resamples, seeds) the paired differences on each resample.
        images: how many there are; m/(m - 1) makes up for the bootstrap's bias.
    """
    rows = resampled[np.isfinite(resampled).all(axis=1)]
    count, n = rows.shape
    factor = images / (images - 1)
    of_mean = factor * float(rows.mean(axis=1).var(ddof=1))
    of_one = factor * float(rows.var(axis=0, ddof=1).mean())
    interaction = max(n / (n - 1) * (of_one - of_mean), 0.0) if n > 1 else 0.0
    alone = max(of_mean - interaction / n, 0.0)
    # The images are a sample, and so are the resamples: both leave the variance uncertain.
    df = 1 / (1 / (images - 1) + 1 / (count - 1))
    return ImagePart(math.sqrt(alone), math.sqrt(interaction), df)


def difference_interval(
    differences: ArrayLike,
    level: float = 0.95,
    image: ImagePart | None = None,
    prior: PriorSpread | None = None,
) -> Interval:
    """mean +- t_{(1 + level) / 2, df} sqrt(s^2 / n + V), see the head of this file.

    Without `image` it is Student's t interval over seeds, and says nothing about other images.

    Args:
        differences: (n,) paired differences on all images, finite, one per seed.
        level: probability in (0, 1) that the interval covers the mean over all seeds (and images).
        prior: what other runs say about the spread between seeds; s^2 is drawn towards it, see
            sequential.moderated_variance. `sd` of the result is then the moderated one.
    """
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1, not {level}")
    d = np.asarray(differences, float)
    n = len(d)
    if n == 0:
        return Interval(math.nan, math.nan, math.nan, 0, math.nan, image, math.nan, math.nan, math.nan)
    mean = float(d.mean())
    if n == 1:
        return Interval(mean, math.nan, math.nan, 1, math.nan, image, math.nan, math.nan, math.nan)
    sd = float(d.std(ddof=1))
    # Equal differences differ in their last bits, which would pass for a spread.
    if sd <= 1e-12 * max(float(np.abs(d).max()), 1e-300):
        sd = 0.0
    sd = math.sqrt(float(moderated_variance(np.array([sd**2]), np.array([n - 1.0]), prior)[0]))
    seeds, images = sd**2 / n, 0.0 if image is None else image.se**2
    total = seeds + images
    se = math.sqrt(total)
    if total == 0:
        return Interval(mean, mean, mean, n, sd, image, 0.0, float(n - 1), 1.0 if mean == 0 else 0.0)
    spread = seeds**2 / (n - 1) + (images**2 / image.df if image is not None else 0.0)
    df = total**2 / spread if spread > 0 else float(n - 1)  # the squares of tiny variances underflow
    half = float(special.stdtrit(df, (1 + level) / 2)) * se
    p = float(2 * special.stdtr(df, -abs(mean) / se))
    return Interval(mean, mean - half, mean + half, n, sd, image, se, df, p)


def mean_interval(values: Iterable[float], level: float = 0.95) -> Interval:
    """Student's t interval of the mean: m +- t_{(1 + level) / 2, n - 1} s / sqrt(n).

    Args:
        values: one per seed; NaN and infinity are left out and do not count in n.
        level: probability in (0, 1) that the interval covers the mean of the population of seeds.

    Source: Student, "The probable error of a mean", 1908. Assumes independent, normal values.
    """
    sample = np.asarray(list(values), dtype=float)
    sample = sample[np.isfinite(sample)]
    interval = difference_interval(sample, level)
    n = interval.n
    if n < 2:
        return interval
    # s / sqrt(n) and not sqrt(s^2 / n): the squares of tiny deviations would underflow.
    sd = float(sample.std(ddof=1))
    half = float(special.stdtrit(n - 1, (1 + level) / 2)) * sd / math.sqrt(n)
    return replace(interval, sd=sd, low=interval.mean - half, high=interval.mean + half)
