"""What a study declared about its analysis: margin and family, and whether that was before it ran."""

from __future__ import annotations

from dataclasses import dataclass

from ablation.analyse.statistics.sequential import PriorSpread, SequentialDesign, sequential_design
from ablation.analyse.tables.settings import BASELINE_LOSS
from ablation.analyse.view import StudyView
from ablation.records import declaration_that_counts


@dataclass(frozen=True)
class DeclaredTerms:
    """The margin and the family that count.

    Attributes:
        margin: the smallest difference of the view's metric that matters; None: it was not declared.
        declared_before: it was declared before any run of the study had ended.
        family: losses whose arms are tested together; None: every arm whose loss is not BCE.
        remarks: where the declaration is missing, late, changed or not followed, as sentences.
        looks: the declared looks with their levels; None: one verdict, on all the runs there are.
        prior: what other runs said beforehand about the spread of a paired difference.
    """

    margin: float | None
    declared_before: bool
    family: tuple[str, ...] | None
    remarks: tuple[str, ...]
    looks: SequentialDesign | None = None
    prior: PriorSpread | None = None

    def in_family(self, loss: str) -> bool:
        """Whether an arm with this loss belongs to the family."""
        return loss != BASELINE_LOSS if self.family is None else loss in self.family


def declared_terms(view: StudyView, margin: float | None = None) -> DeclaredTerms:
    """The first declaration counts; `margin` is used only where it says nothing about the metric."""
    declared = view.study.declared
    first = declaration_that_counts(declared)
    remarks = []
    if first is None or first.metric != view.metric:
        if first is None:
            remarks.append("No margin was declared before the study ran.")
        else:
            remarks.append(
                f"The study was declared for {first.metric}, so its margin does not hold for {view.metric}, "
                "and this comparison was not planned."
            )
        if margin is None:
            remarks.append("Without a margin no arm can be called equivalent.")
        else:
            remarks.append(f"The margin of {margin:g} was set afterwards, when the results were known.")
        return DeclaredTerms(margin, False, None if first is None else first.family, tuple(remarks))
    before = first.runs_done == 0
    if not before:
        runs = "run" if first.runs_done == 1 else "runs"
        remarks.append(
            f"The margin of {first.margin:g} was declared when {first.runs_done} {runs} had ended already."
        )
    if margin is not None and margin != first.margin:
        remarks.append(f"A margin of {margin:g} was asked for now; the declared {first.margin:g} counts.")
    for later in declared[1:]:
        if later.content != first.content:
            remarks.append(
                f"The declaration was changed after {later.runs_done} runs (margin {later.margin:g} of "
                f"{later.metric}, level {later.level:g}); the first one counts."
            )
    if first.level != view.level:
        remarks.append(f"Intervals are shown at {view.percent}, but {first.level:.0%} was declared.")
    looks = None if first.looks is None else sequential_design(first.looks, first.level, first.spending)
    prior = None if first.prior_sd is None else PriorSpread(first.prior_sd**2, first.prior_df)
    return DeclaredTerms(first.margin, before, first.family, tuple(remarks), looks, prior)
