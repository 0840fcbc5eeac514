"""One plain sentence about a study, which never says more than its runs can carry."""

from __future__ import annotations

import math

import pandas as pd
from scipy import stats

MIN_PAIRS = 3
"""With fewer pairs no difference is called one, whatever its interval says."""


def headline(arms: pd.DataFrame, metric: str = "val/AP", level: float = 0.95) -> str:
    """The arm with the largest paired difference to the baseline, and whether that means anything.

    It says "better" only if there are at least 3 pairs, the paired interval excludes 0, and the
    t test's p, multiplied by the number of arms compared (Bonferroni), stays below 1 - level:
    the best of twelve equal arms looks good by having been chosen. "Worse" needs no such factor,
    for the choice worked against it.

    Args:
        arms: see table.arms_table, made with the same metric and level.
    """
    baseline = arms[arms["baseline"] & (arms["n"] > 0)]
    others = arms[~arms["baseline"] & (arms["n"] > 0)]
    if baseline.empty:
        top = others.sort_values(["mean", "arm"], ascending=[False, True]).iloc[0]
        known = bool(arms["baseline"].any())
        why = "plain BCE has no finished run" if known else "the study has no plain BCE"
        return (
            f"{why}, so no difference can be given; the highest mean is {top['setting']}: "
            f"{metric} {top['mean']:.3f} on {_seeds(int(top['n']))}"
        ) + _incomplete(arms)
    base = baseline.iloc[0]
    if others.empty:
        return (
            f"only BCE has finished runs: {metric} {base['mean']:.3f} on {_seeds(int(base['n']))}; "
            "there is nothing to compare it with"
        ) + _incomplete(arms)
    paired = others[others["n_pairs"] > 0]
    if paired.empty:
        why = "no seed has finished in both BCE and another arm"
        return f"{why}, so no paired difference can be given" + _incomplete(arms)
    best = paired.sort_values(["difference", "arm"], ascending=[False, True]).iloc[0]
    number = f"{metric} {best['mean']:.3f}, {best['difference']:+.3f}"
    if math.isfinite(best["difference_low"]):
        number += f" [{best['difference_low']:+.3f}, {best['difference_high']:+.3f}]"
    pairs = int(best["n_pairs"])
    start = f"best of {len(paired)} arms: " if len(paired) > 1 else ""
    compared = f"against BCE on {pairs} paired {'seed' if pairs == 1 else 'seeds'}"
    judgement = _judgement(best, len(paired), level)
    return f"{start}{best['setting']}: {number} {compared}: {judgement}{_incomplete(arms)}"


def _judgement(best: pd.Series, arms: int, level: float) -> str:
    n, low, high = int(best["n_pairs"]), float(best["difference_low"]), float(best["difference_high"])
    if n < MIN_PAIRS:
        return "not enough runs to tell"
    if low <= 0 <= high:
        return f"the {100 * level:g}% interval includes 0, so these runs do not tell them apart"
    if high < 0:
        return "worse than BCE" + (", and every other arm is lower still" if arms > 1 else "")
    if _t_test_p(float(best["difference"]), float(best["difference_sd"]), n) * arms > 1 - level:
        return f"the interval excludes 0, but not once it is allowed for that {arms} arms were compared"
    advice = "; confirm it on fresh seeds, for the best of several looks too good" if arms > 1 else ""
    return f"better than BCE on these seeds{advice}"


def _t_test_p(mean: float, sd: float, n: int) -> float:
    """Two-sided p of the paired t test; differences without any spread have p = 0."""
    if sd == 0:
        return 0.0
    return float(2 * stats.t.sf(abs(mean) / (sd / math.sqrt(n)), n - 1))


def _seeds(n: int) -> str:
    return f"{n} seed" if n == 1 else f"{n} seeds"


def _incomplete(arms: pd.DataFrame) -> str:
    """A warning where runs of the study are not data."""
    planned, finished = int(arms["n_planned"].sum()), int(arms["n_finished"].sum())
    if finished >= planned:
        return ""
    return f" ({planned - finished} of {planned} runs did not finish or are missing: see the problems)"
