"""Interval, Holm and TOST on hand-worked numbers and planted truths."""

from __future__ import annotations

import math

import numpy as np
import pytest
from statsmodels.stats.weightstats import ttost_paired

from ablation.analyse.statistics.hypothesis_tests import holm, tost_p
from ablation.analyse.statistics.intervals import ImagePart, difference_interval, image_part
from ablation.rng import generator


def test_holm_by_hand() -> None:
    """.01 x 4, .02 x 3, then max(.03 x 2, .06) and max(.04 x 1, .06)."""
    assert holm([0.02, 0.01, 0.04, 0.03]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.6, 0.7]) == [1.0, 1.0]


def test_an_arm_without_a_test_still_belongs_to_the_family() -> None:
    found = holm([0.01, math.nan, 0.2], 3)
    assert found[0] == pytest.approx(0.03) and math.isnan(found[1]) and found[2] == pytest.approx(0.4)
    assert all(map(math.isnan, holm([math.nan])))


def test_tost_by_hand() -> None:
    """.01 .02 .03: mean .02, se .005774; margin .05: t = -.03 / .005774 = -5.196.

    With 2 df, p = (1 - 5.196 / sqrt(29)) / 2.
    """
    interval = difference_interval([0.01, 0.02, 0.03])
    assert tost_p(interval, 0.05) == pytest.approx(0.0175494, abs=1e-7)
    assert tost_p(interval, 0.02) == pytest.approx(0.5)
    assert math.isnan(tost_p(difference_interval([0.01]), 0.05))


def test_tost_without_images_is_that_of_statsmodels() -> None:
    a, b = generator(0, "tost").normal(0, 1, (2, 9))
    assert tost_p(difference_interval(a - b), 0.8) == pytest.approx(
        ttost_paired(a, b, -0.8, 0.8)[0], rel=1e-9
    )


def test_interval_by_hand() -> None:
    """d = 1, 2, 3: s^2/n = 1/3. With an image_se of 1 and 8 df the variance is 4/3,

    df = (16/9) / ((1/9)/2 + 1/8) = 9.846154, t(.975) = 2.232770, half = 2.232770 x 1.154701 = 2.5782.
    """
    plain = difference_interval([1, 2, 3])
    assert (plain.low, plain.high) == pytest.approx((2 - 2.484138, 2 + 2.484138), abs=1e-6)
    both = difference_interval([1, 2, 3], image=ImagePart(1.0, 0.0, 8.0))
    assert both.df == pytest.approx(9.846154, abs=1e-6)
    assert both.high - both.mean == pytest.approx(2.5782, abs=2e-4)
    assert both.low < both.mean < both.high and (both.p < 0.05) == (both.low > 0)


def test_equal_differences_have_no_spread() -> None:
    found = difference_interval([0.1 + 0.2 - 0.3 + 0.02, 0.02, 0.02])
    assert found.low == found.mean == found.high and found.p == 0.0
    assert difference_interval([0, 0, 0]).p == 1.0


def test_the_parts_of_the_images_are_told_apart() -> None:
    """V = .03^2 shared by the seeds, W = .02^2 of each seed alone: 20,000 resamples of 6 seeds."""
    random = generator(0, "parts")
    d = random.normal(0, 0.03, (20000, 1)) + random.normal(0, 0.02, (20000, 6))
    found = image_part(d, 10**6)
    assert found.se == pytest.approx(0.03, rel=0.02) and found.interaction_sd == pytest.approx(0.02, rel=0.02)
    alone = image_part(random.normal(0, 0.02, (20000, 6)), 10**6)
    assert alone.se < 0.002 and alone.interaction_sd == pytest.approx(0.02, rel=0.02)


@pytest.mark.parametrize("n", [6, 12])
def test_intervals_over_seeds_cover_and_a_percentile_bootstrap_does_not(n: int) -> None:
    random = generator(n, "coverage")
    d = random.normal(0.02, 0.01, (4000, n))
    found = [difference_interval(row) for row in d]
    assert 0.94 <= np.mean([one.low <= 0.02 <= one.high for one in found]) <= 0.96
    means = d[:2000, random.integers(0, n, (400, n))].mean(axis=2)
    low, high = np.percentile(means, [2.5, 97.5], axis=1)
    assert np.mean((low <= 0.02) & (high >= 0.02)) < (0.90 if n == 6 else 0.935)
