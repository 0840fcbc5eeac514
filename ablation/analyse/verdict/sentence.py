"""The verdict in one sentence with its number, which never says more than the runs can carry."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ablation.analyse.statistics.paired import BETTER, EQUIVALENT, WORSE, Comparison
from ablation.analyse.tables.settings import BASELINE_LOSS
from ablation.analyse.verdict.headline import Headline
from ablation.analyse.view import StudyView


def of_study(
    view: StudyView, verdicts: Sequence[Comparison], main: Headline | None, refused: str, margin: float | None
) -> str:
    """One sentence without its full stop."""
    if refused:
        return f"no verdict: {refused}"
    if main is None:
        return _without_headline(view, verdicts)
    text = of_comparison(main.comparison, main.bce_setting, view.metric, margin)
    asides = []
    if not main.tuned:
        asides.append("BCE was not tuned")
    gain = main.optimism.value
    if max(main.arms) > 1 and math.isfinite(gain) and main.comparison.verdict == BETTER:
        asides.append(f"the choice of the best is worth {gain:+.3f} of it, so confirm it on fresh seeds")
    if stamp := view.partial:
        asides.append(stamp[:1].lower() + stamp[1:].rstrip("."))
    return text + (f" ({'; '.join(asides)})" if asides else "")


def of_comparison(one: Comparison, other: str, metric: str, margin: float | None) -> str:
    """One comparison in words: the verdict, the difference with its interval, the pairs.

    Args:
        one: with its verdict.
        other: the setting of the arm it is compared with, for people.
    """
    pair = f"{one.setting} against {other}"
    if one.n_pairs == 0:
        return f"{pair}: {one.verdict}: {one.note}"
    number = f"{one.difference:+.3f} {metric}"
    if math.isfinite(one.low):
        number = f"{one.difference:+.3f} [{one.low:+.3f}, {one.high:+.3f}] {metric}"
    seeds = "1 paired seed" if one.n_pairs == 1 else f"{one.n_pairs} paired seeds"
    numbers = f"{number} on {seeds}"
    if one.verdict == BETTER:
        return f"{one.setting} is better than {other}: {numbers}"
    if one.verdict == WORSE:
        return f"{one.setting} is worse than {other}: {numbers}"
    if one.verdict == EQUIVALENT:
        inside = f"within the margin of {margin:g}" if margin is not None else "within the margin"
        return f"no useful difference, {pair}: {numbers}, {inside}"
    more = ""
    if one.more_seeds is not None:
        more = f"; about {one.more_seeds:,} more {'seed' if one.more_seeds == 1 else 'seeds'} would tell"
    note = f" ({one.note})" if one.note else ""
    return f"not enough to tell, {pair}: {numbers}{more}{note}"


def _without_headline(view: StudyView, verdicts: Sequence[Comparison]) -> str:
    """Where there is no BCE, or nothing but BCE, that finished."""
    arms = view.arms[view.arms["n"] > 0]
    bce, others = arms[arms["loss"] == BASELINE_LOSS], arms[arms["loss"] != BASELINE_LOSS]
    if len(others):
        known = bool((view.arms["loss"] == BASELINE_LOSS).any())
        why = "BCE has no finished run" if known else "the study has no BCE arm"
        top = others.sort_values(["mean", "arm"], ascending=[False, True]).iloc[0]
        n = int(top["n"])
        return (
            f"no verdict: {why}; the highest mean is that of {top['setting']}: {view.metric} "
            f"{top['mean']:.3f} on {n} {'seed' if n == 1 else 'seeds'}"
        )
    compared = [one for one in verdicts if one.n_pairs]
    if compared:
        best = min(compared, key=lambda one: (-one.difference, one.arm))
        plain = bce[bce["arm"] == best.against]["setting"].iloc[0]
        return "only BCE has finished runs; " + of_comparison(best, plain, view.metric, None)
    top = bce.iloc[0]
    return f"no verdict: only BCE has finished runs ({view.metric} {top['mean']:.3f}); nothing to compare"
