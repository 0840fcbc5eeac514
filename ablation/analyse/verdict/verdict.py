"""The verdict of a study: on every arm, the headline, and what the study cannot conclude."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from ablation.analyse.statistics.hypothesis_tests import holm
from ablation.analyse.statistics.image_resampling import MOST_RUNS, DetectionSource, ImageLevel, image_level
from ablation.analyse.statistics.paired import (
    BETTER,
    EQUIVALENT,
    VERDICTS,
    WORSE,
    Comparison,
    DueLook,
    compare,
)
from ablation.analyse.tables import completeness
from ablation.analyse.tables.settings import BASELINE_LOSS
from ablation.analyse.verdict import sentence
from ablation.analyse.verdict.comparisons import ArmRuns, StudyTerms, with_comparisons
from ablation.analyse.verdict.confirmation import StudyConfirmation
from ablation.analyse.verdict.coverage import coverage
from ablation.analyse.verdict.declaration import DeclaredTerms, declared_terms
from ablation.analyse.verdict.findings import Findings
from ablation.analyse.verdict.headline import Headline, headline
from ablation.analyse.verdict.limitations import limitations
from ablation.analyse.verdict.looks import NEVER, first_decided, stages
from ablation.analyse.view import StudyView

__all__ = ["VERDICTS", "Comparison", "StudyVerdict", "judge", "judged"]


@dataclass(frozen=True)
class StudyVerdict:
    """The result of a study's statistics.

    Attributes:
        sentence: the answer in one sentence with its number.
        arms: one comparison for each arm but the baseline, in the order of the arms table.
        headline: best focal arm against best BCE arm; None where one of them has no valid run.
        recommended: the arm to use; None: the study does not recommend one.
        limitations: what this study cannot conclude, from its own facts.
        margin: the smallest difference that matters, in the metric's units; None: it was not declared.
        declared_before: the margin was declared before any run of the study had ended.
        refused: why there is no verdict; empty where there is one.
        covers: what the intervals cover, see coverage.coverage.
        family: how many arms are tested together.
        looks: of a study that declared looks: the headline's comparison at each that has come due.
        confirmation: what fresh seeds and the test split said about the choice; None: not confirmed.
    """

    sentence: str
    arms: list[Comparison]
    headline: Headline | None
    recommended: str | None
    limitations: list[str]
    margin: float | None
    declared_before: bool
    refused: str
    covers: str
    family: int
    looks: tuple[tuple[DueLook, Comparison], ...] = ()
    confirmation: StudyConfirmation | None = None

    @property
    def confirmation_line(self) -> str:
        """The confirmation in a sentence; "" where there is none."""
        if self.confirmation is None:
            return ""
        best = None if self.headline is None else (self.headline.focal, self.headline.bce)
        others = "" if best == self.confirmation.finalists else " The best arms now are others than these."
        return self.confirmation.line + others

    def of(self, arm: str) -> Comparison | None:
        """The verdict on an arm against the baseline; None for the baseline itself."""
        return next((comparison for comparison in self.arms if comparison.arm == arm), None)


def judge(
    view: StudyView,
    *,
    partial: bool,
    generator: np.random.Generator,
    margin: float | None = None,
    artifacts: DetectionSource | None = None,
    confirmation: StudyConfirmation | None = None,
) -> StudyVerdict:
    """Compare every arm with the baseline, the best focal arm with the best BCE arm, and decide.

    The steps: paired differences over the seeds with intervals that, where detections are stored, cover
    other images too (statistics/intervals.py); Holm over the declared family, by the p of the t test,
    because the sign-flip p cannot fall below 2^(1 - n) and could never pass with several arms; TOST
    against the margin; the rule of paired.decide. A study that declared looks is judged at each that has come
    due, and an arm's first decision counts. BCE arms other than the baseline do not belong to the
    family unless it names them; they are a family of their own.

    Args:
        view: of the study; its metric, level and declaration count.
        partial: draw verdicts although runs, or files of theirs, are missing; never where arms were
            pruned, or where runs differ in something that the study does not vary.
        generator: for the resamples of images; equal generators give equal results.
        margin: only where the study declared none; the text then says that it came afterwards.
        artifacts: the runs' stored detections; None: those of the view, if it has any.
        confirmation: of this study on fresh seeds, where there was one.
    """
    declaration = declared_terms(view, margin)
    refused = view.held.refusal or completeness.refusal(view.runs, view.metric, partial)
    refused = refused or ("" if partial else _not_found(view.study.missing))
    arms = _arms(view)
    images = _images(view, arms, artifacts or stored_detections(view), generator)
    terms = StudyTerms(
        view.level, declaration.margin, images, view.held, refused=bool(refused), prior=declaration.prior
    )
    comparisons, finalists, looks = _by_look(view, declaration, arms, terms)
    family = sum(declaration.in_family(arm.loss) for arm in arms if arm.arm != view.baseline)
    findings = Findings(
        view, declaration, arms, comparisons, finalists, images, family, refused, confirmation
    )
    return StudyVerdict(
        sentence=sentence.of_study(findings),
        arms=comparisons,
        headline=finalists,
        recommended=_recommended(finalists),
        limitations=limitations(findings),
        margin=declaration.margin,
        declared_before=declaration.declared_before,
        refused=refused,
        covers=coverage(comparisons),
        family=family,
        looks=looks,
        confirmation=confirmation,
    )


def _by_look(
    view: StudyView,
    declaration: DeclaredTerms,
    arms: list[ArmRuns],
    terms: StudyTerms,
) -> tuple[list[Comparison], Headline | None, tuple[tuple[DueLook, Comparison], ...]]:
    """Every arm against the baseline, the headline, and the headline's comparison at each look.

    A study without looks has one stage. With looks, the first decision of an arm counts.
    """
    by_look, headlines, looks = [], [], []
    for stage in stages(view, declaration.looks, arms):
        at_look = replace(terms, level=stage.level, look=stage.look)
        by_look.append(_against_baseline(view, stage.arms, declaration, at_look))
        decided = {(comparison.arm, comparison.against): comparison for comparison in by_look[-1]}
        finalists = headline(stage.arms, at_look, decided, _tuned(view))
        headlines.append(finalists)
        if stage.look is not None and stage.look.difference > NEVER and finalists is not None:
            looks.append((stage.look, finalists.comparison))
    comparisons = [first_decided(entries) for entries in zip(*by_look, strict=True)]
    return comparisons, _first_headline(headlines), tuple(looks)


def _first_headline(headlines: Sequence[Headline | None]) -> Headline | None:
    """The headline of the first look at which it decided; else of the last look."""
    known = [entry for entry in headlines if entry is not None]
    if not known:
        return None
    comparison = first_decided([entry.comparison for entry in known])
    return next(entry for entry in known if entry.comparison is comparison)


def planned_comparison(
    view: StudyView, arm: str, opponent: str, generator: np.random.Generator
) -> Comparison:
    """Two arms that were chosen beforehand, with a verdict; p_holm is p_t, as there is nothing to adjust for.

    Where judge compares the same two arms and no others, it gives the same numbers.

    Args:
        view: its metric, level, declaration and detections count.
        arm, opponent: their names; each has a row in the arms table.
        generator: for the resamples of images.
    """
    arms = _arms(view)
    images = _images(view, arms, stored_detections(view), generator)
    declaration = declared_terms(view)
    refused = bool(view.held.refusal)
    terms = StudyTerms(view.level, declaration.margin, images, view.held, refused, declaration.prior)
    by_name = {entry.arm: entry for entry in arms}
    numbers = terms.compare(by_name[arm], by_name[opponent])
    return terms.decide(numbers, by_name[arm], by_name[opponent], family=1)


def stored_detections(view: StudyView) -> DetectionSource | None:
    """The view's stored detections on the split that its metric was computed on."""
    if view.artifacts is None or not view.metric.startswith("test/"):
        return view.artifacts
    return view.artifacts.of_test_split()


