"""Where a settle has got to, and what it may spend."""

from __future__ import annotations

from dataclasses import dataclass

from ablation.commands.settle.decision import Decision
from ablation.commands.settle.design import SettleDesign
from ablation.commands.settle.exploration import Exploration, Results
from ablation.commands.settle.held_out import HeldOut


@dataclass(frozen=True)
class Budget:
    """What may be spent, exploration included. None: no limit.

    Attributes:
        hours: of this machine, all its slots together.
        runs: trainings.
    """

    hours: float | None = None
    runs: int | None = None

    def line(self) -> str:
        """6 h and 40 runs; "" without a limit."""
        limits = [] if self.hours is None else [f"{self.hours:g} h"]
        limits += [] if self.runs is None else [f"{self.runs} runs"]
        return " and ".join(limits)


@dataclass(frozen=True)
class Spent:
    """What the runs so far have cost.

    Attributes:
        runs: that have been trained for at least an epoch.
        hours: of this machine, all its slots together.
    """

    runs: int
    hours: float

    def line(self) -> str:
        """12 runs, 0.8 h of this machine."""
        return f"{self.runs} runs, {self.hours:.2g} h of this machine"

    def hours_of(self, runs: int) -> float:
        """What so many further runs would take at the same cost each; 0 before the first."""
        return self.hours / self.runs * runs if self.runs else 0.0


@dataclass(frozen=True)
class Settled:
    """Where a settle has got to.

    Attributes:
        exploration, decision: their states; no decision before the exploration has ended.
        explored: the metric of every exploration run that has ended.
        spent, budget: so far, and at most.
        stopped: why it stopped before an answer; "" where it did not.
        has_test: whether the data have a test split.
        held_out: the finalists' difference on the test split; None before the verdict, or without a split.
    """

    design: SettleDesign
    exploration: Exploration
    explored: Results
    decision: Decision | None
    spent: Spent
    budget: Budget
    has_test: bool
    stopped: str = ""
    held_out: HeldOut | None = None

    @property
    def ended(self) -> bool:
        """Whether there is nothing left to train."""
        return bool(self.exploration.lost) or (self.decision is not None and not self.decision.missing)

    @property
    def missing(self) -> tuple[tuple[str, int], ...]:
        """(arm, seed) that the next step needs and that have not ended."""
        return self.exploration.missing if self.decision is None else self.decision.missing

    @property
    def stage(self) -> str:
        """exploration, decision or ended."""
        if self.ended:
            return "ended"
        return "exploration" if self.decision is None else "decision"

    @property
    def next_look(self) -> int | None:
        """Pairs at the next look; None where none follows."""
        taken = 0 if self.decision is None else len(self.decision.looks)
        return None if self.ended else self.design.looks[taken]

    def runs_to(self, pairs: int) -> int:
        """Runs that are missing until a look at so many pairs; the exploration's open round included.

        How many rounds follow an open round of the exploration is not known, and not in it.
        """
        if self.decision is None:
            return len(self.missing) + 2 * pairs
        due = self.next_look or pairs
        return len(self.missing) + 2 * (pairs - due)
