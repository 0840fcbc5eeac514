"""One arm against another on the same seeds: the numbers, and the verdict that follows from them."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ablation.analyse.statistics import power
from ablation.analyse.statistics.hypothesis_tests import sign_flip_p, tost_p
from ablation.analyse.statistics.intervals import ImagePart, difference_interval
from ablation.analyse.statistics.sequential import PriorSpread

MIN_PAIRS = 3
"""With fewer pairs there is no verdict but "inconclusive", whatever the interval says."""
POWER = 0.8
"""Probability with which the stated number of further seeds leads to a verdict."""

BETTER, WORSE, EQUIVALENT, INCONCLUSIVE = "better", "worse", "equivalent", "inconclusive"
NO_VERDICT = "no verdict"
VERDICTS = (BETTER, WORSE, EQUIVALENT, INCONCLUSIVE, NO_VERDICT)


@dataclass(frozen=True)
class Comparison:
    """An arm's paired difference to another arm and what follows from it. NaN: it cannot be computed.

    Attributes:
        arm, setting: the arm, and its loss for people.
        against: the arm it is compared with.
        n_pairs: seeds that both have.
        difference, low, high: mean paired difference and its interval, in the metric's units.
        seed_sd: standard deviation of the paired differences between seeds.
        image_se: what the choice of images adds to the standard error, in the metric's units; NaN:
            the interval covers other seeds only, not other images.
        se, df: standard error of the difference (seeds and, where known, images), degrees of freedom.
        p_sign_flip: exact, over seeds, without any assumption about their distribution.
        p_t: of the t test with se and df; below 1 - level just where the interval excludes 0. NaN with
            fewer than MIN_PAIRS pairs.
        p_holm: p_t after allowing for all arms of the family; this one decides.
        tost_p: that the difference is NOT within the margin; NaN without a margin.
        correlation: of the two arms over the seeds.
        pairing_gain: (var a + var b) / var(a - b): so many times as many seeds would be needed
            without pairing; below 1, pairing did harm.
        verdict: one of VERDICTS.
        more_seeds: seeds after which a verdict is likely, or with fewer than two pairs the least number of
            them; None where none is needed, or where no number would lead to one, which the note then says.
        fresh: more_seeds are seeds of a new comparison; False: they are added to the ones that are there.
            From MIN_PAIRS pairs on a report has drawn its verdict, and seeds added later decide nothing.
        note: what limits the verdict; may be empty.
    """

    arm: str
    setting: str
    against: str
    n_pairs: int
    difference: float
    low: float
    high: float
    seed_sd: float
    image_se: float
    se: float
    df: float
    p_sign_flip: float
    p_t: float
    p_holm: float
    tost_p: float
    correlation: float
    pairing_gain: float
    verdict: str = NO_VERDICT
    more_seeds: int | None = None
    fresh: bool = False
    note: str = ""


@dataclass(frozen=True)
class DueLook:
    """One of the declared numbers of pairs at which a study draws verdicts.

    Attributes:
        pairs: of this look.
        difference, equivalence: nominal levels, see sequential.SequentialDesign.
        following: pairs of the look after it; None: it is the last.
        why_last: instead of "this was the last declared look".
    """

    pairs: int
    difference: float
    equivalence: float
    following: int | None
    why_last: str = ""

    def further(self) -> tuple[int | None, str]:
        """Seeds until the next look, and a note."""
        if self.why_last:
            return None, self.why_last
        if self.following is None:
            return None, "this was the last declared look; a new question needs fresh seeds"
        return self.following - self.pairs, f"the next declared look is at {self.following} pairs"


@dataclass(frozen=True)
class DecisionContext:
    """What a decision depends on besides the numbers.

    Attributes:
        margin: the smallest difference that matters; None: it was not declared.
        level: of the intervals; 1 - level is the chance of any false finding in a family.
        family: number of arms that are tested together.
        diverged, planned: seeds in which the arm diverged, and which it should have.
        baseline_diverged: seeds in which the arm it is compared with diverged.
        refused: the study gets no verdict, whatever the numbers say.
        look: of a study that draws verdicts at declared numbers of pairs: the one that this is.
        chosen: the two arms are the best of several by these very values, so they are never "equivalent".
    """

    margin: float | None
    level: float
    family: int = 1
    diverged: int = 0
    planned: int = 0
    baseline_diverged: int = 0
    refused: bool = False
    look: DueLook | None = None
    chosen: bool = False

    @property
    def p_limit(self) -> float:
        """Below it, p_holm shows a difference."""
        return 1 - self.level if self.look is None else self.look.difference

    @property
    def tost_limit(self) -> float:
        """Below it, tost_p shows equivalence."""
        return 1 - self.level if self.look is None else self.look.equivalence

    @property
    def strict_level(self) -> float:
        """1 - (1 - level) / family: the level that Holm's method asks of the first arm of a family."""
        return 1 - (1 - self.level) / max(self.family, 1)


