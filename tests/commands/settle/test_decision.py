"""The decision's looks on hand-made results, and its rules for runs that diverged."""

from __future__ import annotations

import dataclasses
import math

import pytest
from helpers import synthetic
from scipy import stats

from ablation.analyse.statistics.paired import BETTER, EQUIVALENT, INCONCLUSIVE, WORSE
from ablation.analyse.statistics.sequential import PriorSpread
from ablation.commands.settle.decision import GO_ON, Decision, decide
from ablation.commands.settle.design import SPENDING, SettleDesign
from ablation.commands.settle.exploration import BCE, OTHERS
from ablation.errors import AblationError
from ablation.records import Declaration, PlannedRun, StudyRecord

FOCAL, PLAIN = synthetic.focal(0.25, 2), synthetic.bce()
ARMS = (FOCAL[0], PLAIN[0])
SEEDS = list(range(100, 110))
DESIGN = SettleDesign(
    "q", {OTHERS: [ARMS[0]], BCE: [ARMS[1]]}, "val/AP", 0.02, 0.95, [0, 1], SEEDS, [4, 6, 8, 10], {}
)
QUIET = [0.001, -0.001, 0.0005, -0.0005, 0.0012, -0.0012, 0.0, 0.0007, -0.0007, 0.0]


def decided(focal: list[float | None], bce: list[float | None], prior: PriorSpread | None = None) -> Decision:
    """The decision on these values by seed; None: that run diverged."""
    runs = [
        synthetic.run(arm, seed, 0.0 if value is None else value, "DIVERGED" if value is None else "FINISHED")
        for arm, values in ((FOCAL, focal), (PLAIN, bce))
        for seed, value in zip(SEEDS, values, strict=False)
    ]
    seeds = SEEDS[: max(len(focal), len(bce))]
    planned = [PlannedRun(arm, seed, f"{arm} {seed}", "") for seed in seeds for arm in ARMS]
    keys = {(run.arm, run.seed): run.key for run in planned}
    runs = [dataclasses.replace(run, key=keys[run.arm, run.seed]) for run in runs]
    declared = Declaration("val/AP", DESIGN.margin, 0.95, looks=tuple(DESIGN.looks), spending=SPENDING)
    if prior is not None:
        declared = dataclasses.replace(declared, prior_sd=math.sqrt(prior.variance), prior_df=prior.df)
    record = StudyRecord("q_decide", runs, planned, "", (declared,))
    return decide(record, DESIGN, ARMS, prior)


def test_first_look_asks_for_four_pairs() -> None:
    state = decided([], [])
    assert len(state.missing) == 8 and {seed for _, seed in state.missing} == {100, 101, 102, 103}
    assert state.verdict == GO_ON and not state.looks


@pytest.mark.parametrize(("shift", "verdict"), [(0.1, BETTER), (-0.1, WORSE), (0.0, EQUIVALENT)])
def test_a_clear_case_ends_at_the_first_look(shift: float, verdict: str) -> None:
    state = decided([0.5 + shift + q for q in QUIET[:4]], [0.5] * 4)
    assert state.verdict == verdict and not state.missing
    look = state.looks[0]
    p = stats.ttest_1samp([shift + q for q in QUIET[:4]], 0).pvalue
    assert look.p == pytest.approx(p) and look.p_limit == DESIGN.sequential.difference[0]
    assert (look.low > 0) == (verdict == BETTER) and (look.high < 0) == (verdict == WORSE)
    assert state.estimate == pytest.approx(shift, abs=0.003)


def test_an_unclear_case_goes_on_look_by_look_and_ends_inconclusive() -> None:
    noisy = [0.3, -0.25, 0.28, -0.22, 0.26, -0.3, 0.2, -0.24, 0.3, -0.2]
    for pairs, looks in ((4, 1), (5, 1), (6, 2), (8, 3)):
        state = decided([0.5 + x for x in noisy[:pairs]], [0.5] * pairs)
        assert len(state.looks) == looks and state.verdict == GO_ON and state.missing
        assert 0 <= state.chance <= 1
    state = decided([0.5 + x for x in noisy], [0.5] * 10)
    assert state.verdict == INCONCLUSIVE and len(state.looks) == 4 and not state.missing


def test_a_look_waits_for_all_of_its_runs() -> None:
    state = decided([0.6 + q for q in QUIET[:4]], [0.5] * 3)
    assert not state.looks and state.missing == ((ARMS[1], 103),)


def test_runs_beyond_a_look_that_decided_do_not_matter() -> None:
    state = decided([0.6 + q for q in QUIET[:4]] + [0.0] * 6, [0.5] * 10)
    assert state.verdict == BETTER and len(state.looks) == 1


def test_a_loss_that_diverged_once_is_neither_better_nor_equivalent() -> None:
    assert decided([None, *[0.6 + q for q in QUIET[:9]]], [0.5] * 10).verdict == INCONCLUSIVE
    assert decided([None, *[0.5 + q for q in QUIET[:9]]], [0.5] * 10).verdict == INCONCLUSIVE
    assert decided([None, *[0.4 + q for q in QUIET[:9]]], [0.5] * 10).verdict == WORSE


def test_nothing_is_worse_than_a_bce_that_diverged() -> None:
    assert decided([0.4 + q for q in QUIET], [None, *[0.5] * 9]).verdict == INCONCLUSIVE
    assert decided([0.6 + q for q in QUIET], [None, *[0.5] * 9]).verdict == BETTER


@pytest.mark.parametrize(("state", "missing"), [("RUNNING", 8), ("KILLED", 8), ("DIVERGED", 0)])
def test_runs_that_were_never_evaluated_decide_nothing(state: str, missing: int) -> None:
    """As a kill in the first epoch leaves them: the same command must go on."""
    runs = [
        dataclasses.replace(synthetic.run(arm, seed, 0.0, state), metrics={"train/loss": 1.0})
        for seed in SEEDS[:4]
        for arm in (FOCAL, PLAIN)
    ]
    planned = [PlannedRun(run.arm, run.seed, run.key, "") for run in runs]
    state_now = decide(StudyRecord("q_decide", runs, planned), DESIGN, ARMS, None)
    assert not state_now.looks and len(state_now.missing) == missing


def test_runs_that_differ_in_more_than_the_loss_are_an_error() -> None:
    runs = [
        synthetic.run(arm, seed, 0.5, extra={"train.epochs": "30" if arm == FOCAL else "20"})
        for seed in SEEDS[:4]
        for arm in (FOCAL, PLAIN)
    ]
    planned = [PlannedRun(run.arm, run.seed, run.key, "") for run in runs]
    with pytest.raises(AblationError, match=r"train\.epochs"):
        decide(StudyRecord("q_decide", runs, planned), DESIGN, ARMS, None)


def test_the_spread_of_the_exploration_withholds_a_lucky_agreement() -> None:
    lucky: list[float | None] = [0.53, 0.531, 0.529, 0.53]
    assert decided(lucky, [0.5] * 4).verdict == BETTER
    assert decided(lucky, [0.5] * 4, prior=PriorSpread(0.05**2, 20)).verdict == GO_ON
