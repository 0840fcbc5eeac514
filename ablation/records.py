"""The plain data that passes from the tracking store to the analysis; neither side knows the other."""

from __future__ import annotations

from dataclasses import dataclass, field

import pandas as pd

STATES = ("FINISHED", "DIVERGED", "FAILED", "KILLED", "RUNNING", "STOPPED", "SUPERSEDED")
"""What became of a run. Only FINISHED runs are data.

STOPPED: interrupted, and can be resumed. SUPERSEDED: the plan now has another configuration for its
arm and seed.
"""


def empty_history() -> pd.DataFrame:
    """A history without rows, with its columns and their types."""
    return pd.DataFrame(
        {
            "epoch": pd.Series(dtype="int64"),
            "metric": pd.Series(dtype="str"),
            "value": pd.Series(dtype="float64"),
        }
    )


@dataclass(frozen=True)
class RunRecord:
    """One recorded training.

    Attributes:
        run_id: the tracking store's identifier.
        study, arm, seed: the question, the configuration without its seed, the seed.
        key: SHA-256 of everything that decides the result; equal keys are one run.
        state: one of STATES.
        params: the flattened typed configuration as text: 'loss.name': 'focal', 'loss.alpha': 'None'.
        metrics: the last value of each metric: 'val/AP', 'val/AP_class/RBC', 'time/images_per_s'.
        history: columns epoch (int), metric (str), value (float), one row per logged point.
        folder: the run's own folder.
        reason: one line, why it failed or diverged; else empty.
    """

    run_id: str
    study: str
    arm: str
    seed: int
    key: str
    state: str
    params: dict[str, str] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    history: pd.DataFrame = field(default_factory=empty_history)
    folder: str = ""
    reason: str = ""

    def __post_init__(self) -> None:
        if self.state not in STATES:
            raise ValueError(f"state of run {self.run_id} is {self.state!r}; it must be one of {STATES}")


@dataclass(frozen=True)
class PlannedRun:
    """One run that the study asked for, with the command that makes it.

    Attributes:
        params: as in RunRecord, where the planner knows them. Without them, an arm that has no
            record at all is placed by the loss overrides in its command.
    """

    arm: str
    seed: int
    key: str
    command: str
    params: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class StudyRecord:
    """A study: what was planned (empty where nobody wrote a plan) and what was recorded."""

    name: str
    runs: list[RunRecord]
    planned: list[PlannedRun] = field(default_factory=list)
    description: str = ""
