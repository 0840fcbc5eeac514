"""What `ablation plan settle` says beforehand."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from helpers.command import TINY, in_this_process

from ablation.commands.settle.design import SettleDesign, looks_for
from ablation.commands.settle.exploration import BCE, OTHERS
from ablation.commands.settle.forecast import most_runs, simulated


def design(others: int, bce: int, max_seeds: int = 8) -> SettleDesign:
    arms = {OTHERS: [f"f{i}" for i in range(others)], BCE: [f"b{i}" for i in range(bce)]}
    seeds = list(range(100, 100 + max_seeds))
    return SettleDesign("q", arms, "val/AP", 0.02, 0.95, list(range(6)), seeds, looks_for(max_seeds), {})


@pytest.mark.parametrize(
    ("others", "bce", "most"),
    [
        (1, 1, 16),  # nothing to explore: 2 x 8
        (9, 1, 9 + 5 * 4 + 16),  # 0.4 x 9 rounded up: 4 stay
        (9, 9, 2 * (9 + 5 * 4) + 16),
        (2, 2, 2 * (2 + 5 * 2) + 16),
    ],
)
def test_the_largest_number_of_runs(others: int, bce: int, most: int) -> None:
    assert most_runs(design(others, bce)) == most


def test_no_simulated_study_takes_more_and_large_effects_take_fewer() -> None:
    declared = design(4, 4)
    rows = [simulated(declared, 1.5, effect, studies=100) for effect in (0.0, 1.0, 4.0)]
    assert all(row.most <= most_runs(declared) for row in rows)
    assert rows[2].runs < rows[1].runs and rows[2].decided > 0.95
    alone = simulated(design(1, 1), 10.0, 0.0, studies=50)
    assert alone.runs == 8 and alone.decided == 1  # a margin of 10 standard deviations: the first look


def test_plan_settle_writes_nothing_and_says_what_it_assumes(tmp_path: Path) -> None:
    (tmp_path / "sweeps").mkdir()
    (tmp_path / "sweeps" / "q.yaml").write_text(
        "# @package _global_\nstudy: q\narms: [{loss: bce}, {loss: focal, loss.gamma: [1, 2]}]\n"
    )
    text = in_this_process(tmp_path, "plan", "settle", "sweeps=q", "max_seeds=4", "budget_h=2", *TINY).stdout
    assert "2 of other losses, 1 of BCE" in text and "looks at 4 pairs" in text
    assert "spread not known" in text and "1.5 standard deviations" in text
    most = 2 + 5 * 2 + 2 * 4
    assert f"at most {most} runs, whatever the runs show" in text and "budget 2 h" in text
    assert not (tmp_path / "runs").exists() and math.isfinite(most)
