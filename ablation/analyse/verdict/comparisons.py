"""Two arms of a study compared on its own terms: their runs, the numbers, the decision."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd

from ablation.analyse.statistics.image_resampling import ImageLevel
from ablation.analyse.statistics.paired import Comparison, DecisionContext, compare, decide


@dataclass(frozen=True)
class ArmRuns:
    """The valid runs of one arm.

    Attributes:
        arm, setting, loss: as in the arms table.
        values: the metric by seed.
        run_ids: the run by seed.
        diverged, planned: seeds in which it diverged, and which it should have.
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
        level: of the intervals.
        margin: the smallest difference that matters; None: nobody said.
        images: AP of the runs on resampled images.
        refused: the study gets no verdict (runs are missing, or arms were pruned), only numbers.
    """

    level: float
    margin: float | None
    images: ImageLevel
    refused: bool

    def compare(self, arm: ArmRuns, opponent: ArmRuns) -> Comparison:
        """The numbers of arm - opponent, without a verdict."""
        seeds = [seed for seed in arm.values.index if seed in opponent.values.index]
        image = self.images.part(
            [arm.run_ids[seed] for seed in seeds], [opponent.run_ids[seed] for seed in seeds]
        )
        names = (arm.arm, arm.setting, opponent.arm)
        return compare(
            arm.values, opponent.values, names=names, level=self.level, margin=self.margin, image=image
        )

    def decide(self, comparison: Comparison, arm: ArmRuns, opponent: ArmRuns, family: int) -> Comparison:
        """The comparison, whose p_holm has been set, with its verdict.

        Args:
            family: arms that are tested together.
        """
        context = DecisionContext(
            margin=self.margin,
            level=self.level,
            family=family,
            diverged=arm.diverged,
            planned=arm.planned,
            baseline_diverged=opponent.diverged,
            refused=self.refused,
        )
        return decide(comparison, context)
