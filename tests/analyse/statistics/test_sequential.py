"""Interim looks: the error over all looks, against plain loops, known tables and simulated studies."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from ablation.analyse.statistics.sequential import (
    PriorSpread,
    chance_to_tell,
    cumulative,
    median_unbiased,
    moderated_variance,
    outcomes,
    sequential_design,
    simulated_levels,
)


@pytest.mark.parametrize(
    ("looks", "difference", "equivalence"),
    [
        ((3, 5, 8, 12), (0.0031, 0.0059, 0.0153, 0.0354), (0.0031, 0.0060, 0.0158, 0.0374)),
        ((4, 6, 8, 10), (0.0080, 0.0119, 0.0196, 0.0303), (0.0080, 0.0125, 0.0210, 0.0328)),
        ((4, 8, 12, 16), (0.0031, 0.0098, 0.0196, 0.0336), (0.0031, 0.0100, 0.0205, 0.0359)),
    ],
)
def test_levels_agree_with_those_simulated_elsewhere(
    looks: tuple[int, ...], difference: tuple[float, ...], equivalence: tuple[float, ...]
) -> None:
    design = sequential_design(looks)
    assert design.difference == pytest.approx(difference, rel=0.02)
    assert design.equivalence == pytest.approx(equivalence, rel=0.02)


def test_table_is_what_the_simulation_gives() -> None:
    design = sequential_design((4, 6, 8, 10))
    again = simulated_levels((4, 6, 8, 10), 0.95, 2.0, studies=200_000, seed=99)
    assert again[0] == pytest.approx(design.difference, rel=0.08)
    assert again[1] == pytest.approx(design.equivalence, rel=0.08)


def test_one_look_is_the_ordinary_test() -> None:
    design = sequential_design((6,))
    assert design.difference == pytest.approx((0.05,)) and design.equivalence == pytest.approx((0.05,))


@pytest.mark.parametrize("looks", [(2, 4), (4, 4), (6, 5), ()])
def test_looks_that_make_no_design_are_refused(looks: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="ascending"):
        sequential_design(looks)


def plain_outcome(d: np.ndarray, design: object, margin: float) -> tuple[float, int]:
    """The rule in a loop, with scipy's textbook tests."""
    for i, look in enumerate(design.looks):  # type: ignore[attr-defined]
        x = d[:look]
        below = stats.ttest_1samp(x, margin, alternative="less").pvalue
        above = stats.ttest_1samp(x, -margin, alternative="greater").pvalue
        if max(below, above) < design.equivalence[i]:  # type: ignore[attr-defined]
            return 0.0, i
        if stats.ttest_1samp(x, 0.0).pvalue < design.difference[i]:  # type: ignore[attr-defined]
            return float(np.sign(x.mean())), i
    return math.nan, len(design.looks) - 1  # type: ignore[attr-defined]


def test_outcomes_follow_the_plain_loop() -> None:
    rng = np.random.default_rng(0)
    design = sequential_design((4, 5, 6, 8, 10, 12, 16), exponent=1.0)
    d = rng.standard_normal((300, 16)) + rng.uniform(-2, 2, (300, 1))
    result = outcomes(d, design, 1.0)
    for row, decided, look in zip(d, result.decided, result.look, strict=True):
        expected = plain_outcome(row, design, 1.0)
        assert look == expected[1]
        assert decided == expected[0] or (math.isnan(decided) and math.isnan(expected[0]))


def test_cumulative_is_mean_and_variance_also_far_from_zero() -> None:
    d = np.random.default_rng(1).standard_normal((5, 12)) + 1e6
    mean, variance = cumulative(d, (3, 7, 12))
    for column, look in enumerate((3, 7, 12)):
        assert mean[:, column] == pytest.approx(d[:, :look].mean(axis=1))
        assert variance[:, column] == pytest.approx(d[:, :look].var(axis=1, ddof=1), rel=1e-6)