def judged(view: StudyView, verdict: StudyVerdict) -> StudyView:
    """The view whose arms table has the comparisons, so that every table and figure shows the same numbers.

    See comparisons.with_comparisons for the columns.
    """
    return replace(view, arms=with_comparisons(view.arms, verdict.arms))


def _not_found(missing: Sequence[str]) -> str:
    """Why there is no verdict where the plan or files of runs are nowhere to be found."""
    if not missing:
        return ""
    more = f"; and {len(missing) - 1} more are missing" if len(missing) > 1 else ""
    return f"{missing[0]}{more}; or set partial=true for a verdict without them"


def _arms(view: StudyView) -> list[ArmRuns]:
    """Every arm with its valid runs, in the order of the arms table."""
    valid = view.runs[view.runs["valid"] & view.runs[view.metric].notna()]
    arms = []
    for _, row in view.arms.iterrows():
        runs = valid[valid["arm"] == row["arm"]]
        seeds = [int(seed) for seed in runs["seed"]]
        arm = ArmRuns(
            arm=str(row["arm"]),
            setting=str(row["setting"]),
            loss=str(row["loss"]),
            values=pd.Series(runs[view.metric].to_numpy(float), index=seeds),
            run_ids=dict(zip(seeds, map(str, runs["run_id"]), strict=True)),
            diverged=int(row["n_diverged"]),
            planned=int(row["n_planned"]),
        )
        arms.append(arm)
    return arms


