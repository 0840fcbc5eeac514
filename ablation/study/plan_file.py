"""The list of runs that a study consists of: what the report counts missing runs against."""

from __future__ import annotations

import json
from pathlib import Path

from ablation.errors import StoreError
from ablation.files import exclusive_lock, safe_name, write_json
from ablation.records import Declaration, Plan, PlannedRun


def plan_file(out: Path, study: str) -> Path:
    """runs/<study>/plan.json."""
    return out / safe_name(study) / "plan.json"


def read_plan(path: Path) -> Plan:
    """The plan; an empty one where there is none yet."""
    try:
        return Plan.from_json(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return Plan()
    except (ValueError, KeyError, TypeError) as error:
        raise StoreError(f"{path}: not a plan ({error}); delete it and launch the study again") from None


def extend_plan(path: Path, new: list[PlannedRun], declaration: Declaration | None = None) -> Plan:
    """Add runs, and what is declared about their analysis, to the plan and return all of it.

    A study may be launched in several parts, so the plan is their union. The same arm and seed
    with another key means that the configuration was edited: the new run replaces the old one.
    A declaration that differs from the last one is added to it and never replaces it, so that a
    margin which was changed after the results were seen stays visible.
    """
    with exclusive_lock(path.with_suffix(".lock"), wait=True):
        present = read_plan(path)
        runs = {(run.arm, run.seed): run for run in present.runs}
        runs |= {(run.arm, run.seed): run for run in new}
        declared = list(present.declared)
        if declaration is not None and (not declared or declared[-1].content != declaration.content):
            declared.append(declaration)
        plan = Plan(list(runs.values()), declared)
        write_json(path, plan.to_json())
    return plan
