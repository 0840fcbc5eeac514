"""`ablation settle`: explore the arms, then decide on fresh seeds at declared looks.

What comes next is computed anew from the finished runs before every launch (exploration.explore,
decision.decide). Nothing else is remembered, so that the same command after a kill, with a larger budget
or on another machine goes the same way.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ablation.commands.settle import path_file
from ablation.commands.settle.decision import decide
from ablation.commands.settle.design import (
    FIRST_DECISION_SEED,
    SPENDING,
    SettleDesign,
    declare,
    design_file,
    looks_for,
    sides_of,
)
from ablation.commands.settle.exploration import MOST_SEEDS, explore
from ablation.commands.settle.held_out import FILE as TEST_FILE
from ablation.commands.settle.held_out import has_test_split, held_out, read_held_out
from ablation.commands.settle.runs import Stage
from ablation.commands.settle.state import Budget, Settled, Spent
from ablation.errors import AblationError, UsageError, counted
from ablation.files import write_json
from ablation.study import app
from ablation.study.execute import Prepared, store_of
from ablation.study.forecast.forecast import Capacity

log = logging.getLogger(__name__)


NO_TEST = (
    "no test split, so the verdict will rest on val alone; data.test_share=0.2 makes one (before training)"
)
_OF_THE_LAUNCH = ("hydra/", "hydra.", "retry=", "replace=")
"""Arguments that say how runs are launched. A run's command lacks them, so each launch is given them."""


class Settling:
    """One launch of `settle`.

    Args:
        arguments: of `ablation train -m`: the study's file and overrides; its seeds are not used.
        max_seeds: largest number of decision seeds.
        budget: of this launch.

    Raises:
        UsageError: no BCE, no other loss, another design under this name.
    """

    def __init__(self, arguments: Sequence[str], max_seeds: int, budget: Budget) -> None:
        runs, capacity, design = designed(arguments, max_seeds)
        first = runs[0].config
        self.config, self.slots, self.budget = first, capacity.slots, budget
        self.has_test = has_test_split(runs[0])
        arms = {str(run.config.arm): run for run in reversed(runs)}
        self.design = declare(Path(first.out), design)
        base = Stage(
            study=self.design.exploration_study,
            description=f"Exploration of {self.design.study}: chooses a finalist of each side.",
            out=Path(first.out),
            arms={arm: run.planned for arm, run in arms.items()},
            extra=[argument for argument in arguments if argument.startswith(_OF_THE_LAUNCH)],
        )
        self.exploration = base
        self.decision = replace(
            base,
            study=self.design.decision_study,
            description=f"Decision of {self.design.study}: its finalists on fresh seeds.",
        )

    def go_on(self) -> Settled:
        """Launch what is missing until nothing is, or the budget is spent.

        Raises:
            AblationError: a run failed, or did not end; the same command goes on.
        """
        if not self.has_test:
            log.info("settle %s: %s", self.design.study, NO_TEST)
        launched: tuple[tuple[str, int], ...] = ()
        while True:
            state = self.state()
            state = replace(state, stopped="" if state.ended else self._over_budget(state))
            if state.ended:
                state = self._with_test(state)
            write_json(self._file(path_file.FILE), path_file.as_json(state))
            if state.ended or state.stopped:
                return state
            stage = self.exploration if state.decision is None else self.decision
            if state.missing == launched:  # what could not be trained once would be launched for ever
                arm, seed = state.missing[0]
                runs = counted(len(launched), "run was launched and has", "runs were launched and have")
                raise AblationError(
                    f"study {stage.study}: {runs} not ended (the first: "
                    f"{arm} seed {seed}); `ablation status study={stage.study}` says why. The same command "
                    "goes on"
                )
            for line in progress(state):
                log.info(line)
            arms = list(dict.fromkeys(arm for arm, _ in state.missing))
            stage.launch(arms, sorted({seed for _, seed in state.missing}), self._declared(state))
            launched = state.missing

    def state(self) -> Settled:
        """From the finished runs alone."""
        design = self.design
        results = self.exploration.results(design.metric)
        exploration = explore(design.arms, design.explore_seeds, results)
        decision = None
        self.decision.results(design.metric)  # raises where a run lacks the metric
        if exploration.finalists:
            decision = decide(self.decision.record(), design, exploration.pair, exploration.spread)
        folders = [*self.exploration.folders().values(), *self.decision.folders().values()]
        runs = sum(folder.file("metrics.jsonl").exists() for folder in folders)
        hours = (self.exploration.hours() + self.decision.hours()) / self.slots
        spent = Spent(runs, hours)
        test = read_held_out(self._file(TEST_FILE))
        return Settled(
            design, exploration, results, decision, spent, self.budget, self.has_test, held_out=test
        )

    def _with_test(self, state: Settled) -> Settled:
        """With what the test split says, where there is one and a verdict."""
        if not self.has_test or state.decision is None or not state.decision.looks:
            return state
        store = store_of(self.config)
        look = state.decision.looks[-1]
        if state.held_out is None:
            log.info("settle %s: reading the test split, once", self.design.study)
        test = held_out(self.exploration.out, self.design, state.exploration.pair, look, store)
        return replace(state, held_out=test)

    def _file(self, name: str) -> Path:
        return design_file(self.exploration.out, self.design.study).with_name(name)

    def _declared(self, state: Settled) -> dict[str, object]:
        """What the study of the next runs declares about its analysis."""
        design = self.design
        analysis: dict[str, object] = {
            "metric": design.metric,
            "margin": design.margin,
            "level": design.level,
        }
        if state.decision is None:
            return analysis
        spread = state.exploration.spread
        prior = {"prior_sd": math.sqrt(spread.variance), "prior_df": spread.df} if spread.df else {}
        return analysis | {"looks": design.looks, "spending": SPENDING} | prior

    def _over_budget(self, state: Settled) -> str:
        """Why the missing runs may not be launched; "" where they may."""
        spent, missing, budget = state.spent, len(state.missing), self.budget
        if budget.runs is not None and spent.runs + missing > budget.runs:
            return f"budget_runs={budget.runs}: {spent.runs} are spent, the next step takes {missing}"
        if budget.hours is not None and spent.runs:
            cost = spent.hours_of(missing)
            if spent.hours + cost > budget.hours:
                return (
                    f"budget_h={budget.hours:g}: {spent.hours:.2g} h are spent, the next step takes "
                    f"about {cost:.2g} h for {missing} runs"
                )
        return ""


