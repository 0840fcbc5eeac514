"""Intervals and tests against hand-worked numbers, scipy and planted truths."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pandas as pd
import pytest
from helpers.synthetic import bce, focal, study
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from ablation.analyse.statistics.hypothesis_tests import sign_flip_p
from ablation.analyse.statistics.intervals import mean_interval
from ablation.analyse.statistics.paired import Comparison, compare
from ablation.analyse.tables import table
from ablation.rng import generator


def test_interval_by_hand() -> None:
    """1..5: mean 3, s = sqrt(2.5) = 1.581139, t(.975, 4) = 2.776445, half = 1.963243."""
    found = mean_interval([1, 2, 3, 4, 5])
    assert (found.mean, found.n) == (3.0, 5)
    assert (found.sd, found.low, found.high) == pytest.approx((1.581139, 1.036757, 4.963243), abs=1e-6)


def test_interval_of_two_is_12_7_standard_errors() -> None:
    """0.40 and 0.42: s / sqrt(2) = 0.01, t(.975, 1) = 12.706205."""
    found = mean_interval([0.40, 0.42])
    assert (found.low, found.high) == pytest.approx((0.41 - 0.12706205, 0.41 + 0.12706205), abs=1e-8)


def test_one_value_has_no_interval_and_none_has_no_mean() -> None:
    one, none = mean_interval([0.4]), mean_interval([math.nan, math.inf])
    assert (one.mean, one.n) == (0.4, 1) and all(map(math.isnan, (one.sd, one.low, one.high)))
    assert none.n == 0 and all(map(math.isnan, (none.mean, none.sd, none.low, none.high)))


def test_non_finite_values_do_not_count() -> None:
    assert mean_interval([1, math.nan, 3, -math.inf]) == mean_interval([1, 3])


@pytest.mark.parametrize("level", [0, 1, 1.5, 95])
def test_level_must_be_a_probability(level: float) -> None:
    with pytest.raises(ValueError, match="level"):
        mean_interval([1, 2], level)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(-1, 1), min_size=2, max_size=12))
def test_interval_agrees_with_scipy_and_is_ordered(sample: list[float]) -> None:
    found = mean_interval(sample)
    assert found.low <= found.mean <= found.high
    if np.std(sample) > 1e-6:
        low, high = scipy_stats.ttest_1samp(sample, 0).confidence_interval(0.95)
        assert (found.low, found.high) == pytest.approx((low, high), rel=1e-9, abs=1e-12)


def test_intervals_cover_as_often_as_they_say() -> None:
    random = generator(0, "coverage")
    for n in (2, 3, 6):
        samples = random.normal(0.4, 0.02, (2000, n))
        inside = [i.low <= 0.4 <= i.high for i in (mean_interval(row) for row in samples)]
        # 4 standard errors of a share of .95 over 2000.
        assert np.mean(inside) == pytest.approx(0.95, abs=0.0195)


@pytest.mark.parametrize(
    ("differences", "p"),
    [
        ([1, 2, 3], 2 / 8),  # only all + and all - reach 6
        ([1, 2, -3], 1.0),  # the sum is 0
        ([3, 2, -1], 4 / 8),  # the eight sums are +-6, +-4, +-2, 0, 0; four of them reach |4|
        ([1, 1, 1, 1, 1], 2 / 32),
        ([1, 1, 1, 1, 1, 1], 2 / 64),
        ([1, 1, 1, 1, -1], 12 / 32),  # |sum| >= 3: at most one sign differs: 2 (1 + 5)
        ([0.5], 1.0),
        ([0, 0, 0], 1.0),
        ([0.1, 0.1, 0.1], 0.25),  # .1 + .1 + .1 is not .3 in floating point
    ],
)
def test_sign_flip_by_hand(differences: list[float], p: float) -> None:
    assert sign_flip_p(differences) == p


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(-5, 5), min_size=1, max_size=9))
def test_sign_flip_equals_plain_enumeration(differences: list[int]) -> None:
    sums = [sum(s * d for s, d in zip(signs, differences, strict=True))
            for signs in itertools.product((-1, 1), repeat=len(differences))]  # fmt: skip
    expected = np.mean([abs(s) >= abs(sum(differences)) for s in sums])
    # A tenth makes the sums inexact, as real differences are.
    assert sign_flip_p([d / 10 for d in differences]) == pytest.approx(expected, abs=1e-12)


def test_sign_flip_equals_scipy_on_real_numbers() -> None:
    d = generator(1, "flip").normal(0.3, 1, 10)
    expected = scipy_stats.permutation_test((d,), np.sum, permutation_type="samples", n_resamples=np.inf)
    assert sign_flip_p(d) == pytest.approx(expected.pvalue, abs=1e-12)


def test_sign_flip_is_exact_up_to_forty_and_continues_smoothly() -> None:
    """With m of n equal differences negative it is a binomial test: here 2 P(X <= 14), X ~ B(40, .5)."""
    forty = [1.0] * 26 + [-1.0] * 14
    assert sign_flip_p(forty) == pytest.approx(2 * scipy_stats.binom.cdf(14, 40, 0.5), rel=1e-9)
    d = generator(2, "flip").normal(0.2, 1, 41)
    assert sign_flip_p(d) == pytest.approx(sign_flip_p(d[:40]), abs=0.05)
    assert math.isnan(sign_flip_p([]))


def difference(a: pd.Series, b: pd.Series) -> Comparison:
    return compare(a, b, names=("a", "", "b"), level=0.95, margin=None)


def test_paired_difference_by_hand() -> None:
    """Seeds 1, 2, 3 in common: differences 1, 2, 3: mean 2, sd 1, half = 4.302653 / sqrt(3) = 2.484138."""
    a = pd.Series({3: 13.0, 1: 11.0, 2: 12.0, 9: 99.0, 4: math.nan})
    b = pd.Series({1: 10.0, 2: 10.0, 3: 10.0, 8: -99.0, 4: 10.0})
    forth, back = difference(a, b), difference(b, a)
    assert (forth.difference, forth.seed_sd, forth.n_pairs, forth.p_sign_flip) == (2.0, 1.0, 3, 0.25)
    assert (forth.low, forth.high) == pytest.approx((2 - 2.484138, 2 + 2.484138), abs=1e-6)
    assert (back.difference, back.low, back.high) == pytest.approx((-2, -forth.high, -forth.low))


def test_no_common_seed_gives_nothing() -> None:
    empty = difference(pd.Series({1: 1.0}), pd.Series({2: 1.0}))
    assert empty.n_pairs == 0 and math.isnan(empty.difference) and math.isnan(empty.p_sign_flip)


def test_a_seed_that_occurs_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="a seed occurs twice"):
        difference(pd.Series([1.0, 2.0], index=[0, 0]), pd.Series({0: 1.0}))


def test_pairing_removes_what_the_seeds_share() -> None:
    """Noise of .05 shared by a seed's arms, .002 of their own: only the paired interval sees +.02."""
    record = study([(bce(), 0.40), (focal(0.5, 1), 0.42)], range(8), sd_seed=0.05, sd_noise=0.002)
    runs = table.runs_table(record)
    assert table.arms_table(runs, "val/AP").iloc[1]["low"] < 0.40
    values = {arm: rows.set_index("seed")["val/AP"] for arm, rows in runs.groupby("arm")}
    numbers = difference(values[focal(0.5, 1)[0]], values["bce"])
    assert 0.016 < numbers.low < 0.02 < numbers.high < 0.024
    assert numbers.p_sign_flip == 2 / 256
