"""The path of an `ablation settle`, read from the study's folder: rounds, looks, cost."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ablation.analyse.verdict.look_outcome import Look
from ablation.errors import StoreError, one_line
from ablation.tracking.study_folder import study_folder

FILE = "settled.json"
"""In the folder of the settle, beside its design."""
DECISION = "_decide"
"""What the name of a decision's study ends with."""
SIDES = {"others": "other losses", "bce": "BCE"}
"""Side -> its name for people, in the order of display."""


@dataclass(frozen=True)
class PathRound:
    """One round of the exploration: the arms in it by side, their values, and why arms left after it."""

    number: int
    seed: int
    arms: dict[str, list[str]]
    left: dict[str, str]
    values: dict[str, float | None]


@dataclass(frozen=True)
class PlannedLook:
    """A declared look and its limits for p."""

    pairs: int
    p_limit: float
    tost_limit: float


@dataclass(frozen=True)
class SettlePath:
    """What a settle did so far.

    Attributes:
        study, exploration_study, decision_study: of the settle, and of its runs.
        metric, margin, level: by which it decides, the smallest difference that matters, 1 - the error.
        stage: exploration, decision or ended.
        finalists: side -> arm; empty while the exploration goes on.
        verdict: of the last look, or "go on".
        estimate: the difference corrected for stopping early; NaN before the end.
        has_test, test: whether there is a test split, and the finalists on it: metric, difference, low,
            high, pairs.
        runs, hours: spent.
        budget: what may be spent, hours and runs; None where there is no limit.
        stopped: why it stopped before an answer; "".
        next_look: pairs; None at the end.
        missing: runs that the next step waits for.
        grid_runs: trainings of the fixed study that it stands in for.
    """

    study: str
    exploration_study: str
    decision_study: str
    metric: str
    margin: float
    level: float
    stage: str
    rounds: list[PathRound]
    finalists: dict[str, str]
    planned_looks: list[PlannedLook]
    looks: list[Look]
    next_look: int | None
    missing: int
    verdict: str
    estimate: float
    chance: float
    has_test: bool
    test: dict[str, Any] | None
    runs: int
    hours: float
    budget: dict[str, float | None]
    stopped: str
    grid_runs: int

    @property
    def survivors(self) -> dict[str, list[str]]:
        """Side -> the arms that have not left the exploration."""
        if self.finalists:
            return {side: [arm] for side, arm in self.finalists.items()}
        left = {arm for entry in self.rounds for arm in entry.left}
        sides = self.rounds[0].arms if self.rounds else {}
        return {side: [arm for arm in arms if arm not in left] for side, arms in sides.items()}


def read_settle_path(out: Path, study: str) -> SettlePath | None:
    """The path of this settle, named by its own study or by the study that decides; None where there is none.

    Raises:
        StoreError: the file is damaged.
    """
    for name in (study, study.removesuffix(DECISION)):
        path = study_folder(out, name) / FILE
        if path.is_file():
            settled = _read(path)
            if study in (settled.study, settled.decision_study):
                return settled
    return None


def _read(path: Path) -> SettlePath:
    try:
        row = json.loads(path.read_text(encoding="utf-8"))
        return SettlePath(
            **{name: row[name] for name in _SAME},
            rounds=[PathRound(**entry) for entry in row["rounds"]],
            planned_looks=[PlannedLook(**entry) for entry in row["planned_looks"]],
            looks=[Look(**_numbers(entry)) for entry in row["looks"]],
            missing=len(row["missing"]),
            estimate=_number(row["estimate"]),
            chance=_number(row["chance"]),
            runs=row["spent"]["runs"],
            hours=row["spent"]["hours"],
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise StoreError(
            f"{path}: not the path of a settle ({one_line(error, 100)}); launch the same `ablation settle` "
            "again, which writes it anew"
        ) from None


_SAME = (
    *("study", "exploration_study", "decision_study"),
    *("metric", "margin", "level", "stage", "finalists", "next_look", "verdict"),
    *("has_test", "test", "budget", "stopped", "grid_runs"),
)


def _numbers(row: dict[str, Any]) -> dict[str, Any]:
    return {name: _number(value) if name != "note" else value for name, value in row.items()}


def _number(value: Any) -> Any:
    """null, which stands for a number that is not finite, as NaN."""
    return math.nan if value is None else value
