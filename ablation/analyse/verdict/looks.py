"""The declared looks of a study that have come due, each with the runs that belong to it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ablation.analyse.statistics.paired import BETTER, EQUIVALENT, WORSE, Comparison, DueLook
from ablation.analyse.statistics.sequential import SequentialDesign
from ablation.analyse.verdict.comparisons import ArmRuns
from ablation.analyse.view import StudyView

ENDED = ("FINISHED", "DIVERGED")
NEVER = 0.0
"""As a limit for p: before the first look nothing is decided."""


@dataclass(frozen=True)
class Stage:
    """What one verdict is drawn from.

    Attributes:
        look: which one; None: the study declared none, and all its runs count.
        level: of the intervals, which hold at all looks together.
        arms: with the runs of this look's seeds.
    """

    look: DueLook | None
    level: float
    arms: list[ArmRuns]


def stages(view: StudyView, design: SequentialDesign | None, arms: list[ArmRuns]) -> list[Stage]:
    """The looks that have come due, in order; at least one stage.

    A look is due when all its runs have ended: those of the first seeds of the plan, as many as it has
    pairs. Seeds beyond the last look that is due wait for the next one. Before the first, what there is is
    shown and decides nothing.
    """
    if design is None:
        return _since_first_report(view, arms)
    seeds = _planned_seeds(view)
    following = [*design.looks[1:], None]
    due = []
    for pairs, after, difference, equivalence in zip(
        design.looks, following, design.difference, design.equivalence, strict=True
    ):
        if pairs > len(seeds) or not _all_ended(view, seeds[:pairs]):
            break
        look = DueLook(pairs, difference, equivalence, after)
        due.append(Stage(look, 1 - difference, [_first(view, arm, seeds[:pairs]) for arm in arms]))
    if due:
        return due
    pairs = max((len(arm.values) for arm in arms), default=0)
    before = DueLook(min(pairs, design.looks[0] - 1), NEVER, NEVER, design.looks[0])
    return [Stage(before, 1 - design.difference[0], arms)]


def _since_first_report(view: StudyView, arms: list[ArmRuns]) -> list[Stage]:
    """One stage; two where seeds were added after a report had drawn verdicts: the later one decides nothing.

    The first verdict has spent the whole error. Drawing another one with more seeds, as often as the last
    one did not tell, would find differences that are not there far too often.
    """
    everything = Stage(None, view.level, arms)
    first = next((look for look in view.study.looks if look.metric == view.metric), None)
    if first is None:
        return [everything]
    added = {seed for arm in arms for seed in arm.values.index} - set(first.seeds)
    if not added:
        return [everything]
    at_first = Stage(None, view.level, [_first(view, arm, first.seeds) for arm in arms])
    pairs = max((len(arm.values) for arm in arms), default=0)
    late = DueLook(pairs, NEVER, NEVER, None, why_last=added_text(first.pairs, len(added)))
    return [at_first, Stage(late, view.level, arms)]


def added_text(pairs: int, added: int) -> str:
    """Why the seeds that came later decide nothing, and what does."""
    seeds = "1 seed was" if added == 1 else f"{added} seeds were"
    return (
        f"{seeds} added after a report had given its verdict on {pairs}, and decide nothing: fresh seeds do "
        "(`ablation confirm` or `ablation settle`)"
    )


def first_decided(comparisons: Sequence[Comparison]) -> Comparison:
    """One arm's comparisons by look -> the first that decided, which ends its question; else the last."""
    decided = [entry for entry in comparisons if entry.verdict in (BETTER, WORSE, EQUIVALENT)]
    return decided[0] if decided else comparisons[-1]


def _planned_seeds(view: StudyView) -> list[int]:
    return list(dict.fromkeys(run.seed for run in view.study.planned))


def _all_ended(view: StudyView, seeds: Sequence[int]) -> bool:
    ended = view.runs[view.runs["state"].isin(ENDED)]
    present = set(zip(ended["arm"], ended["seed"].astype(int), strict=True))
    return all((run.arm, run.seed) in present for run in view.study.planned if run.seed in seeds)


def _first(view: StudyView, arm: ArmRuns, seeds: Sequence[int]) -> ArmRuns:
    rows = view.runs[(view.runs["arm"] == arm.arm) & view.runs["seed"].isin(seeds)]
    taken = [seed for seed in arm.values.index if seed in seeds]
    return replace(
        arm,
        values=arm.values.loc[taken],
        run_ids={seed: arm.run_ids[seed] for seed in taken},
        diverged=int((rows["state"] == "DIVERGED").sum()),
        planned=len(seeds),
    )
