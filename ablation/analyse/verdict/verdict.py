"""What a study says: a verdict on every arm, the headline, and what it cannot conclude."""

from __future__ import annotations

import math
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
    compare,
)
from ablation.analyse.tables import completeness
from ablation.analyse.tables.settings import BASELINE_LOSS
from ablation.analyse.verdict import limitations as limits
from ablation.analyse.verdict import sentence
from ablation.analyse.verdict.comparisons import ArmRuns, StudyTerms
from ablation.analyse.verdict.declaration import DeclaredTerms, declared_terms
from ablation.analyse.verdict.headline import Headline, headline
from ablation.analyse.view import StudyView

__all__ = ["VERDICTS", "Comparison", "StudyVerdict", "judge", "judged"]


@dataclass(frozen=True)
class StudyVerdict:
    """All that a study's statistics say.

    Attributes:
        sentence: the answer in one sentence with its number.
        arms: one for each arm but the baseline, in the order of the arms table.
        headline: best focal against best-tuned BCE; None where one of them has no finished run.
        recommended: the arm to use, where the study says so; None: it does not.
        limitations: what this study cannot conclude, from its own facts.
        margin: the smallest difference that matters; None: nobody said.
        declared_before: the margin was declared before any run of the study had ended.
        refused: why there is no verdict; empty where there is one.
        covers: what the intervals cover: "other seeds and other images" or "other seeds".
        family: how many arms are tested together.
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

    def of(self, arm: str) -> Comparison | None:
        """The verdict on an arm against the baseline; None for the baseline itself."""
        return next((one for one in self.arms if one.arm == arm), None)


def judge(
    view: StudyView,
    *,
    partial: bool,
    generator: np.random.Generator,
    margin: float | None = None,
    artifacts: DetectionSource | None = None,
) -> StudyVerdict:
    """Compare every arm with the baseline, the best focal arm with the best BCE arm, and decide.

    The steps: paired differences over the seeds with intervals that, where detections were kept, cover
    other images too (statistics/intervals.py); Holm over the declared family, by the p of the t test, whose
    sign-flip relative cannot fall below 2^(1 - n) and so could never pass with several arms; TOST
    against the margin; the rule of paired.decide. BCE arms other than the baseline are no part of the
    family unless it names them; they are a family of their own.

    Args:
        view: of the study; its metric, level and declaration count.
        partial: draw verdicts although runs are missing; never where arms were pruned.
        generator: for the resamples of images and the splits of seeds. Equal generators, equal results.
        margin: only where the study declared none; the text then says that it came afterwards.
        artifacts: the runs' kept detections; None: those of the view, if it has any.
    """
    declaration = declared_terms(view, margin)
    refused = completeness.refusal(view.runs, view.metric, partial)
    arms = _arms(view)
    images = _images(view, arms, view.artifacts if artifacts is None else artifacts, generator)
    terms = StudyTerms(view.level, declaration.margin, images, refused=bool(refused))
    comparisons = _against_baseline(view, arms, declaration, terms)
    decided = {(comparison.arm, comparison.against): comparison for comparison in comparisons}
    main = headline(arms, terms, decided, _tuned(view), generator)
    family = sum(declaration.in_family(arm.loss) for arm in arms if arm.arm != view.baseline)
    return StudyVerdict(
        sentence=sentence.of_study(view, comparisons, main, refused, declaration.margin),
        arms=comparisons,
        headline=main,
        recommended=_recommended(main),
        limitations=limits.limitations(view, declaration, comparisons, main, images, arms, family),
        margin=declaration.margin,
        declared_before=declaration.declared_before,
        refused=refused,
        covers=_covers(comparisons),
        family=family,
    )


def judged(view: StudyView, verdict: StudyVerdict) -> StudyView:
    """The view with the verdicts in its arms table, so that every table and figure shows one truth.

    difference_low, difference_high and difference_sd are those of the verdict; difference_p remains the
    sign-flip p. Columns seed_sd, image_se, df, p_t, p_holm, tost_p, correlation, pairing_gain, verdict,
    more_seeds and note are added.
    """
    arms = view.arms.copy()
    by_arm = {one.arm: one for one in verdict.arms}
    found = [by_arm.get(str(arm)) for arm in arms["arm"]]
    for column, name in (
        ("difference_low", "low"),
        ("difference_high", "high"),
        ("difference_sd", "seed_sd"),
    ):
        arms[column] = [math.nan if one is None else float(getattr(one, name)) for one in found]
    for name in ("image_se", "df", "p_t", "p_holm", "tost_p", "correlation", "pairing_gain"):
        arms[name] = [math.nan if one is None else float(getattr(one, name)) for one in found]
    for name in ("verdict", "note"):
        arms[name] = ["" if one is None else str(getattr(one, name)) for one in found]
    arms["more_seeds"] = pd.array([None if one is None else one.more_seeds for one in found], dtype="Int64")
    return replace(view, arms=arms)


def _arms(view: StudyView) -> list[ArmRuns]:
    """Every arm with its runs that count, in the order of the arms table."""
    rows = view.runs[view.runs["valid"] & view.runs[view.metric].notna()]
    found = []
    for _, arm in view.arms.iterrows():
        own = rows[rows["arm"] == arm["arm"]]
        seeds = [int(seed) for seed in own["seed"]]
        values = pd.Series(own[view.metric].to_numpy(float), index=seeds)
        ids = dict(zip(seeds, (str(run) for run in own["run_id"]), strict=True))
        diverged, planned = int(arm["n_diverged"]), int(arm["n_planned"])
        found.append(
            ArmRuns(str(arm["arm"]), str(arm["setting"]), str(arm["loss"]), values, ids, diverged, planned)
        )
    return found


def _images(
    view: StudyView, arms: list[ArmRuns], kept: DetectionSource | None, generator: np.random.Generator
) -> ImageLevel:
    """AP on resampled images: of every run, or in a large study of the baseline and the best arms."""
    if kept is None:
        return ImageLevel()

    def order(one: ArmRuns) -> tuple[bool, bool, float]:
        mean = float(one.values.mean()) if len(one.values) else -math.inf
        best_bce = one.loss == BASELINE_LOSS and one.arm != view.baseline
        return one.arm != view.baseline, not best_bce, -mean

    chosen: list[str] = []
    count = 0
    for one in sorted(arms, key=order):
        if count + len(one.values) > MOST_RUNS:
            break
        chosen.append(one.arm)
        count += len(one.values)
    rows = view.runs[view.runs["valid"] & view.runs["arm"].isin(chosen) & view.runs[view.metric].notna()]
    return image_level(rows, view.metric, kept, generator)


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


def _covers(comparisons: list[Comparison]) -> str:
    """What the intervals cover."""
    compared = [comparison for comparison in comparisons if comparison.n_pairs > 1]
    with_images = bool(compared) and all(math.isfinite(comparison.image_se) for comparison in compared)
    return "other seeds and other images" if with_images else "other seeds"


def _tuned(view: StudyView) -> tuple[str, ...]:
    """What differs between BCE's arms: 'pos_weight', 'gain'."""
    bce = view.arms[(view.arms["loss"] == BASELINE_LOSS) & (view.arms["n"] > 0)]
    weights = (
        bce["loss.pos_weight"].fillna(1.0) if "loss.pos_weight" in bce.columns else pd.Series(dtype=float)
    )
    found = [("pos_weight", weights), ("gain", bce["gain"])]
    return tuple(name for name, values in found if values.nunique() > 1)


def _recommended(main: Headline | None) -> str | None:
    if main is None:
        return None
    return {BETTER: main.focal, WORSE: main.bce, EQUIVALENT: main.bce}.get(main.comparison.verdict)
