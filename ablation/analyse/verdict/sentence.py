"""The verdict in one sentence with its number; it claims no more than the runs show."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ablation.analyse.statistics.paired import BETTER, EQUIVALENT, INCONCLUSIVE, WORSE, Comparison
from ablation.analyse.tables.settings import BASELINE_LOSS
from ablation.analyse.verdict.findings import Findings
from ablation.analyse.view import StudyView


def of_study(findings: Findings) -> str:
    """One sentence without its full stop."""
    view, headline = findings.view, findings.headline
    if findings.refused:
        return f"no verdict: {findings.refused}"
    if headline is None:
        return _without_headline(view, findings.comparisons)
    comparison = headline.comparison
    text = of_comparison(comparison, headline.bce_setting, view.metric, findings.declaration.margin)
    asides = []
    if not headline.tuned:
        asides.append("BCE was not tuned")
    if max(headline.arms) > 1 and comparison.verdict == BETTER:
        asides.append("it was chosen for looking best, so confirm it on fresh seeds")
    if comparison.verdict != INCONCLUSIVE and (names := _varied_besides(findings, comparison)):
        asides.append(f"the arms differ in {names} too")
    if view.partial:
        asides.append(view.partial.replace("INCOMPLETE", "incomplete").rstrip("."))
    return text + (f" ({'; '.join(asides)})" if asides else "")


def of_comparison(comparison: Comparison, opponent: str, metric: str, margin: float | None) -> str:
    """One comparison in words: the verdict, the difference with its interval, the pairs.

    Args:
        comparison: with its verdict.
        opponent: the setting of the arm it is compared with, for people.
        metric: its name, such as val/AP.
        margin: as declared, in the metric's units.
    """
    setting = comparison.setting
    pair = f"{setting} against {opponent}"
    if comparison.n_pairs == 0:
        return f"{pair}: {comparison.verdict}: {comparison.note}"
    seeds = "1 paired seed" if comparison.n_pairs == 1 else f"{comparison.n_pairs} paired seeds"
    numbers = f"{difference_text(comparison)} {metric} on {seeds}"
    if comparison.verdict in (BETTER, WORSE):
        return f"{setting} is {comparison.verdict} than {opponent}: {numbers}"
    if comparison.verdict == EQUIVALENT:
        inside = f"within the margin of {margin:g}" if margin is not None else "within the margin"
        return f"no useful difference, {pair}: {numbers}, {inside}"
    details = "; ".join(text for text in (_further_seeds(comparison), comparison.note) if text)
    return f"not enough to tell, {pair}: {numbers}" + (f"; {details}" if details else "")


def _further_seeds(comparison: Comparison) -> str:
    """'about 12 fresh seeds would tell'; '' where there is no number, and the note says why."""
    count = comparison.more_seeds
    if count is None:
        return ""
    seeds = f"{count:,} {'fresh' if comparison.fresh else 'more'} {'seed' if count == 1 else 'seeds'}"
    return f"about {seeds} would tell" if comparison.n_pairs > 1 else f"at least {seeds} are needed"


def _varied_besides(findings: Findings, comparison: Comparison) -> str:
    """What the two arms differ in besides the loss; an inconclusive comparison has it in its note."""
    pair = [arm for arm in findings.arms if arm.arm in (comparison.arm, comparison.against)]
    run_ids = [run_id for arm in pair for run_id in arm.run_ids.values()]
    return ", ".join(difference.name for difference in findings.view.held.varied(run_ids))


def difference_text(comparison: Comparison) -> str:
    """The difference and, where there is one, its interval: '+0.012 [-0.003, +0.027]'."""
    if not math.isfinite(comparison.low):
        return f"{comparison.difference:+.3f}"
    return f"{comparison.difference:+.3f} [{comparison.low:+.3f}, {comparison.high:+.3f}]"


def _without_headline(view: StudyView, comparisons: Sequence[Comparison]) -> str:
    """The sentence where BCE has no valid run, or nothing but BCE has one."""
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
    compared = [comparison for comparison in comparisons if comparison.n_pairs]
    if compared:
        best = min(compared, key=lambda comparison: (-comparison.difference, comparison.arm))
        plain = bce[bce["arm"] == best.against]["setting"].iloc[0]
        return "only BCE has finished runs; " + of_comparison(best, plain, view.metric, None)
    top = bce.iloc[0]
    return f"no verdict: only BCE has finished runs ({view.metric} {top['mean']:.3f}); nothing to compare"
