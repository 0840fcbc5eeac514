"""The arguments of `ablation settle`."""

from __future__ import annotations

from ablation.commands.arguments import Arguments
from ablation.commands.settle.design import LOOKS
from ablation.commands.settle.settle import Budget, settle
from ablation.commands.settle.text import summary
from ablation.errors import UsageError


def run(arguments: list[str]) -> int:
    """Go on until the question is answered or the budget is spent; returns the exit code."""
    known = {"max_seeds": str(LOOKS[-1]), "budget_h": "", "budget_runs": ""}
    args = Arguments.parse("settle", arguments, known, overrides=True)
    budget = Budget(_hours(args.text("budget_h")), _runs(args.text("budget_runs")))
    overrides = [argument for argument in args.overrides if argument not in ("-m", "--multirun")]
    state = settle(overrides, max_seeds=_whole(args.text("max_seeds"), "max_seeds"), budget=budget)
    print("\n".join(summary(state)))
    return 0


def _whole(text: str, key: str) -> int:
    if not text.isdecimal():
        raise UsageError(f"{key}={text}: must be a whole number")
    return int(text)


def _runs(text: str) -> int | None:
    return _whole(text, "budget_runs") if text else None


def _hours(text: str) -> float | None:
    if not text:
        return None
    try:
        hours = float(text)
    except ValueError:
        hours = 0.0
    if not 0 < hours < float("inf"):
        raise UsageError(f"budget_h={text}: must be a number of hours above 0")
    return hours
