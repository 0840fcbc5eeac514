"""`ablation settle` as a user runs it: real trainings, a budget, going on, and the report's own verdict."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from helpers.command import TINY, ablation, error_line, in_this_process, run_folders

STUDY = """
# @package _global_
study: q
description: for a test
arms:
  - {loss: bce}
  - {loss: bce, loss.pos_weight: 2}
  - {loss: focal, loss.alpha: 0.25, loss.gamma: [1, 2]}
"""
ARGUMENTS = ["settle", "sweeps=q", "max_seeds=4", "analysis.margin=0.2", *TINY]


def project(folder: Path) -> Path:
    """A folder with the study's file."""
    (folder / "sweeps").mkdir(parents=True)
    (folder / "sweeps" / "q.yaml").write_text(STUDY)
    return folder


def settled(folder: Path) -> dict[str, object]:
    """What the command wrote down."""
    return dict(json.loads((folder / "runs" / "q" / "settled.json").read_text()))


def test_settle_stops_at_its_budget_goes_on_and_the_report_agrees(tmp_path: Path) -> None:
    """With one arm a side there is nothing to explore: four pairs decide."""
    folder = project(tmp_path)
    (folder / "sweeps" / "q.yaml").write_text(
        STUDY.replace("  - {loss: bce, loss.pos_weight: 2}\n", "").replace("[1, 2]", "2")
    )
    stopped = in_this_process(folder, *ARGUMENTS, "budget_runs=5")
    assert "budget_runs=5" in stopped.stdout and "Inconclusive within the budget" in stopped.stdout
    assert "look (4 pairs) takes 8 more runs" in stopped.stdout
    status = in_this_process(folder, "status", "study=q").stdout
    assert "decision, stopped: budget_runs=5" in status and "next look at 4 pairs" in status
    assert "0 of 5 runs" in status and "focal-alpha=0.25-gamma=2" in status
    status = in_this_process(folder, "status", "study=q").stdout
    assert "decision, stopped: budget_runs=5" in status and "next look at 4 pairs" in status
    assert "0 of 5 runs" in status and "focal-alpha=0.25-gamma=2" in status
    assert run_folders(folder) == []  # the next step would have been too much

    ended = ablation(folder, *ARGUMENTS, figures=False)
    state = settled(folder)
    looks = state["looks"]
    assert isinstance(looks, list) and len(looks) == 1 and looks[0]["planned"] == 4
    assert state["verdict"] == "equivalent"  # tiny networks learn nothing: all AP lie far within the margin
    assert ended.stdout.startswith("No useful difference")
    assert len(run_folders(folder)) == 8

    test = json.loads((folder / "runs" / "q" / "test.json").read_text())
    assert test["metric"] == "test/AP" and test["pairs"] == 4 and f"{test['difference']:+.3f}" in ended.stdout
    page = folder / "runs" / "q_decide" / "report" / "report.html"
    assert str(page.relative_to(folder)) in ended.stdout
    assert "Test split, read once" in page.read_text() and "figure-settle_looks" in page.read_text()

    lines = [(run / "metrics.jsonl").read_text() for run in run_folders(folder)]
    assert all(text.count('"test/AP"') == 1 for text in lines)
    status = in_this_process(folder, "status", "study=q").stdout
    assert "settle q: ended: equivalent" in status and "8 runs" in status
    status = in_this_process(folder, "status", "study=q").stdout
    assert "settle q: ended: equivalent" in status and "8 runs" in status
    again = ablation(folder, *ARGUMENTS, figures=False)
    assert again.stdout == ended.stdout  # nothing is trained or read again
    assert [(run / "metrics.jsonl").read_text() for run in run_folders(folder)] == lines

    report = ablation(folder, "report", "study=q", figures=False).stdout
    assert "no useful difference" in report.lower()

    other = in_this_process(folder, *ARGUMENTS[:2], "max_seeds=6", *ARGUMENTS[3:], check=2)
    assert "decide_seeds" in error_line(other)


@pytest.mark.slow
def test_settle_explores_and_goes_the_same_way_again(tmp_path: Path) -> None:
    folder = project(tmp_path)
    ablation(folder, *ARGUMENTS, "budget_runs=5")
    assert len(run_folders(folder)) == 4  # one seed of each arm
    ended = ablation(folder, *ARGUMENTS)
    state, finished = settled(folder), len(run_folders(folder))
    assert state["verdict"] == "equivalent" and isinstance(state["rounds"], list) and len(state["rounds"]) > 1
    again = ablation(folder, *ARGUMENTS)
    assert again.stdout == ended.stdout and len(run_folders(folder)) == finished  # nothing is trained again


def test_settle_needs_both_sides(tmp_path: Path) -> None:
    folder = project(tmp_path)
    only_focal = "\n".join(line for line in STUDY.splitlines() if "bce" not in line)
    (folder / "sweeps" / "q.yaml").write_text(only_focal)
    assert "loss: bce" in error_line(in_this_process(folder, *ARGUMENTS, check=2))
    assert not (folder / "runs").exists()


def test_settle_refuses_numbers_that_are_none(tmp_path: Path) -> None:
    folder = project(tmp_path)
    for argument in ("max_seeds=three", "max_seeds=3", "budget_h=-1", "budget_h=x", "budget_runs=1.5"):
        assert argument.partition("=")[0] in error_line(
            in_this_process(folder, *ARGUMENTS[:2], argument, *TINY, check=2)
        )
