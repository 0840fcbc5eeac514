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
    NO_VERDICT,
    VERDICTS,
    WORSE,
    Comparison,
    DecisionContext,
    compare,
    decide,
)
from ablation.analyse.tables import completeness
from ablation.analyse.tables.settings import BASELINE_LOSS
from ablation.analyse.verdict import limitations as limits
from ablation.analyse.verdict import sentence
from ablation.analyse.verdict.declaration import DeclaredTerms, declared_terms
from ablation.analyse.verdict.headline import ArmRuns, Headline, headline, image_of
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
    other images too (bootstrap.py); Holm over the declared family, by the p of the t test, whose
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
    terms = declared_terms(view, margin)
    refused = completeness.refusal(view.runs, view.metric, partial)
    arms = _arms(view)
    kept = artifacts if artifacts is not None else getattr(view, "artifacts", None)
    images = _images(view, arms, kept, generator)
    verdicts = _against_baseline(view, arms, terms, images)
    tuned = _tuned(view)
    known = {(one.arm, one.against): one for one in verdicts}
    main = headline(arms, view.level, terms.margin, images, generator, tuned, known)
    if refused:
        verdicts = [replace(one, verdict=NO_VERDICT, more_seeds=None, note="") for one in verdicts]
        if main is not None:
            none = replace(main.comparison, verdict=NO_VERDICT, more_seeds=None, note="")
            main = replace(main, comparison=none)
    covered = [one for one in verdicts if one.n_pairs > 1]
    everywhere = bool(covered) and all(math.isfinite(one.image_se) for one in covered)
    covers = "other seeds and other images" if everywhere else "other seeds"
    family = sum(terms.in_family(one.loss) for one in arms if one.arm != view.baseline)
    verdict = StudyVerdict(
        sentence="",
        arms=verdicts,
        headline=main,
        recommended=_recommended(main),
        limitations=limits.limitations(view, terms, verdicts, main, images, arms, family),
        margin=terms.margin,
        declared_before=terms.declared_before,
        refused=refused,
        covers=covers,
        family=family,
    )
    text = sentence.of_study(view, verdicts, main, refused, terms.margin)
    return replace(verdict, sentence=text)


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
    view: StudyView, arms: list[ArmRuns], terms: DeclaredTerms, images: ImageLevel
) -> list[Comparison]:
    baseline = next((one for one in arms if one.arm == view.baseline), None)
    others = [one for one in arms if one.arm != view.baseline]
    if baseline is None:
        nothing = pd.Series(dtype=float)
        none = [compare(nothing, nothing, names=(one.arm, one.setting, ""), level=view.level, margin=None)
                for one in others]  # fmt: skip
        return [replace(one, note="the study has no plain BCE arm to compare with") for one in none]
    numbers = [
        compare(
            one.values, baseline.values, names=(one.arm, one.setting, baseline.arm), level=view.level,
            margin=terms.margin, image=image_of(one, baseline, images),
        )
        for one in others
    ]  # fmt: skip
    inside = [terms.in_family(one.loss) for one in others]
    adjusted: dict[str, float] = {}
    for group in (True, False):
        members = [one for one, there in zip(numbers, inside, strict=True) if there is group]
        p = holm([one.p_t for one in members], len(members))
        adjusted |= {one.arm: value for one, value in zip(members, p, strict=True)}
    verdicts = []
    for one, arm, there in zip(numbers, others, inside, strict=True):
        about = DecisionContext(
            terms.margin, view.level, sum(there is other for other in inside), arm.diverged, arm.planned,
            baseline.diverged,
        )  # fmt: skip
        verdicts.append(decide(replace(one, p_holm=adjusted[one.arm]), about))
    return verdicts


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