def _images(
    view: StudyView, arms: list[ArmRuns], detections: DetectionSource | None, generator: np.random.Generator
) -> ImageLevel:
    """AP on resampled images: of every run, or in a large study of the baseline and the best arms."""
    if detections is None:
        return ImageLevel()
    chosen: list[str] = []
    count = 0
    for arm in _baseline_then_best(arms, view.baseline):
        if count + len(arm.values) > MOST_RUNS:
            break
        chosen.append(arm.arm)
        count += len(arm.values)
    rows = view.runs[view.runs["valid"] & view.runs["arm"].isin(chosen) & view.runs[view.metric].notna()]
    return image_level(rows, view.metric, detections, generator)


def _baseline_then_best(arms: Sequence[ArmRuns], baseline: str | None) -> list[ArmRuns]:
    """The baseline, then the other BCE arms, then the rest; each from the highest mean to the lowest."""

    def order(arm: ArmRuns) -> tuple[bool, bool, float]:
        mean = float(arm.values.mean()) if len(arm.values) else -math.inf
        return arm.arm != baseline, arm.loss != BASELINE_LOSS or arm.arm == baseline, -mean

    return sorted(arms, key=order)


def _against_baseline(
    view: StudyView, arms: list[ArmRuns], declaration: DeclaredTerms, terms: StudyTerms
) -> list[Comparison]:
    """Every other arm against the baseline: compared, adjusted for their number, decided."""
    others = [arm for arm in arms if arm.arm != view.baseline]
    baseline = next((arm for arm in arms if arm.arm == view.baseline), None)
    if baseline is None:
        return [_without_baseline(arm, terms) for arm in others]
    numbers = [terms.compare(arm, baseline) for arm in others]
    in_family = [declaration.in_family(arm.loss) for arm in others]
    p_holm = _adjusted([comparison.p_t for comparison in numbers], in_family)
    return [
        terms.decide(replace(comparison, p_holm=p), arm, baseline, family=in_family.count(inside))
        for comparison, p, arm, inside in zip(numbers, p_holm, others, in_family, strict=True)
    ]


def _without_baseline(arm: ArmRuns, terms: StudyTerms) -> Comparison:
    nothing = pd.Series(dtype=float)
    empty = compare(nothing, nothing, names=(arm.arm, arm.setting, ""), level=terms.level, margin=None)
    return replace(empty, note="" if terms.refused else "the study has no plain BCE arm to compare with")


def _adjusted(p_values: list[float], in_family: list[bool]) -> list[float]:
    """Holm's p, among the arms of the family and among those outside it."""
    adjusted = [math.nan] * len(p_values)
    for group in (True, False):
        places = [place for place, inside in enumerate(in_family) if inside is group]
        for place, p in zip(places, holm([p_values[i] for i in places], len(places)), strict=True):
            adjusted[place] = p
    return adjusted


def _tuned(view: StudyView) -> tuple[str, ...]:
    """What differs between BCE's arms: 'pos_weight', 'gain'."""
    bce = view.arms[(view.arms["loss"] == BASELINE_LOSS) & (view.arms["n"] > 0)]
    varied = []
    if "loss.pos_weight" in bce.columns and bce["loss.pos_weight"].fillna(1.0).nunique() > 1:
        varied.append("pos_weight")
    if bce["gain"].nunique() > 1:
        varied.append("gain")
    return tuple(varied)


def _recommended(finalists: Headline | None) -> str | None:
    """The arm to use: the focal arm if it is better, BCE if it is not worse or as good; else None."""
    if finalists is None:
        return None
    arms = {BETTER: finalists.focal, WORSE: finalists.bce, EQUIVALENT: finalists.bce}
    return arms.get(finalists.comparison.verdict)
