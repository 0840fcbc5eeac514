"""Two arms of a study compared: their runs, the numbers, the decision, the columns of the arms table."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import pandas as pd

from ablation.analyse.statistics.image_resampling import ImageLevel
from ablation.analyse.statistics.paired import Comparison, DecisionContext, DueLook, compare, decide
from ablation.analyse.statistics.sequential import PriorSpread
from ablation.analyse.tables.held_fixed import HeldFixed


@dataclass(frozen=True)
class ArmRuns:
    """The valid runs of one arm.

    Attributes:
        arm, setting, loss: as in the arms table.
        values: the metric by seed.
        run_ids: the run by seed.
        diverged, planned: number of seeds in which it diverged, and which it should have.
    """

    arm: str
    setting: str
    loss: str
    values: pd.Series
    run_ids: Mapping[int, str]
    diverged: int
    planned: int


@dataclass(frozen=True)
class StudyTerms:
    """What holds for every comparison of a study.

    Attributes:
        level: of the intervals, in (0, 1).
        margin: the smallest difference that matters, in the metric's units; None: it was not declared.
        images: AP of the runs on resampled images.
        held: what the runs share; those that differ in anything else are not compared.
        refused: the study gets no verdict (runs are missing, not comparable, or pruned), only numbers.
        prior: what other runs say about the spread of a paired difference.
        look: the declared look that this is; None: the study declared none.
    """

    level: float
    margin: float | None
    images: ImageLevel
    held: HeldFixed
    refused: bool
    prior: PriorSpread | None = None
    look: DueLook | None = None

    def compare(self, arm: ArmRuns, opponent: ArmRuns) -> Comparison:
        """The numbers of arm - opponent, without a verdict.

        There are none where the runs differ in anything that the study does not vary; the note says in what.
        """
        names = (arm.arm, arm.setting, opponent.arm)
        seeds = [seed for seed in arm.values.index if seed in opponent.values.index]
        of_arm, of_opponent = ([side.run_ids[seed] for seed in seeds] for side in (arm, opponent))
        run_ids = [*of_arm, *of_opponent]
        if differences := self.held.not_comparable(run_ids):
            nothing = pd.Series(dtype=float)
            empty = compare(nothing, nothing, names=names, level=self.level, margin=self.margin)
            texts = "; ".join(self.held.describe(difference, run_ids) for difference in differences)
            return replace(empty, note=f"not compared: {texts}")
        image = self.images.part(of_arm, of_opponent)
        return compare(
            arm.values,
            opponent.values,
            names=names,
            level=self.level,
            margin=self.margin,
            image=image,
            prior=self.prior,
        )

    def decide(
        self, comparison: Comparison, arm: ArmRuns, opponent: ArmRuns, family: int, chosen: bool = False
    ) -> Comparison:
        """The comparison, whose p_holm has been set, with its verdict.

        Args:
            family: arms that are tested together.
            chosen: see DecisionContext.
        """
        context = DecisionContext(
            margin=self.margin,
            level=self.level,
            family=family,
            diverged=arm.diverged,
            planned=arm.planned,
            baseline_diverged=opponent.diverged,
            refused=self.refused,
            look=self.look,
            chosen=chosen,
        )
        decided = decide(comparison, context)
        notes = [decided.note] if decided.note else []
        varied = self.held.varied([*arm.run_ids.values(), *opponent.run_ids.values()])
        if varied and comparison.n_pairs and not self.refused:
            notes.append(f"the arms differ in {', '.join(entry.name for entry in varied)} too")
        return replace(decided, note="; ".join(notes))


_COLUMNS = {
    "n_pairs": "n_pairs",
    "difference": "difference",
    "difference_sd": "seed_sd",
    "difference_low": "low",
    "difference_high": "high",
    "difference_p": "p_sign_flip",
    "image_se": "image_se",
    "df": "df",
    "p_t": "p_t",
    "p_holm": "p_holm",
    "tost_p": "tost_p",
    "correlation": "correlation",
    "pairing_gain": "pairing_gain",
    "verdict": "verdict",
    "note": "note",
}
"""Columns of the arms table -> fields of Comparison."""


def with_comparisons(arms: pd.DataFrame, comparisons: Sequence[Comparison]) -> pd.DataFrame:
    """The arms table with the numbers of every arm's comparison with the baseline.

    Adds n_pairs, difference (arm minus baseline, paired by seed), difference_sd, difference_low,
    difference_high, difference_p (the sign-flip p), image_se, df, p_t, p_holm, tost_p, correlation,
    pairing_gain, verdict, note, more_seeds and fresh; see Comparison. An arm without a comparison, as the
    baseline, has no pairs, NaN and empty texts.

    Args:
        arms: see table.arms_table.
        comparisons: at most one for each arm.
    """
    by_arm = {comparison.arm: comparison for comparison in comparisons}
    rows = [by_arm.get(str(arm)) for arm in arms["arm"]]
    empty: dict[str, int | float | str] = {"n_pairs": 0, "verdict": "", "note": ""}
    table = arms.copy()
    for column, field in _COLUMNS.items():
        blank = empty.get(column, math.nan)
        table[column] = [blank if row is None else getattr(row, field) for row in rows]
    more_seeds = [None if row is None else row.more_seeds for row in rows]
    table["more_seeds"] = pd.array(more_seeds, dtype="Int64")
    table["fresh"] = [row is not None and row.fresh for row in rows]
    return table
