"""`ablation status` of a settle: its stage, who is left, the next look, the budget, then its runs."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from ablation.analyse.report.settle_path import SIDES, SettlePath
from ablation.commands.settle.path_file import plain
from ablation.study.plan_file import plan_file
from ablation.study.run_status import study_status
from ablation.study.terminal.status_table import show_status


def show_settle(out: Path, path: SettlePath, *, watch: bool, as_json: bool) -> None:
    """Print where the settle is, then its studies' runs.

    Args:
        watch: keep the runs of the present stage on the screen.
        as_json: one JSON object with the path and the runs; not together with `watch`.
    """
    studies = [
        name for name in (path.exploration_study, path.decision_study) if plan_file(out, name).is_file()
    ]
    if as_json and not watch:
        runs = {name: study_status(out, name).as_json() for name in studies}
        print(json.dumps({"settle": plain(asdict(path)), "studies": runs}, indent=1))
        return
    if not as_json:
        for line in status_lines(path):
            print(line, flush=True)
    for name in studies[-1:] if watch else studies:
        show_status(out, name, watch=watch, as_json=as_json)


def status_lines(path: SettlePath) -> list[str]:
    """Stage, survivors, next look, budget used."""
    lines = [f"settle {path.study}: {_stage(path)}"]
    for side, arms in path.survivors.items():
        lines.append(f"  {SIDES[side]}: {'; '.join(arms) or 'no arm is left'}")
    if path.looks:
        look = path.looks[-1]
        lines.append(
            f"  last look, {look.planned} pairs: {look.difference:+.3f} {path.metric}, {look.verdict}"
        )
    if path.next_look is not None:
        lines.append(
            f"  next look at {path.next_look} pairs; the present step waits for {path.missing} runs"
            if path.stage == "decision"
            else f"  first look at {path.next_look} pairs; the present round waits for {path.missing} runs"
        )
    return [*lines, f"  {_spent(path)}"]


def _stage(path: SettlePath) -> str:
    if path.stopped:
        return f"{path.stage}, stopped: {path.stopped}"
    if path.stage == "ended":
        return "ended" if path.verdict == "go on" else f"ended: {path.verdict}"
    if path.stage == "exploration":
        return f"exploration, round {len(path.rounds)}"
    return "decision on fresh seeds"


def _spent(path: SettlePath) -> str:
    hours, runs = path.budget.get("hours"), path.budget.get("runs")
    of_hours = "" if hours is None else f" of {hours:g}"
    of_runs = "" if runs is None else f" of {runs:g}"
    return f"spent at the last step: {path.runs}{of_runs} runs, {path.hours:.2g}{of_hours} h of this machine"
