"""One arm against another on the same seeds: the numbers, and what they allow to say."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ablation.analyse.statistics import power
from ablation.analyse.statistics.hypothesis_tests import sign_flip_p, tost_p
from ablation.analyse.statistics.intervals import ImagePart, difference_interval

MIN_PAIRS = 3
"""With fewer pairs nothing is called a difference or an equivalence, whatever its interval says."""
POWER = 0.8
"""Of the number of further seeds: so often would they tell."""

BETTER, WORSE, EQUIVALENT, INCONCLUSIVE = "better", "worse", "equivalent", "inconclusive"
NO_VERDICT = "no verdict"
VERDICTS = (BETTER, WORSE, EQUIVALENT, INCONCLUSIVE, NO_VERDICT)


@dataclass(frozen=True)
class Comparison:
    """An arm's paired difference to another arm and what follows from it. What cannot be given is NaN.

    Attributes:
        arm, setting: the arm, and its loss for people.
        against: the arm it is compared with.
        n_pairs: seeds that both have.
        difference, low, high: mean paired difference and its interval, in the metric's units.
        seed_sd: standard deviation of the paired differences between seeds.
        image_se: what the choice of images adds to the standard error; NaN: the interval covers
            other seeds only, not other images.
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
        more_seeds: further pairs after which a verdict is likely; None where none is needed or no
            number would do, and then the note says so.
        note: what a reader has to know beside it.
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
    note: str = ""


@dataclass(frozen=True)
class DecisionContext:
    """What a decision depends on besides the numbers.

    Attributes:
        margin: the smallest difference that matters; None: nobody said.
        level: of the intervals; 1 - level is the share of false findings in a family.
        family: arms that are tested together.
        diverged, planned: seeds in which the arm diverged, and which it should have.
        baseline_diverged: seeds in which the arm it is compared with diverged.
        refused: the study gets no verdict, whatever the numbers say.
    """

    margin: float | None
    level: float
    family: int = 1
    diverged: int = 0
    planned: int = 0
    baseline_diverged: int = 0
    refused: bool = False


def compare(
    arm: pd.Series,
    baseline: pd.Series,
    *,
    names: tuple[str, str, str],
    level: float,
    margin: float | None,
    image: ImagePart | None = None,
) -> Comparison:
    """The numbers of arm - baseline over the seeds that both have; no verdict yet.

    Args:
        arm, baseline: the metric by seed, each seed once; values that are not finite are left out.
        names: arm, its setting, the arm it is compared with.
        level: of the interval.
        margin: of the equivalence test; None: no such test.
        image: see images.ImageLevel.part, made from the same seeds.
    """
    a, b = paired_values(arm, baseline)
    d = a - b
    interval = difference_interval(d, level, image)
    correlation, gain = _pairing(a, b)
    # From two pairs the spread between seeds is as good as unknown: no p, however well they agree by luck.
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
    other = dict(zip(baseline.index, baseline.to_numpy(float), strict=True))
    both = [(x, other[seed]) for seed, x in zip(arm.index, arm.to_numpy(float), strict=True) if seed in other]
    a, b = np.array(both, float).reshape(-1, 2).T
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


def decide(numbers: Comparison, about: DecisionContext) -> Comparison:
    """The verdict on a comparison whose p_holm has been set.

    - equivalent: TOST shows the difference to be within the margin, p < 1 - level. That comes first:
      a difference that is real but smaller than what matters is "equivalent: differs, but ...".
    - better, worse: else, p_holm < 1 - level.
    - inconclusive: else, or with fewer than MIN_PAIRS pairs.

    An arm that diverged in some seed cannot be better or equivalent, for the mean of the survivors
    is not the arm's; for the same reason nothing is worse than, or equivalent to, a baseline that
    diverged in some seed. An arm that diverged in every seed, 3 at least, is worse.
    """
    if about.refused:
        return replace(numbers, verdict=NO_VERDICT, more_seeds=None, note="")
    alpha = 1 - about.level
    if numbers.n_pairs == 0:
        return _without_pairs(numbers, about)
    if numbers.n_pairs < MIN_PAIRS:
        pairs = "one pair" if numbers.n_pairs == 1 else f"{numbers.n_pairs} pairs"
        missing = MIN_PAIRS - numbers.n_pairs
        more, note = _more(numbers, about) if numbers.n_pairs > 1 else (None, "")
        note = f"{pairs} cannot tell; {MIN_PAIRS} are the least" + (f"; {note}" if note else "")
        return replace(numbers, verdict=INCONCLUSIVE, more_seeds=max(more or missing, missing), note=note)
    differs = numbers.p_holm < alpha
    within = numbers.tost_p < alpha  # False for NaN: without a margin nothing is equivalent
    if within:
        note = "differs, but by less than matters" if differs else ""
        found = EQUIVALENT
    elif differs:
        found = BETTER if numbers.difference > 0 else WORSE
        note = _how_much(numbers, about)
    else:
        more, note = _more(numbers, about)
        if numbers.p_t < alpha:
            extra = f"its own p {numbers.p_t:.2g} does not survive that {about.family} arms were tested"
            note = f"{extra}; {note}" if note else extra
        return replace(numbers, verdict=INCONCLUSIVE, more_seeds=more, note=note)
    if about.diverged and found != WORSE:
        note = (
            f"{found} where it trained, but it diverged in {about.diverged} of {about.planned} seeds: "
            "the survivors do not speak for the arm"
        )
        found = INCONCLUSIVE
    elif about.baseline_diverged and found != BETTER:
        note = f"{found}, but only against the seeds in which {numbers.against} did not diverge"
        found = INCONCLUSIVE
    return replace(numbers, verdict=found, note=note)


