"""The best focal arm against the best BCE arm: the comparison that the study is about."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import pandas as pd

from ablation.analyse.statistics.paired import Comparison
from ablation.analyse.tables.settings import BASELINE_LOSS
from ablation.analyse.verdict.comparisons import ArmRuns, StudyTerms


@dataclass(frozen=True)
class Headline:
    """The best arm of another loss against the best arm of BCE, both chosen on validation.

    Attributes:
        focal, bce: the arms; focal is any arm whose loss is not BCE.
        comparison: their paired difference with its verdict; p_holm allows for the choice.
        arms: how many were chosen from: (focal, BCE).
        tuned: what was varied in BCE's arms: 'pos_weight', 'gain'; empty: BCE was not tuned.
    """

    focal: str
    bce: str
    bce_setting: str
    comparison: Comparison
    arms: tuple[int, int]
    tuned: tuple[str, ...]


def headline(
    arms: list[ArmRuns],
    terms: StudyTerms,
    decided: Mapping[tuple[str, str], Comparison],
    tuned: tuple[str, ...],
) -> Headline | None:
    """Choose the best arm of either side by its mean over the common seeds, and compare the two.

    A choice among k arms makes the best look better than it is: "better" is decided by p times the
    number of focal arms, "worse" by p times the number of BCE arms (Bonferroni, p_holm = min(1, k p_t)).
    Where the best BCE arm is the baseline, "better" goes by Holm's p, which pays for the choice of the focal
    arm, and "worse" by the larger of the two. Chosen arms are never "equivalent", see paired.decide. The
    interval is not widened. Arms that diverged in some seed are chosen only where all did.

    Args:
        arms: all arms of the study.
        terms: of every comparison of the study.
        decided: (arm, against) -> comparisons with a verdict; two arms are compared only once.
        tuned: what was varied in BCE's arms.

    Returns:
        None where one side has no valid run, and where runs of the study cannot be compared: then a
        choice by the means would be one between data sets, lengths of training, ...
    """
    if terms.held.refusal:
        return None
    focal = _eligible([arm for arm in arms if arm.loss != BASELINE_LOSS])
    bce = _eligible([arm for arm in arms if arm.loss == BASELINE_LOSS])
    if not focal or not bce:
        return None
    frame = pd.DataFrame({arm.arm: arm.values for arm in [*focal, *bce]})
    common = frame.dropna()
    means = (common if len(common) else frame).mean()
    best, opponent = _best(focal, means), _best(bce, means)
    comparison = decided.get((best.arm, opponent.arm))
    chosen = len(focal) + len(bce) > 2
    if comparison is None or chosen:
        comparison = _paid(comparison or terms.compare(best, opponent), comparison, (len(focal), len(bce)))
        seeds = comparison.more_seeds, comparison.fresh
        size = len(focal) if comparison.difference > 0 else len(bce)
        comparison = terms.decide(comparison, best, opponent, family=size, chosen=chosen)
        if comparison.more_seeds is not None and seeds[0] is not None:  # one number for one pair of arms
            comparison = replace(comparison, more_seeds=seeds[0], fresh=seeds[1])
    return Headline(
        focal=best.arm,
        bce=opponent.arm,
        bce_setting=opponent.setting,
        comparison=comparison,
        arms=(len(focal), len(bce)),
        tuned=tuned,
    )


def _paid(numbers: Comparison, decided: Comparison | None, arms: tuple[int, int]) -> Comparison:
    """The comparison, its p_holm allowing for the choice from so many arms: (focal, BCE)."""
    paid = min(numbers.p_t * (arms[0] if numbers.difference > 0 else arms[1]), 1.0)  # NaN stays NaN
    if decided is not None:
        paid = decided.p_holm if numbers.difference > 0 else max(decided.p_holm, paid)
    return replace(numbers, p_holm=paid, note="")


def _eligible(arms: list[ArmRuns]) -> list[ArmRuns]:
    trained = [arm for arm in arms if len(arm.values)]
    return [arm for arm in trained if not arm.diverged] or trained


def _best(arms: list[ArmRuns], means: pd.Series) -> ArmRuns:
    # Of equal means the first by name, so that the order of the records does not matter.
    return min(arms, key=lambda arm: (-float(means[arm.arm]), arm.arm))
