"""A study that declared looks: verdicts only at them, at their levels, and the first decision counts."""

from __future__ import annotations

import dataclasses
import math

import pytest
from helpers import synthetic

from ablation.analyse.statistics.paired import BETTER, INCONCLUSIVE
from ablation.analyse.statistics.sequential import sequential_design
from ablation.analyse.verdict.verdict import StudyVerdict, judge
from ablation.analyse.view import study_view
from ablation.records import Declaration, PlannedRun, StudyRecord
from ablation.rng import generator

LOOKS = (4, 6, 8)
BCE, GOOD, SAME = synthetic.bce(), synthetic.focal(0.25, 1), synthetic.focal(0.25, 2)
NOISE = [0.010, -0.012, 0.009, -0.008, 0.011, -0.010, 0.012, -0.009]


def judged(
    good: list[float], planned_seeds: int | None = None, looks: tuple[int, ...] | None = LOOKS
) -> StudyVerdict:
    """The verdict where GOOD is better by these amounts, seed by seed, and SAME by nothing but noise."""
    runs = []
    for seed, (shift, noise) in enumerate(zip(good, NOISE, strict=False)):
        runs.append(synthetic.run(BCE, seed, 0.4))
        runs.append(synthetic.run(GOOD, seed, 0.4 + shift))
        runs.append(synthetic.run(SAME, seed, 0.4 + noise))
    planned = [PlannedRun(run.arm, run.seed, run.key, "", run.params) for run in runs]
    for seed in range(len(good), planned_seeds or 0):
        planned += [PlannedRun(arm[0], seed, f"{arm[0]} {seed}", "", arm[1]) for arm in (BCE, GOOD, SAME)]
    declared = Declaration("val/AP", 0.001, 0.95, looks=looks)
    view = study_view(StudyRecord("s", runs, planned, "", (declared,)))
    return judge(view, partial=True, generator=generator(0, "report"))


CLEAR = [0.1 + 0.1 * noise for noise in NOISE]


def of(verdict: StudyVerdict, arm: synthetic.Arm) -> tuple[str, int]:
    comparison = verdict.of(arm[0])
    assert comparison is not None
    return comparison.verdict, comparison.n_pairs


def test_before_the_first_look_nothing_is_decided_however_clear() -> None:
    verdict = judged(CLEAR[:3])
    assert of(verdict, GOOD) == (INCONCLUSIVE, 3) and not verdict.looks
    comparison = verdict.of(GOOD[0])
    assert comparison is not None and comparison.more_seeds == 1  # until the look at 4
    assert of(judged(CLEAR[:3], looks=None), GOOD) == (BETTER, 3)  # which a study without looks would be


def test_between_looks_the_last_look_stands_on_its_own_seeds() -> None:
    four, five = judged(CLEAR[:4]), judged(CLEAR[:5])
    assert of(four, GOOD) == of(five, GOOD) == (BETTER, 4)
    assert [look.pairs for look, _ in five.looks] == [4]


def test_a_look_waits_until_all_its_planned_runs_have_ended() -> None:
    assert of(judged(CLEAR[:5], planned_seeds=8), SAME) == (INCONCLUSIVE, 4)
    assert [look.pairs for look, _ in judged(CLEAR[:7], planned_seeds=8).looks] == [4, 6]


def test_the_first_decision_counts_and_the_others_go_on() -> None:
    reversed_later = [*CLEAR[:4], -0.5, -0.6, -0.4, -0.5]
    verdict = judged(reversed_later)
    assert of(verdict, GOOD) == (BETTER, 4)
    assert of(verdict, SAME) == (INCONCLUSIVE, 8)
    assert of(judged(reversed_later, looks=None), GOOD)[0] != BETTER


def test_the_interval_is_that_of_the_look_and_excludes_zero_just_where_it_decides() -> None:
    design = sequential_design(LOOKS)
    plain = judged(CLEAR[:4], looks=None).of(GOOD[0])
    at_look = judged(CLEAR[:4]).of(GOOD[0])
    assert plain is not None and at_look is not None
    assert at_look.p_t == plain.p_t and at_look.difference == plain.difference
    from scipy import stats

    ratio = stats.t.ppf(1 - design.difference[0] / 2, 3) / stats.t.ppf(0.975, 3)
    assert (at_look.high - at_look.low) / (plain.high - plain.low) == pytest.approx(ratio)


def test_a_prior_widens_the_interval_of_pairs_that_agree_by_chance() -> None:
    runs = [
        synthetic.run(arm, seed, 0.4 + (0.02 + 0.0001 * seed) * (arm is GOOD))
        for seed in range(4)
        for arm in (BCE, GOOD)
    ]
    planned = [PlannedRun(run.arm, run.seed, run.key, "", run.params) for run in runs]
    declared = Declaration("val/AP", 0.001, 0.95, looks=LOOKS)
    verdicts = {}
    for sd in (None, 0.03):
        entry = dataclasses.replace(declared, prior_sd=sd, prior_df=20.0)
        view = study_view(StudyRecord("s", runs, planned, "", (entry,)))
        comparison = judge(view, partial=True, generator=generator(0, "report")).of(GOOD[0])
        assert comparison is not None
        verdicts[sd] = (comparison.verdict, comparison.seed_sd)
    assert verdicts[None][0] == BETTER and verdicts[0.03][0] == INCONCLUSIVE
    own = verdicts[None][1]
    # d = 3, prior df 20 counts as 2 d = 6
    assert verdicts[0.03][1] == pytest.approx(math.sqrt((6 * 0.03**2 + 3 * own**2) / 9))