def compare(
    arm: pd.Series,
    baseline: pd.Series,
    *,
    names: tuple[str, str, str],
    level: float,
    margin: float | None,
    image: ImagePart | None = None,
    prior: PriorSpread | None = None,
) -> Comparison:
    """The numbers of arm - baseline over the seeds that both have; no verdict yet.

    With d_s the differences of the n common seeds: difference = mean(d), seed_sd = their standard
    deviation, the interval and p_t as in intervals.difference_interval.

    Args:
        arm, baseline: the metric by seed, each seed once; values that are not finite are left out.
        names: arm, its setting, the arm it is compared with.
        level: of the interval, in (0, 1).
        margin: of the equivalence test, in the metric's units; None: no such test.
        image: see image_resampling.ImageLevel.part, made from the same seeds.
        prior: what other runs say about the spread of the differences; None: only the differences count.

    Raises:
        ValueError: a seed occurs twice.
    """
    a, b = paired_values(arm, baseline)
    d = a - b
    interval = difference_interval(d, level, image, prior)
    correlation, gain = _pairing(a, b)
    # Two pairs leave the spread between seeds practically unknown: no p, however well they agree by chance.
    p = interval.p if interval.n >= MIN_PAIRS else math.nan
    return Comparison(
        *names,
        n_pairs=interval.n,
        difference=interval.mean,
        low=interval.low,
        high=interval.high,
        seed_sd=interval.sd,
        image_se=math.nan if image is None else image.se,
        se=interval.se,
        df=interval.df,
        p_sign_flip=sign_flip_p(d),
        p_t=p,
        p_holm=p,
        tost_p=math.nan if margin is None else tost_p(interval, margin),
        correlation=correlation,
        pairing_gain=gain,
    )