def _without_pairs(numbers: Comparison, about: DecisionContext) -> Comparison:
    if about.diverged >= MIN_PAIRS and about.diverged >= about.planned:
        note = f"it diverged in every one of {about.diverged} seeds"
        return replace(numbers, verdict=WORSE, note=note)
    note = f"diverged in {about.diverged} of {about.planned} seeds, and " if about.diverged else ""
    return replace(
        numbers, verdict=INCONCLUSIVE, more_seeds=MIN_PAIRS, note=note + "no seed has finished in both arms"
    )


def _how_much(numbers: Comparison, about: DecisionContext) -> str:
    alpha = 1 - about.level
    notes = []
    if about.margin is not None and min(abs(numbers.low), abs(numbers.high)) < about.margin:
        notes.append(f"whether by more than the margin of {about.margin:g} is open")
    # The exact test needs no normality; where it could reach alpha and does not, a reader must know.
    if numbers.p_sign_flip > alpha >= 2.0 ** (1 - numbers.n_pairs):
        notes.append(f"the sign-flip test, which assumes no distribution, gives p {numbers.p_sign_flip:.2g}")
    return "; ".join(notes)


def _more(numbers: Comparison, about: DecisionContext) -> tuple[int | None, str]:
    """How many further seeds would tell, and what to say where that is no plain number."""
    sd, n = numbers.seed_sd, numbers.n_pairs
    image = 0.0 if math.isnan(numbers.image_se) else numbers.image_se
    strict = 1 - (1 - about.level) / max(about.family, 1)
    if about.margin is not None:
        total = power.seeds_to_tell(about.margin, sd, POWER, about.level, image, about.family)
        if total is None:
            return None, _images_limit(about, image)
        if total > n:
            # Planned for the margin, since what was seen may be luck; but a reader sees how far off that is.
            seen = power.seeds_to_detect(numbers.difference, sd, POWER, strict, image)
            fewer = max((seen or total) - n, 1)
            note = f"{fewer} if the difference is as large as seen" if fewer < total - n else ""
            return total - n, note
        # Enough to find the margin or to show equality, and yet neither: it lies in between.
        total = power.seeds_to_detect(numbers.difference, sd, POWER, strict, image)
        note = "the difference lies near the margin"
    else:
        total = power.seeds_to_detect(numbers.difference, sd, POWER, strict, image)
        note = "seeds to find a difference as large as the one seen, for no margin was declared"
    if total is None:
        return None, note + "; no number of seeds would tell"
    return max(total - n, 1), note


def _images_limit(about: DecisionContext, image: float) -> str:
    """No number of seeds tells, because the images leave too much open: how many times as many would."""
    if image == 0 or about.margin is None:
        return f"more than {power.MOST_PAIRS:,} seeds would be needed"
    strict = 1 - (1 - about.level) / max(about.family, 1)
    # Without any seed noise: the largest image_se at which the margin is found and equality is shown.
    from scipy.stats import norm

    detect = about.margin / (norm.ppf((1 + strict) / 2) + norm.ppf(POWER))
    equal = about.margin / (norm.ppf(about.level) + norm.ppf((1 + POWER) / 2))
    times = (image / min(detect, equal)) ** 2
    return (
        f"no number of seeds would tell: the choice of images alone has a standard error of {image:.2g}; "
        f"{max(times, 1.1):.2g} times as many images would be needed"
    )
