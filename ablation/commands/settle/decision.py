"""The finalists on fresh seeds: what each declared look says, and whether it ends the study.

The verdict is the one that `ablation report` draws of the same runs: paired differences, with the images'
part where detections are stored, at the look's nominal levels, their variance moderated by the spread of
the exploration. Divergence follows the rules of paired.decide.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ablation.analyse.detections.run_files import RunArtifacts
from ablation.analyse.statistics.paired import (
    BETTER,
    EQUIVALENT,
    INCONCLUSIVE,
    WORSE,
    Comparison,
    paired_values,
)
from ablation.analyse.statistics.sequential import (
    PriorSpread,
    SequentialDesign,
    chance_to_tell,
    median_unbiased,
)
from ablation.analyse.verdict.look_outcome import Look
from ablation.analyse.verdict.verdict import judge
from ablation.analyse.view import study_view
from ablation.commands.settle.design import SettleDesign
from ablation.errors import AblationError
from ablation.records import StudyRecord
from ablation.rng import generator
from ablation.tracking.run_folder import DONE_STATES

FUTILE = 0.1
"""Below this chance that any later look decides, going on is advised against; it is not forbidden."""
GO_ON = "go on"


@dataclass(frozen=True)
class Decision:
    """Where the decision is.

    Attributes:
        looks: those that have been taken; none at the end where every run diverged before an evaluation.
        missing: (arm, seed) up to the next look that have not ended; empty at the end.
        estimate: median-unbiased difference once it has ended; NaN before, or without pairs.
        chance: that a later look decides; NaN before the first look and at the end.
    """

    looks: tuple[Look, ...]
    missing: tuple[tuple[str, int], ...]
    estimate: float
    chance: float

    @property
    def verdict(self) -> str:
        """Of the last look; "go on" before the first."""
        return self.looks[-1].verdict if self.looks else GO_ON


def decide(
    record: StudyRecord, design: SettleDesign, finalists: tuple[str, str], prior: PriorSpread | None
) -> Decision:
    """The state of the decision that these runs lead to.

    Args:
        record: the study of the decision; its declaration has the looks.
        finalists: the other loss, then BCE.
        prior: from the exploration, as the study declared it.

    Raises:
        AblationError: the runs cannot be compared; it says why.
    """
    sequential = design.sequential
    looks: list[Look] = []
    if any(design.metric in run.metrics for run in record.runs):  # else none has reached an evaluation
        view = study_view(record, design.metric, design.level, RunArtifacts(record))
        verdict = judge(view, partial=True, generator=generator(0, "report"))
        if verdict.refused:
            raise AblationError(f"study {record.name}: no verdict: {verdict.refused}")
        for due, comparison in verdict.looks:
            looks.append(_look(due.pairs, comparison, sequential))
            if looks[-1].verdict != GO_ON:
                last = _estimate(record, design, finalists, looks[-1], prior)
                return Decision(tuple(looks), (), last, math.nan)
    ended = {(run.arm, run.seed) for run in record.runs if run.state in DONE_STATES}
    pairs = sequential.looks[len(looks)]
    due_runs = [(arm, seed) for seed in design.decide_seeds[:pairs] for arm in finalists]
    missing = tuple(run for run in due_runs if run not in ended)
    chance = math.nan
    if looks:
        values = _differences(record, design, finalists, looks[-1].planned)
        if len(values) == looks[-1].planned:  # runs that diverged leave no common ground for a forecast
            chance = chance_to_tell(values, sequential, design.margin, prior)
    return Decision(tuple(looks), missing, math.nan, chance)


def _look(pairs: int, comparison: Comparison, sequential: SequentialDesign) -> Look:
    index = sequential.looks.index(pairs)
    verdict = comparison.verdict
    if verdict not in (BETTER, WORSE, EQUIVALENT):
        verdict = INCONCLUSIVE if index == len(sequential.looks) - 1 else GO_ON
    return Look(
        planned=pairs,
        pairs=comparison.n_pairs,
        difference=comparison.difference,
        low=comparison.low,
        high=comparison.high,
        se=comparison.se,
        df=comparison.df,
        p=comparison.p_t,
        p_limit=sequential.difference[index],
        tost_p=comparison.tost_p,
        tost_limit=sequential.equivalence[index],
        verdict=verdict,
        note=comparison.note,
    )


def _differences(
    record: StudyRecord, design: SettleDesign, finalists: tuple[str, str], pairs: int
) -> NDArray[np.float64]:
    """Paired differences of the first seeds, where both runs finished."""
    seeds = design.decide_seeds[:pairs]
    series = [
        pd.Series(
            {
                run.seed: run.metrics.get(design.metric, math.nan)
                for run in record.runs
                if run.arm == arm and run.seed in seeds and run.state == "FINISHED"
            },
            dtype=float,
        )
        for arm in finalists
    ]
    a, b = paired_values(series[0], series[1])
    return np.asarray(a - b)


def _estimate(
    record: StudyRecord,
    design: SettleDesign,
    finalists: tuple[str, str],
    look: Look,
    prior: PriorSpread | None,
) -> float:
    values = _differences(record, design, finalists, look.planned)
    if len(values) < 3 or not values.std() > 0:
        return math.nan
    sd = float(values.std(ddof=1))
    return median_unbiased(float(values.mean()), sd, design.sequential, design.margin, prior)