def paired_values(arm: pd.Series, baseline: pd.Series) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The values of both over the seeds that both have, in the arm's order; non-finite pairs left out.

    Raises:
        ValueError: a seed occurs twice.
    """
    for series in (arm, baseline):
        if not series.index.is_unique:
            raise ValueError("a seed occurs twice; a paired difference needs one value per seed")
    by_seed = dict(zip(baseline.index, baseline.to_numpy(float), strict=True))
    values = zip(arm.index, arm.to_numpy(float), strict=True)
    pairs = [(value, by_seed[seed]) for seed, value in values if seed in by_seed]
    a, b = np.array(pairs, float).reshape(-1, 2).T
    finite = np.isfinite(a) & np.isfinite(b)
    return a[finite], b[finite]


def _pairing(a: np.ndarray, b: np.ndarray) -> tuple[float, float]:
    """Correlation and variance ratio; NaN below 3 pairs or without spread."""
    if len(a) < 3:
        return math.nan, math.nan
    var_a, var_b, var_d = (float(np.var(x, ddof=1)) for x in (a, b, a - b))
    tiny = 1e-24
    correlation = float(np.corrcoef(a, b)[0, 1]) if min(var_a, var_b) > tiny else math.nan
    return correlation, (var_a + var_b) / var_d if var_d > tiny else math.nan


def decide(comparison: Comparison, context: DecisionContext) -> Comparison:
    """The comparison, whose p_holm has been set, with its verdict, the number of further seeds and a note.

    - equivalent: TOST shows the difference to be within the margin, tost_p < 1 - level. That comes
      first: a difference that is real but smaller than what matters is "equivalent: differs, but ...".
    - better, worse: otherwise, if p_holm < 1 - level.
    - inconclusive: otherwise, or with fewer than MIN_PAIRS pairs.

    Two arms that were chosen by these values are never equivalent: the choice makes a difference of the
    margin look smaller, and paying for that would cost nearly all power. Fresh seeds show equivalence.

    An arm that diverged in some seed cannot be better or equivalent, because the mean of the finished
    seeds is not the mean of the arm; for the same reason nothing is worse than, or equivalent to, a
    baseline that diverged in some seed. An arm that diverged in every seed, at least MIN_PAIRS of
    them, is worse.
    """
    if context.refused:
        return replace(comparison, verdict=NO_VERDICT, more_seeds=None)
    if comparison.n_pairs == 0:
        return _decide_without_pairs(comparison, context)
    if comparison.n_pairs < MIN_PAIRS:
        return _decide_with_few_pairs(comparison, context)
    differs = comparison.p_holm < context.p_limit
    within = comparison.tost_p < context.tost_limit  # False for NaN: without a margin nothing is equivalent
    if within and not context.chosen:
        note = "differs, but by less than matters" if differs else ""
        return _unless_diverged(replace(comparison, verdict=EQUIVALENT, note=note), context)
    if differs:
        verdict = BETTER if comparison.difference > 0 else WORSE
        note = _effect_note(comparison, context)
        return _unless_diverged(replace(comparison, verdict=verdict, note=note), context)
    if within:
        note = "it looks smaller than the margin, but equivalence of two chosen arms needs fresh seeds"
        return replace(comparison, verdict=INCONCLUSIVE, more_seeds=None, note=note)
    more_seeds, note = _further_seeds(comparison, context)
    fresh = more_seeds is not None and context.look is None
    if comparison.p_t < context.p_limit:
        adjusted = (
            f"its unadjusted p {comparison.p_t:.2g} is not small enough with {context.family} arms tested"
        )
        note = f"{adjusted}; {note}" if note else adjusted
    return replace(comparison, verdict=INCONCLUSIVE, more_seeds=more_seeds, fresh=fresh, note=note)


def _decide_without_pairs(comparison: Comparison, context: DecisionContext) -> Comparison:
    if context.diverged >= MIN_PAIRS and context.diverged >= context.planned:
        note = f"it diverged in every one of {context.diverged} seeds"
        return replace(comparison, verdict=WORSE, note=note)
    diverged = f"diverged in {context.diverged} of {context.planned} seeds, and " if context.diverged else ""
    note = f"{diverged}no seed has finished in both arms"
    return replace(comparison, verdict=INCONCLUSIVE, more_seeds=MIN_PAIRS, note=note)


def _decide_with_few_pairs(comparison: Comparison, context: DecisionContext) -> Comparison:
    few = "one pair cannot tell" if comparison.n_pairs == 1 else f"{comparison.n_pairs} pairs cannot tell"
    few = f"{few}; {MIN_PAIRS} are the least"
    if comparison.n_pairs == 1 and context.look is None:  # without a spread only the least number is known
        missing = MIN_PAIRS - comparison.n_pairs
        return replace(comparison, verdict=INCONCLUSIVE, more_seeds=missing, note=few)
    more_seeds, reason = _further_seeds(comparison, context)
    note = f"{few}; {reason}" if reason else few
    return replace(comparison, verdict=INCONCLUSIVE, more_seeds=more_seeds, note=note)


def _unless_diverged(comparison: Comparison, context: DecisionContext) -> Comparison:
    """The verdict, or inconclusive where it rests on the seeds in which an arm did not diverge."""
    verdict = comparison.verdict
    if context.diverged and verdict != WORSE:
        note = (
            f"{verdict} where it trained, but it diverged in {context.diverged} of {context.planned} seeds: "
            "the mean of the other seeds is not the arm's"
        )
        return replace(comparison, verdict=INCONCLUSIVE, note=note)
    if context.baseline_diverged and verdict != BETTER:
        note = f"{verdict}, but only against the seeds in which {comparison.against} did not diverge"
        return replace(comparison, verdict=INCONCLUSIVE, note=note)
    return comparison


def _effect_note(comparison: Comparison, context: DecisionContext) -> str:
    """What limits "better" or "worse": the margin, and the test that assumes no distribution."""
    alpha = 1 - context.level
    notes = []
    nearest = min(abs(comparison.low), abs(comparison.high))
    if context.margin is not None and nearest < context.margin:
        notes.append(f"whether by more than the margin of {context.margin:g} is open")
    # The exact test needs no normality; where it could reach alpha and does not, a reader must know.
    p = comparison.p_sign_flip
    if p > alpha >= 2.0 ** (1 - comparison.n_pairs):
        notes.append(f"the sign-flip test, which assumes no distribution, gives p {p:.2g}")
    return "; ".join(notes)


def _further_seeds(comparison: Comparison, context: DecisionContext) -> tuple[int | None, str]:
    """How many seeds would tell, with power POWER, and a note on it: fresh ones from MIN_PAIRS pairs on,
    else those to add.

    Planned for the margin, since the difference that was seen may be luck; for the difference that was
    seen where no margin was declared, or where so many pairs are there already and the difference lies
    near the margin. Without a number the note says why.
    """
    if context.look is not None:
        return context.look.further()
    sd, n = comparison.seed_sd, comparison.n_pairs
    before = 0 if n >= MIN_PAIRS else n
    image_se = 0.0 if math.isnan(comparison.image_se) else comparison.image_se
    note = "for a difference as large as the one seen, because no margin was declared"
    if context.margin is not None:
        total = power.seeds_to_tell(context.margin, sd, POWER, context.level, image_se, context.family)
        if total is None:
            return None, _image_limit_note(context.margin, image_se, context)
        if total > n:
            return total - before, ""
        note = "the difference lies near the margin"
    total = power.seeds_to_detect(comparison.difference, sd, POWER, context.strict_level, image_se)
    if total is None:
        return None, f"no number of seeds would tell a difference of {comparison.difference:+.2g} from none"
    return max(total - before, 1), note


def _image_limit_note(margin: float, image_se: float, context: DecisionContext) -> str:
    """No number of seeds tells because of the images: how many times as many images would be needed."""
    if image_se == 0:
        return f"no number of seeds up to {power.MOST_PAIRS:,} would tell"
    # Without any seed noise: the largest image_se at which the margin is found and equality is shown.
    from scipy.stats import norm

    detect = margin / (norm.ppf((1 + context.strict_level) / 2) + norm.ppf(POWER))
    equal = margin / (norm.ppf(context.level) + norm.ppf((1 + POWER) / 2))
    times = (image_se / min(detect, equal)) ** 2
    return (
        f"no number of seeds would tell: the choice of images alone has a standard error of {image_se:.2g}; "
        f"{max(times, 1.1):.2g} times as many images would be needed"
    )
