"""The finalists on fresh seeds: what each look says, and whether it ends the study.

At a declared number of pairs both tests are made at the look's nominal level, with the variance of the
paired differences moderated by that of the exploration (sequential.moderated_variance). In this order:

- equivalent, when two one-sided tests show the difference within the margin;
- better or worse, when the two-sided test does;
- else on to the next look; after the last one it is inconclusive.

A finalist that diverges in a decision seed cannot be called better, or equivalent: the mean of the seeds
in which it trained is not its own. Nothing is called worse than, or equivalent to, a BCE that diverged.
If it diverged in every seed of a look and the other in none, the other is better.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special

from ablation.analyse.statistics.paired import BETTER, EQUIVALENT, INCONCLUSIVE, WORSE
from ablation.analyse.statistics.sequential import (
    PriorSpread,
    SequentialDesign,
    chance_to_tell,
    median_unbiased,
    moderated_variance,
)
from ablation.commands.settle.exploration import Results

FUTILE = 0.1
"""Below this chance that any later look decides, going on is advised against; it is not forbidden."""
GO_ON = "go on"


@dataclass(frozen=True)
class Look:
    """What one look said.

    Attributes:
        planned: pairs that the design has at this look.
        pairs: of these, both runs finished.
        diverged: runs that diverged, (other loss, BCE).
        difference: mean of other loss - BCE, in the metric's units.
        low, high: repeated confidence interval, which holds at all looks together.
        sd: moderated standard deviation of a paired difference.
        p, p_limit: two-sided p and the nominal level below which it decides.
        tost_p, tost_limit: likewise of equivalence.
        verdict: better, worse, equivalent, inconclusive (last look only) or "go on".
        chance: that a later look decides; NaN where the study has ended.
    """

    planned: int
    pairs: int
    diverged: tuple[int, int]
    difference: float
    low: float
    high: float
    sd: float
    p: float
    p_limit: float
    tost_p: float
    tost_limit: float
    verdict: str
    chance: float


@dataclass(frozen=True)
class Decision:
    """Where the decision is.

    Attributes:
        looks: those that have been taken.
        missing: (arm, seed) up to the next look that have not finished; empty at the end.
        estimate: median-unbiased difference once it has ended; NaN before, or without pairs.
    """

    looks: tuple[Look, ...]
    missing: tuple[tuple[str, int], ...]
    estimate: float

    @property
    def verdict(self) -> str:
        """Of the last look; "go on" before the first."""
        return self.looks[-1].verdict if self.looks else GO_ON


def decide(
    finalists: tuple[str, str],
    seeds: Sequence[int],
    results: Results,
    design: SequentialDesign,
    margin: float,
    prior: PriorSpread | None,
) -> Decision:
    """The state of the decision that these results lead to.

    Args:
        finalists: the other loss, then BCE.
        seeds: of the decision, in order; at least as many as the last look has pairs.
        results: (arm, seed) -> metric, None where it diverged.
    """
    looks: list[Look] = []
    for index, planned in enumerate(design.looks):
        due = [(arm, seed) for seed in seeds[:planned] for arm in finalists]
        missing = tuple(run for run in due if run not in results)
        if missing:
            return Decision(tuple(looks), missing, math.nan)
        look = _look(index, finalists, seeds[:planned], results, design, margin, prior)
        looks.append(look)
        if look.verdict != GO_ON:
            break
    last = looks[-1]
    estimate = math.nan
    if last.pairs >= 2 and last.sd > 0:
        estimate = median_unbiased(last.difference, last.sd, design, margin)
    return Decision(tuple(looks), (), estimate)


def _look(
    index: int,
    finalists: tuple[str, str],
    seeds: Sequence[int],
    results: Results,
    design: SequentialDesign,
    margin: float,
    prior: PriorSpread | None,
) -> Look:
    values = np.array([[_number(results[arm, seed]) for seed in seeds] for arm in finalists])
    diverged = tuple(int(n) for n in np.isnan(values).sum(axis=1))
    d = (values[0] - values[1])[np.isfinite(values).all(axis=0)]
    n, last = len(d), index == len(design.looks) - 1
    p_limit, tost_limit = design.difference[index], design.equivalence[index]
    mean = low = high = sd = p = tost = math.nan
    if n:
        mean = float(d.mean())
    if n >= 2:
        df = np.array([n - 1.0])
        sd = math.sqrt(float(moderated_variance(np.array([d.var(ddof=1)]), df, prior)[0]))
        error = max(sd, 1e-12) / math.sqrt(n)
        p = float(2 * special.stdtr(n - 1, -abs(mean) / error))
        tost = float(special.stdtr(n - 1, (abs(mean) - margin) / error))
        half = float(special.stdtrit(n - 1, 1 - p_limit / 2)) * error
        low, high = mean - half, mean + half
    verdict = _verdict(mean, p < p_limit, tost < tost_limit, (diverged[0], diverged[1]), len(seeds))
    if verdict == GO_ON and last:
        verdict = INCONCLUSIVE
    chance = math.nan
    if verdict == GO_ON and n >= 2:
        chance = chance_to_tell(d, _from_pairs(design, n, len(seeds)), margin, prior)
    return Look(
        planned=len(seeds), pairs=n, diverged=(diverged[0], diverged[1]), difference=mean, low=low, high=high,
        sd=sd, p=p, p_limit=p_limit, tost_p=tost, tost_limit=tost_limit, verdict=verdict, chance=chance,
    )  # fmt: skip


def _number(value: float | None) -> float:
    return math.nan if value is None else value


def _verdict(mean: float, differs: bool, within: bool, diverged: tuple[int, int], planned: int) -> str:
    other, bce = diverged
    if other == planned and bce == 0:
        return WORSE
    if bce == planned and other == 0:
        return BETTER
    if within and not other and not bce:
        return EQUIVALENT
    if differs and mean > 0 and not other:
        return BETTER
    if differs and mean < 0 and not bce:
        return WORSE
    return GO_ON


def _from_pairs(design: SequentialDesign, pairs: int, planned: int) -> SequentialDesign:
    """The design in finished pairs: with diverged runs every later look has fewer."""
    if pairs == planned:
        return design
    lost = planned - pairs
    rows = [
        (look - lost, p, q)
        for look, p, q in zip(design.looks, design.difference, design.equivalence, strict=True)
        if look - lost >= 2
    ]
    looks, difference, equivalence = zip(*rows, strict=True) if rows else ((), (), ())
    return SequentialDesign(looks, design.level, design.exponent, difference, equivalence)
