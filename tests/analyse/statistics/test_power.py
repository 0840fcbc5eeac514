"""Power: published numbers, scipy's noncentral t, and simulated studies."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats as scipy_stats

from ablation.analyse.statistics import power
from ablation.analyse.statistics.hypothesis_tests import tost_p
from ablation.analyse.statistics.intervals import difference_interval
from ablation.rng import generator


@pytest.mark.parametrize(("n", "effect"), [(3, 3.26), (5, 1.68), (8, 1.16), (10, 1.00), (20, 0.66)])
def test_smallest_detectable_effect(n: int, effect: float) -> None:
    assert power.detectable_effect(n) == pytest.approx(effect, abs=0.005)


def test_pairs_for_equivalence() -> None:
    assert power.seeds_for_equivalence(0.5, 1) == 36
    assert power.seeds_for_equivalence(1, 1) == 11
    assert power.seeds_for_equivalence(0.01, 0.02) == 36, "only the ratio counts"


@pytest.mark.parametrize(("n", "effect"), [(2, 1.0), (4, 0.5), (6, 2.0), (30, 0.3)])
def test_power_is_the_noncentral_t(n: int, effect: float) -> None:
    critical = scipy_stats.t.ppf(0.975, n - 1)
    shift = effect * np.sqrt(n)
    expected = scipy_stats.nct.sf(critical, n - 1, shift) + scipy_stats.nct.cdf(-critical, n - 1, shift)
    assert power.power_of_difference(effect, 1, n) == pytest.approx(expected, abs=2e-4)


def test_the_number_found_is_the_smallest() -> None:
    n = power.seeds_to_detect(0.7, 1)
    assert n is not None and power.power_of_difference(0.7, 1, n) >= 0.8
    assert power.power_of_difference(0.7, 1, n - 1) < 0.8


def test_no_number_of_seeds_makes_up_for_images() -> None:
    """With an image_se of half the margin even endless seeds leave z = 2: 52 % power."""
    assert power.seeds_to_detect(0.01, 0.02, image_se=0.005) is None
    assert power.seeds_to_tell(0.01, 0.02, image_se=0.005) is None
    few, more = power.seeds_to_tell(0.01, 0.02), power.seeds_to_tell(0.01, 0.02, image_se=0.002)
    assert few is not None and more is not None and more > few
    assert power.seeds_to_detect(0, 1) is None


def test_a_family_needs_more() -> None:
    one, nine = power.seeds_to_tell(0.01, 0.01), power.seeds_to_tell(0.01, 0.01, family=9)
    assert one == 11 and nine is not None and nine > 11


def test_simulated_studies_agree_with_the_calculation() -> None:
    """4,000 studies: an effect is found at 6 pairs, and equality shown at 11, as often as said."""
    random = generator(0, "power")
    found = [difference_interval(row).p < 0.05 for row in random.normal(1.2, 1, (4000, 6))]
    assert np.mean(found) == pytest.approx(power.power_of_difference(1.2, 1, 6), abs=0.03)
    shown = [tost_p(difference_interval(row), 1) < 0.05 for row in random.normal(0, 1, (4000, 11))]
    assert np.mean(shown) == pytest.approx(power.power_of_equivalence(1, 1, 11), abs=0.03)