def _without_seeds(arguments: Sequence[str]) -> list[str]:
    return [argument for argument in arguments if argument.partition("=")[0] not in ("seeds", "seed")]


def designed(arguments: Sequence[str], max_seeds: int) -> tuple[list[Prepared], Capacity, SettleDesign]:
    """The exploration's runs as these arguments ask for them, the launcher's capacity, the design.

    Nothing is written.

    Raises:
        UsageError: no BCE, no other loss, too few seeds, or another metric than one of val.
    """
    runs, capacity = app.study_runs([*_without_seeds(arguments), f"seeds={list(range(MOST_SEEDS))}"])
    if runs[0].config.halving.enabled:
        raise UsageError("halving.enabled: settle ends arms early in its own way; set it to false")
    return runs, capacity, _design(runs, max_seeds)


def _design(runs: Sequence[Prepared], max_seeds: int) -> SettleDesign:
    first = runs[0].config
    if not first.analysis.metric.startswith("val/"):
        raise UsageError(
            f"analysis.metric={first.analysis.metric}: settle chooses and decides on val; take a metric such "
            "as val/AP"
        )
    arms = [(str(run.config.arm), type(run.config.loss).name()) for run in runs]
    keys = {str(run.config.arm): run.key for run in runs if run.config.seed == 0}
    return SettleDesign(
        study=first.study,
        arms=sides_of(arms),
        metric=first.analysis.metric,
        margin=first.analysis.margin,
        level=first.analysis.level,
        explore_seeds=list(range(MOST_SEEDS)),
        decide_seeds=list(range(FIRST_DECISION_SEED, FIRST_DECISION_SEED + max_seeds)),
        looks=looks_for(max_seeds),
        keys=keys,
    )


def progress(state: Settled) -> list[str]:
    """What comes next, for the log."""
    if state.decision is None:
        current = state.exploration.rounds[-1]
        arms = ", ".join(f"{len(arms)} {side}" for side, arms in current.arms.items())
        return [
            f"settle {state.design.study}: exploration round {current.number}, {arms}, seed {current.seed}"
        ]
    taken = state.decision.looks
    due = state.design.looks[len(taken)]
    lines = []
    if taken:
        look = taken[-1]
        lines.append(
            f"settle {state.design.study}: {look.difference:+.3f} [{look.low:+.3f}, {look.high:+.3f}] on "
            f"{look.pairs} pairs, goes on"
        )
    return [*lines, f"settle {state.design.study}: decision, next look at {due} pairs"]
