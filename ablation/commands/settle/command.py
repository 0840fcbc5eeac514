"""The arguments of `ablation settle`, and what it prints."""

from __future__ import annotations

import contextlib
import io
import logging
from pathlib import Path

from ablation.commands import report
from ablation.commands.arguments import Arguments
from ablation.commands.settle.design import LOOKS
from ablation.commands.settle.forecast import forecast_text, known_spread
from ablation.commands.settle.held_out import has_test_split
from ablation.commands.settle.settle import NO_TEST, Settling, designed
from ablation.commands.settle.state import Budget, Settled
from ablation.commands.settle.text import summary
from ablation.config import RunConfig
from ablation.errors import AblationError, UsageError
from ablation.study.forecast.forecast import plan_study, shape_of
from ablation.study.forecast.text import measured
from ablation.study.notify import notified
from ablation.study.run_status import run_status
from ablation.study.study_list import command as shell_command

ARGUMENTS = {"max_seeds": str(LOOKS[-1]), "budget_h": "", "budget_runs": ""}
"""With their defaults; every other argument is one of `ablation train`."""

log = logging.getLogger(__name__)


def run(arguments: list[str]) -> int:
    """Go on until the question is answered or the budget is spent; returns the exit code."""
    settling = settling_of(Arguments.parse("settle", arguments, ARGUMENTS, overrides=True))
    with notified("settle") as outcome:
        outcome.config = settling.config
        state = settling.go_on()
        outcome.attention, outcome.result = state.stopped, summary(state)[0]
    print("\n".join(summary(state)))
    if state.decision is not None and state.decision.looks:
        print(_report(state, settling.config))
    return 0


def plan(arguments: list[str]) -> int:
    """`ablation plan settle ...`: what it would take; starts and writes nothing."""
    args = Arguments.parse("plan settle", arguments, ARGUMENTS | {"measure": "false"}, overrides=True)
    budget = _budget(args)
    overrides = [argument for argument in args.overrides if argument not in ("-m", "--multirun")]
    runs, capacity, design = designed(overrides, _whole(args.text("max_seeds"), "max_seeds"))
    launched = {run_status(run.folder) for run in runs}
    costs = measured(runs, capacity, launched) if args.flag("measure") else None
    shapes = plan_study(runs, capacity, launched, costs).costs
    seconds: dict[str, float | None] = {}
    for run in runs:
        cost = shapes.get(shape_of(run, capacity))
        seconds[str(run.config.arm)] = None if cost is None else cost.left_s(run.config, run.data, 0)
    spread = known_spread(Path(runs[0].config.out), design, runs)
    print("\n".join(forecast_text(design, spread, seconds, capacity.slots)))
    if budget.line():
        print(f"budget {budget.line()}; when it is spent the answer is inconclusive within the budget")
    if not has_test_split(runs[0]):
        print(f"test   {NO_TEST}")
    return 0


def settling_of(args: Arguments) -> Settling:
    """What these arguments ask for, checked and declared."""
    budget = _budget(args)
    overrides = [argument for argument in args.overrides if argument not in ("-m", "--multirun")]
    return Settling(overrides, max_seeds=_whole(args.text("max_seeds"), "max_seeds"), budget=budget)


def _budget(args: Arguments) -> Budget:
    return Budget(_hours(args.text("budget_h")), _runs(args.text("budget_runs")))


def _report(state: Settled, config: RunConfig) -> str:
    """Write the report; where it lies, or the command that writes it."""
    arguments = [f"study={state.design.study}", f"out={config.out}"]
    tracking = config.tracking
    arguments += [f"uri={tracking.uri}"] if tracking.uri else []
    arguments += [f"artifacts={tracking.artifacts}"] if tracking.artifacts else []
    printed = io.StringIO()
    try:
        if not tracking.enabled:
            raise UsageError("tracking is off")
        with contextlib.redirect_stdout(printed):
            report.run(arguments)
    except AblationError as error:  # the answer stands all the same
        log.warning("the report was not written: %s", error)
        return f"report: {shell_command('report', state.design.study, Path(config.out))} writes it"
    return next(line for line in printed.getvalue().splitlines() if line.startswith("report: "))


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
