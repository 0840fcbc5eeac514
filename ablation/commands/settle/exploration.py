"""Which arm of each side goes into the decision: rounds on exploration seeds, the clearly worse arms leave.

Every round trains each remaining arm on one more seed. After the first, each side keeps its best
KEEP_FIRST (rounded up, two at least). After every later round an arm leaves that trails

- the leader of its own side by more than OWN_LIMIT standard errors of a difference, or
- the leader of the other side by more than OTHER_LIMIT: it could hardly win the study, so that which
  arm of its side is the best matters less.

A side is done with one arm; after MOST_SEEDS seeds its leader is taken. The standard error rests on the
residuals of all remaining arms around their means. The state is a function of the finished runs alone,
so that a launch after an interruption goes the same way.

Nothing of this enters the decision, which is made on fresh seeds: a wrong finalist costs power and
cannot cause a false finding about the arms that are compared. The constants were chosen on simulated
studies, docs/statistics.md shows their cost and their regret.

Source: Karnin, Koren and Somekh, "Almost optimal exploration in multi-armed bandits" (ICML 2013), for
sequential halving; the limits are this project's.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ablation.analyse.statistics.sequential import PriorSpread

KEEP_FIRST = 0.4
OWN_LIMIT = 0.9
OTHER_LIMIT = 1.0
MOST_SEEDS = 6

BCE, OTHERS = "bce", "others"
SIDES = (OTHERS, BCE)

Results = Mapping[tuple[str, int], float | None]
"""(arm, seed) -> the metric; None: that run diverged; absent: not finished."""


@dataclass(frozen=True)
class Round:
    """One round of the exploration.

    Attributes:
        number: from 1.
        seed: that each arm in it is trained on.
        arms: side -> the arms in it, in the order of the plan.
        left: arm -> why it left after this round; empty while the round has not ended.
    """

    number: int
    seed: int
    arms: dict[str, tuple[str, ...]]
    left: dict[str, str]


@dataclass(frozen=True)
class Exploration:
    """Where the exploration is.

    Attributes:
        rounds: those that have ended, and the one that is open.
        missing: (arm, seed) of the open round that have not finished; empty at the end.
        finalists: side -> arm; empty while a round is open or where a side has no arm left.
        lost: sides whose every arm diverged.
        spread: what the residuals say about the variance of a paired difference of two arms.
    """

    rounds: tuple[Round, ...]
    missing: tuple[tuple[str, int], ...]
    finalists: dict[str, str]
    lost: tuple[str, ...]
    spread: PriorSpread

    @property
    def done(self) -> bool:
        """Whether there is nothing left to train."""
        return not self.missing

    @property
    def pair(self) -> tuple[str, str]:
        """The finalists: the other loss, then BCE."""
        return self.finalists[OTHERS], self.finalists[BCE]


def explore(sides: Mapping[str, Sequence[str]], seeds: Sequence[int], results: Results) -> Exploration:
    """The state of the exploration that these results lead to.

    Args:
        sides: side -> its arms, in the order of the plan, which also breaks ties.
        seeds: of the exploration, in the order of their use.
        results: all runs that have ended; those of later rounds are not looked at.

    Raises:
        ValueError: a side has no arm.
    """
    for side, arms in sides.items():
        if not arms:
            raise ValueError(f"the side {side} has no arm")
    alive = {side: tuple(arms) for side, arms in sides.items()}
    rounds: list[Round] = []
    taken: dict[tuple[str, int], float | None] = {}  # results of rounds that have ended, and no others
    for number, seed in enumerate(seeds[:MOST_SEEDS], 1):
        # A side with one arm has nothing to explore.
        racing = {side: arms for side, arms in alive.items() if len(arms) > 1}
        if not racing:
            break
        due = [(arm, seed) for arms in racing.values() for arm in arms]
        missing = tuple(run for run in due if run not in results)
        if missing:
            rounds.append(Round(number, seed, racing, {}))
            return Exploration(tuple(rounds), missing, {}, (), difference_spread(sides, seeds, taken))
        taken |= {run: results[run] for run in due}
        left = _leavers(racing, alive, seeds[:number], taken)
        alive = {side: tuple(arm for arm in arms if arm not in left) for side, arms in alive.items()}
        rounds.append(Round(number, seed, racing, left))
        if any(not arms for arms in alive.values()):
            lost = tuple(side for side, arms in alive.items() if not arms)
            return Exploration(tuple(rounds), (), {}, lost, difference_spread(sides, seeds, taken))
    finalists = {side: _leader(arms, seeds[: len(rounds)], taken) for side, arms in alive.items()}
    return Exploration(tuple(rounds), (), finalists, (), difference_spread(sides, seeds, taken))


def _values(arm: str, seeds: Sequence[int], results: Results) -> list[float | None]:
    return [results[arm, seed] for seed in seeds if (arm, seed) in results]


def _mean(arm: str, seeds: Sequence[int], results: Results) -> float:
    values = _values(arm, seeds, results)
    finished = [value for value in values if value is not None]
    return float(np.mean(finished)) if finished and len(finished) == len(values) else -math.inf


def _leader(arms: Sequence[str], seeds: Sequence[int], results: Results) -> str:
    return max(arms, key=lambda arm: _mean(arm, seeds, results))  # the first of equal ones


def _leavers(
    racing: Mapping[str, Sequence[str]],
    alive: Mapping[str, Sequence[str]],
    seeds: Sequence[int],
    results: Results,
) -> dict[str, str]:
    """arm -> why it leaves after the round of the last of these seeds."""
    left: dict[str, str] = {}
    means = {arm: _mean(arm, seeds, results) for arms in alive.values() for arm in arms}
    leaders = {side: max((means[arm] for arm in arms), default=-math.inf) for side, arms in alive.items()}
    racers = [arm for arms in racing.values() for arm in arms]
    error = math.sqrt(2 * _residuals(racers, seeds, results).variance / len(seeds))
    for side, arms in racing.items():
        finished = [arm for arm in arms if means[arm] > -math.inf]
        left |= {arm: f"diverged in seed {seeds[-1]}" for arm in arms if arm not in finished}
        ranking = sorted(finished, key=lambda arm: -means[arm])
        if len(seeds) == 1:
            keep = max(2, math.ceil(KEEP_FIRST * len(arms)))
            left |= {arm: f"rank {ranking.index(arm) + 1} of {len(arms)}" for arm in ranking[keep:]}
            continue
        rivals = [leaders[other] for other in alive if other != side and leaders[other] > -math.inf]
        for arm in ranking[1:]:
            behind, behind_rival = leaders[side] - means[arm], max(rivals, default=-math.inf) - means[arm]
            if behind > OWN_LIMIT * error:
                left[arm] = f"{behind:.3g} behind {ranking[0]}, more than {OWN_LIMIT:g} standard error"
            elif behind_rival > OTHER_LIMIT * error:
                left[arm] = f"{behind_rival:.3g} behind the other side's leader"
    return left


def _residuals(arms: Sequence[str], seeds: Sequence[int], results: Results) -> PriorSpread:
    """Variance of a run's metric about its arm's mean, pooled over arms, with its degrees of freedom."""
    total, df = 0.0, 0
    for arm in arms:
        values = [value for value in _values(arm, seeds, results) if value is not None]
        if len(values) > 1:
            total += float(np.var(values) * len(values))
            df += len(values) - 1
    return PriorSpread(total / df if df else 0.0, float(df))


def difference_spread(
    sides: Mapping[str, Sequence[str]], seeds: Sequence[int], results: Results
) -> PriorSpread:
    """Variance of a difference of two runs, one of each side.

    The sum of the sides' variances, with Welch and Satterthwaite's degrees of freedom: one side may be far
    noisier. A side without two runs of an arm is taken to be as noisy as the other.
    """
    parts = [_residuals(arms, seeds, results) for arms in sides.values()]
    known = [part for part in parts if part.df]
    if len(known) < len(parts):
        return PriorSpread(2 * known[0].variance, known[0].df) if known else PriorSpread(0.0, 0.0)
    total = sum(part.variance for part in parts)
    spread = sum(part.variance**2 / part.df for part in parts)
    return PriorSpread(total, total**2 / spread if spread > 0 else sum(part.df for part in parts))