@pytest.mark.parametrize("prior", [None, PriorSpread(1.0, 20), PriorSpread(0.5, 10)])
def test_error_over_all_looks_is_at_most_five_percent(prior: PriorSpread | None) -> None:
    rng = np.random.default_rng(2)
    design = sequential_design((4, 5, 6, 8, 10, 12, 16), exponent=1.0)
    d = rng.standard_normal((40_000, 16))
    false_findings = np.nanmean(np.abs(outcomes(d, design, None, prior).decided) == 1)
    assert false_findings < 0.05 + 3 * 0.0011
    for edge in (1.0, -1.0):
        false_equivalence = (outcomes(d + edge, design, 1.0, prior).decided == 0).mean()
        assert false_equivalence < 0.05 + 3 * 0.0011


def test_looking_again_and_again_at_one_level_would_be_wrong_far_more_often() -> None:
    """The check that the one above can fail."""
    rng = np.random.default_rng(2)
    looks = (4, 5, 6, 8, 10, 12, 16)
    mean, variance = cumulative(rng.standard_normal((20_000, 16)), looks)
    k = np.array(looks)
    p = 2 * stats.t.sf(np.abs(mean) / np.sqrt(variance / k), k - 1)
    assert (p < 0.05).any(axis=1).mean() > 0.12


def test_moderated_variance_by_hand() -> None:
    # d = 3, prior df 4: weight min(4, 6) = 4; (4 x 2 + 3 x 9) / 7 = 5
    assert moderated_variance(np.array([9.0]), np.array([3.0]), PriorSpread(2.0, 4))[0] == pytest.approx(5.0)
    # prior df 100 counts as 2 d = 6: (6 x 2 + 3 x 9) / 9 = 13 / 3
    capped = moderated_variance(np.array([9.0]), np.array([3.0]), PriorSpread(2.0, 100))[0]
    assert capped == pytest.approx(13 / 3)
    # d = 15: no more than 10
    capped = moderated_variance(np.array([9.0]), np.array([15.0]), PriorSpread(2.0, 100))[0]
    assert capped == pytest.approx((10 * 2 + 15 * 9) / 25)
    assert moderated_variance(np.array([9.0]), np.array([3.0]), None)[0] == 9.0


def test_rare_collapses_do_not_pass_for_certainty() -> None:
    """A sixth of the runs loses 10 standard deviations: the prior knows, a few lucky pairs do not."""
    rng = np.random.default_rng(3)
    design = sequential_design((4, 5, 6, 8, 10, 12, 16), exponent=1.0)

    def noise(shape: tuple[int, int]) -> np.ndarray:
        values = rng.standard_normal(shape) - 10 * (rng.random(shape) < 1 / 6)
        return (values + 10 / 6) / math.sqrt(1 + 100 * 5 / 36)

    wrong = {True: 0.0, False: 0.0}
    for _ in range(1_500):
        prior = PriorSpread(float(noise((1, 20)).var(ddof=1)), 19)
        d = noise((1, 16)) - 1.0  # worse by exactly the margin
        for with_prior in wrong:
            decided = outcomes(d, design, 1.0, prior if with_prior else None).decided[0]
            wrong[with_prior] += (decided == 0) / 1_500
    assert wrong[False] > 0.15
    assert wrong[True] < 0.08


def test_median_unbiased_estimate_undoes_stopping_early() -> None:
    """Over studies with a true difference of 1 sd, half of the estimates lie above it."""
    rng = np.random.default_rng(4)
    design = sequential_design((4, 6, 8, 10))
    result = outcomes(rng.standard_normal((150, 10)) + 1.0, design, None)
    estimates = [median_unbiased(float(mean), 1.0, design, None, studies=1_500) for mean in result.mean]
    assert np.mean(result.mean) > 1.04  # the plain mean is too large
    assert 0.35 < np.mean(np.array(estimates) > 1.0) < 0.62


def test_chance_to_tell_is_high_for_a_large_difference_and_zero_at_the_end() -> None:
    design = sequential_design((4, 6, 8, 10))
    rng = np.random.default_rng(5)
    large = 2.0 + rng.standard_normal(4)
    assert chance_to_tell(large, design, 1.0) > 0.8
    between = np.array([0.5, -1.0, 1.5, 1.0, -0.5, 2.0, 0.0, 0.9])
    assert chance_to_tell(between, design, 0.2) < 0.3
    assert chance_to_tell(rng.standard_normal(10), design, 1.0) == 0.0
