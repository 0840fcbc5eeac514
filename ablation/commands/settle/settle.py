"""`ablation settle`: explore the arms, then decide on fresh seeds at declared looks.

What comes next is computed anew from the finished runs before every launch (exploration.explore,
decision.decide). Nothing else is remembered, so that the same command after a kill, with a larger budget
or on another machine goes the same way.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ablation.commands.settle.decision import GO_ON, Decision, decide
from ablation.commands.settle.design import (
    FIRST_DECISION_SEED,
    SPENDING,
    SettleDesign,
    declare,
    design_file,
    looks_for,
    sides_of,
)
from ablation.commands.settle.exploration import BCE, MOST_SEEDS, OTHERS, Exploration, explore
from ablation.commands.settle.runs import Stage
from ablation.errors import AblationError, UsageError
from ablation.files import write_json
from ablation.study import app
from ablation.study.execute import Prepared

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Budget:
    """What may be spent, exploration included. None: no limit.

    Attributes:
        hours: of this machine, all its slots together.
        runs: trainings.
    """

    hours: float | None = None
    runs: int | None = None


@dataclass(frozen=True)
class Spent:
    """What the runs so far have cost."""

    runs: int
    hours: float

    def line(self) -> str:
        """12 runs, 0.8 h."""
        return f"{self.runs} runs, {self.hours:.2g} h of this machine"


@dataclass(frozen=True)
class Settled:
    """Where a settle has got to.

    Attributes:
        exploration, decision: their states; no decision before the exploration has ended.
        spent: runs and hours.
        stopped: why it stopped before an answer; "" where it did not.
    """

    design: SettleDesign
    exploration: Exploration
    decision: Decision | None
    spent: Spent
    stopped: str


_OF_THE_LAUNCH = ("hydra/", "hydra.", "retry=", "replace=")
"""Arguments that say how runs are launched. A run's command lacks them, so each launch is given them."""


def settle(arguments: Sequence[str], *, max_seeds: int, budget: Budget) -> Settled:
    """Go on until the question is answered or the budget is spent.

    Args:
        arguments: of `ablation train -m`: the study's file and overrides; its seeds are not used.
        max_seeds: largest number of decision seeds.

    Raises:
        UsageError: no BCE, no other loss, another design under this name.
        AblationError: a run failed, or did not end; the same command goes on.
    """
    return Settling(arguments, max_seeds, budget).go_on()


class Settling:
    """One launch of `settle`."""

    def __init__(self, arguments: Sequence[str], max_seeds: int, budget: Budget) -> None:
        runs, capacity = app.study_runs([*_without_seeds(arguments), f"seeds={list(range(MOST_SEEDS))}"])
        first = runs[0].config
        if first.halving.enabled:
            raise UsageError("halving.enabled: settle ends arms early in its own way; set it to false")
        self.slots, self.budget = capacity.slots, budget
        arms = {str(run.config.arm): run for run in reversed(runs)}
        self.design = declare(Path(first.out), _design(runs, max_seeds))
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
        """Launch what is missing until nothing is."""
        launched: tuple[tuple[str, int], ...] = ()
        while True:
            state = self.state()
            self._write(state)
            if state.exploration.lost or (state.decision is not None and not state.decision.missing):
                return state
            stage = self.exploration if state.decision is None else self.decision
            missing = (state.exploration if state.decision is None else state.decision).missing
            if missing == launched:  # what could not be trained once would be launched for ever
                arm, seed = missing[0]
                raise AblationError(
                    f"study {stage.study}: {len(missing)} runs were launched and have not ended (the first: "
                    f"{arm} seed {seed}); `ablation status study={stage.study}` says why. The same command "
                    "goes on"
                )
            stopped = self._over_budget(state.spent, len(missing))
            if stopped:
                return replace(state, stopped=stopped)
            for line in progress(state):
                log.info(line)
            arms = list(dict.fromkeys(arm for arm, _ in missing))
            stage.launch(arms, sorted({seed for _, seed in missing}), self._declared(state))
            launched = missing

    def state(self) -> Settled:
        """From the finished runs alone."""
        design = self.design
        results = self.exploration.results(design.metric)
        exploration = explore(design.arms, design.explore_seeds, results)
        decision = None
        self.decision.results(design.metric)  # raises where a run lacks the metric
        if exploration.finalists:
            finalists = (exploration.finalists[OTHERS], exploration.finalists[BCE])
            decision = decide(self.decision.record(), design, finalists, exploration.spread)
        folders = [*self.exploration.folders().values(), *self.decision.folders().values()]
        runs = sum(folder.file("metrics.jsonl").exists() for folder in folders)
        hours = (self.exploration.hours() + self.decision.hours()) / self.slots
        return Settled(design, exploration, decision, Spent(runs, hours), "")

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

    def _over_budget(self, spent: Spent, missing: int) -> str:
        """Why the missing runs may not be launched; "" where they may."""
        if self.budget.runs is not None and spent.runs + missing > self.budget.runs:
            return f"budget_runs={self.budget.runs}: {spent.runs} are spent, the next step takes {missing}"
        if self.budget.hours is not None and spent.runs:
            cost = spent.hours / spent.runs * missing
            if spent.hours + cost > self.budget.hours:
                return (
                    f"budget_h={self.budget.hours:g}: {spent.hours:.2g} h are spent, the next step takes "
                    f"about {cost:.2g} h for {missing} runs"
                )
        return ""

    def _write(self, state: Settled) -> None:
        """The path so far, for status and report; never read back to decide."""
        path = design_file(self.exploration.out, self.design.study).with_name("settled.json")
        write_json(path, as_json(state))


def _without_seeds(arguments: Sequence[str]) -> list[str]:
    return [argument for argument in arguments if argument.partition("=")[0] not in ("seeds", "seed")]


def _design(runs: Sequence[Prepared], max_seeds: int) -> SettleDesign:
    first = runs[0].config
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


def as_json(state: Settled) -> dict[str, Any]:
    """Plain values; what is not a finite number becomes null."""
    decision = state.decision
    content: dict[str, Any] = _plain(
        {
            "study": state.design.study,
            "rounds": [asdict(entry) for entry in state.exploration.rounds],
            "finalists": state.exploration.finalists,
            "lost": list(state.exploration.lost),
            "looks": [asdict(look) for look in decision.looks] if decision else [],
            "verdict": decision.verdict if decision else GO_ON,
            "estimate": decision.estimate if decision else math.nan,
            "spent": asdict(state.spent),
        }
    )
    return content


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
