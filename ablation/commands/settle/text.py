"""What a settle found, in sentences."""

from __future__ import annotations

import math

from ablation.analyse.statistics.paired import BETTER, EQUIVALENT, WORSE
from ablation.analyse.verdict.look_outcome import Look
from ablation.commands.settle.decision import FUTILE, GO_ON
from ablation.commands.settle.exploration import BCE, OTHERS
from ablation.commands.settle.state import Settled


def summary(state: Settled) -> list[str]:
    """The answer, what to do next, and the path."""
    return [answer(state), *_next(state), "", *path(state)]


def answer(state: Settled) -> str:
    """One sentence with the verdict and its number."""
    design, decision = state.design, state.decision
    if state.exploration.lost:
        names = " and ".join("BCE" if side == BCE else "the other losses" for side in state.exploration.lost)
        return f"No answer: every arm of {names} diverged in the exploration."
    if decision is not None and not decision.looks and not decision.missing:
        return "No answer: every run of the decision diverged before it was evaluated."
    if decision is None or not decision.looks:
        what = "the exploration has not ended" if decision is None else "the decision has not reached a look"
        return f"Inconclusive within the budget: {what}." if state.stopped else f"No answer yet: {what}."
    focal, bce = state.exploration.pair
    look = decision.looks[-1]
    number = _interval(look, design.metric)
    if decision.verdict == BETTER:
        return f"{focal} is better than {bce}: {number}."
    if decision.verdict == WORSE:
        return f"{focal} is worse than {bce}: {number}."
    if decision.verdict == EQUIVALENT:
        return f"No useful difference between {focal} and {bce} (margin {design.margin:g}): {number}."
    if state.stopped:
        return f"Inconclusive within the budget, {focal} against {bce}: {number}."
    if decision.verdict == GO_ON:
        return f"Not decided yet, {focal} against {bce}: {number}."
    return f"Inconclusive after the last look, {focal} against {bce}: {number}."


def _interval(look: Look, metric: str) -> str:
    interval = "" if math.isnan(look.low) else f" [{look.low:+.3f}, {look.high:+.3f}]"
    if math.isnan(look.difference):
        return "no pair finished"
    return f"{look.difference:+.3f}{interval} {metric}, {look.pairs} pairs on fresh seeds"


def _next(state: Settled) -> list[str]:
    lines = []
    decision, design = state.decision, state.design
    if state.stopped:
        lines.append(f"Stopped: {state.stopped}. {more_cost(state)}")
        lines.append("The same command with a larger budget goes on with the same design.")
    elif not state.ended:
        lines.append("The same command goes on.")
    if decision is not None and decision.looks:
        if decision.verdict == GO_ON and not math.isnan(decision.chance):
            advice = "; going on is hardly worth it" if decision.chance < FUTILE else ""
            chance = f"decides with probability {decision.chance:.0%}{advice}"
            lines.append(f"A later look (up to {design.looks[-1]} pairs) {chance}.")
        if not math.isnan(decision.estimate):
            lines.append(f"Estimate corrected for stopping early: {decision.estimate:+.3f} {design.metric}.")
    return [*lines, *_test(state), f"Spent: {state.spent.line()}."]


def more_cost(state: Settled) -> str:
    """What the next look and the last one would take, from the cost of the runs so far."""
    pairs = state.next_look
    if pairs is None:
        return ""
    texts = []
    for name, at in (("next", pairs), ("last", state.design.looks[-1])):
        runs = state.runs_to(at)
        hours = f", about {state.spent.hours_of(runs):.2g} h" if state.spent.runs else ""
        texts.append(f"the {name} look ({at} pairs) takes {runs} more runs{hours}")
    same = pairs == state.design.looks[-1]
    text = texts[1] if same else "; ".join(texts)
    rounds = "" if state.decision else ", besides further rounds of the exploration"
    return f"{text[:1].upper()}{text[1:]}{rounds}."


def _test(state: Settled) -> list[str]:
    test = state.held_out
    if test is not None:
        interval = "" if math.isnan(test.low) else f" [{test.low:+.3f}, {test.high:+.3f}]"
        return [
            f"Test split, read once for these runs: {test.difference:+.3f}{interval} {test.metric}, "
            f"{test.pairs} pairs; the verdict is val's."
        ]
    if not state.has_test:
        return ["The data have no test split: the verdict rests on val alone."]
    return []


def path(state: Settled) -> list[str]:
    """Which arm went when, and each look with its limits."""
    lines = ["Exploration"]
    for stage in state.exploration.rounds:
        for side in (OTHERS, BCE):
            arms = stage.arms.get(side, ())
            if arms:
                lines.append(f"  round {stage.number}, {side}: {len(arms)} arms on seed {stage.seed}")
                lines += [f"    out: {arm} ({stage.left[arm]})" for arm in arms if arm in stage.left]
    for side, arm in state.exploration.finalists.items():
        lines.append(f"  finalist, {side}: {arm}")
    if state.decision is not None:
        lines.append("Decision on fresh seeds")
        for look in state.decision.looks:
            lines.append(
                f"  {look.planned} pairs: {look.difference:+.3f} [{look.low:+.3f}, {look.high:+.3f}], "
                f"p {look.p:.2g} (limit {look.p_limit:.2g}), "
                f"equivalence p {look.tost_p:.2g} (limit {look.tost_limit:.2g}): {look.verdict}"
            )
    return lines
