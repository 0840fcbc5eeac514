"""settled.json: the path that a settle has taken so far, for its report and for `ablation status`.

It is written anew at every step and never read back to decide anything.
"""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any

from ablation.analyse.report.settle_path import FILE as FILE
from ablation.commands.settle.decision import GO_ON
from ablation.commands.settle.design import SettleDesign
from ablation.commands.settle.exploration import Round
from ablation.commands.settle.state import Settled

GRID_SEEDS, CONFIRM_SEEDS = 3, 6
"""Of the fixed study that a settle is compared with: every arm on 3 seeds, its two best on 6 fresh ones."""


def as_json(state: Settled) -> dict[str, Any]:
    """Plain values; what is not a finite number becomes null."""
    decision, design = state.decision, state.design
    content: dict[str, Any] = plain(
        {
            "study": design.study,
            "exploration_study": design.exploration_study,
            "decision_study": design.decision_study,
            "metric": design.metric,
            "margin": design.margin,
            "level": design.level,
            "stage": state.stage,
            "rounds": [_round(entry, state) for entry in state.exploration.rounds],
            "finalists": state.exploration.finalists,
            "lost": list(state.exploration.lost),
            "planned_looks": planned_looks(design),
            "looks": [asdict(look) for look in decision.looks] if decision else [],
            "next_look": state.next_look,
            "missing": [list(run) for run in state.missing],
            "verdict": decision.verdict if decision else GO_ON,
            "estimate": decision.estimate if decision else math.nan,
            "chance": decision.chance if decision else math.nan,
            "has_test": state.has_test,
            "test": asdict(state.held_out) if state.held_out else None,
            "spent": asdict(state.spent),
            "budget": asdict(state.budget),
            "stopped": state.stopped,
            "grid_runs": grid_runs(design),
        }
    )
    return content


def planned_looks(design: SettleDesign) -> list[dict[str, float]]:
    """Every declared look with its limits for p."""
    levels = design.sequential
    return [
        {"pairs": pairs, "p_limit": difference, "tost_limit": equivalence}
        for pairs, difference, equivalence in zip(
            levels.looks, levels.difference, levels.equivalence, strict=True
        )
    ]


def grid_runs(design: SettleDesign) -> int:
    """Trainings of the fixed study with a confirmation."""
    return GRID_SEEDS * sum(map(len, design.arms.values())) + 2 * CONFIRM_SEEDS


def _round(entry: Round, state: Settled) -> dict[str, Any]:
    arms = [arm for side in entry.arms.values() for arm in side]
    runs = {arm: (arm, entry.seed) for arm in arms}
    ended = {arm: state.explored[run] for arm, run in runs.items() if run in state.explored}
    return asdict(entry) | {"values": ended}


def plain(value: Any) -> Any:
    """The same with lists for tuples and null for what is not a finite number."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
