"""Which record counts for an arm and seed where there are several, and what an arm's loss is."""

from __future__ import annotations

import shlex
from collections import defaultdict
from collections.abc import Mapping

from ablation.analyse.tables.settings import GAIN, is_setting
from ablation.records import RunRecord, StudyRecord

# Of several records with one key, the one whose state comes first here counts.
PRECEDENCE = ("FINISHED", "DIVERGED", "RUNNING", "STOPPED", "PRUNED", "FAILED", "KILLED", "SUPERSEDED")


def invalid_records(study: StudyRecord) -> tuple[dict[str, str], dict[str, str]]:
    """Why records do not count for their arm and seed.

    Returns:
        For each run_id the problem, '' where the record counts: 'duplicate', 'superseded' or
        'conflict', see table.runs_table; and for each run_id the detail, one line or ''.
    """
    problems = {run.run_id: "" for run in study.runs}
    details = {run.run_id: "" for run in study.runs}
    by_key: dict[str, list[RunRecord]] = defaultdict(list)
    for run in study.runs:
        by_key[run.key].append(run)
    current = []
    for records in by_key.values():
        chosen, *others = sorted(records, key=lambda run: (PRECEDENCE.index(run.state), run.run_id))
        current.append(chosen)
        for duplicate in others:
            problems[duplicate.run_id] = "duplicate"
            details[duplicate.run_id] = (
                f"same key as run {chosen.run_id} ({chosen.state}), which counts instead"
            )
    planned_keys = {plan.key for plan in study.planned}
    planned_seeds = {(plan.arm, plan.seed): plan.key for plan in study.planned}
    finished: dict[tuple[str, int], list[RunRecord]] = defaultdict(list)
    for run in current:
        plan_key = planned_seeds.get((run.arm, run.seed))
        if run.state == "SUPERSEDED":
            problems[run.run_id] = "superseded"
        elif run.key not in planned_keys and plan_key is not None:
            problems[run.run_id] = "superseded"
            details[run.run_id] = (
                f"key {run.key[:8]}, but the plan has key {plan_key[:8]} for this arm and seed"
            )
        elif run.state == "FINISHED":
            finished[run.arm, run.seed].append(run)
    for runs in finished.values():
        if len(runs) > 1:
            keys = ", ".join(sorted(run.key[:8] for run in runs))
            for run in runs:
                problems[run.run_id] = "conflict"
                details[run.run_id] = f"this arm and seed finished with {len(runs)} configurations ({keys})"
    return problems, details


def params_of_arms(study: StudyRecord) -> dict[str, dict[str, str]]:
    """The loss settings of each arm, for runs whose record has none.

    Taken from another run of the arm, or from the plan.
    """
    params: dict[str, dict[str, str]] = defaultdict(dict)
    for plan in study.planned:
        known = plan.params or _overrides(plan.command)
        if "loss.name" in known:
            params[plan.arm] = _of_the_loss(known)
    current = {plan.key for plan in study.planned}
    # Runs of the present plan come last, so that their settings win.
    for run in sorted(study.runs, key=lambda run: run.key in current):
        if "loss.name" in run.params:
            params[run.arm] = _of_the_loss(run.params)
    return params


def _of_the_loss(params: Mapping[str, str]) -> dict[str, str]:
    return {key: value for key, value in params.items() if key in ("loss.name", GAIN) or is_setting(key)}


def _overrides(command: str) -> dict[str, str]:
    """The overrides in a command line, the group `loss` as the parameter loss.name."""
    try:
        pairs = dict(token.split("=", 1) for token in shlex.split(command) if "=" in token)
    except ValueError:
        return {}
    return {"loss.name" if key == "loss" else key: value for key, value in pairs.items()}
