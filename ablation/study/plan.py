"""The list of runs that a study consists of: what the report counts missing runs against."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ablation.errors import StoreError
from ablation.files import exclusive_lock, safe_name, write_json
from ablation.records import PlannedRun


def plan_file(out: Path, study: str) -> Path:
    """runs/<study>/plan.json."""
    return out / safe_name(study) / "plan.json"


def read_plan(path: Path) -> list[PlannedRun]:
    """The planned runs; none where there is no plan yet."""
    try:
        rows: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))["runs"]
        return [PlannedRun(**row) for row in rows]
    except FileNotFoundError:
        return []
    except (ValueError, KeyError, TypeError) as error:
        raise StoreError(f"{path}: not a plan ({error}); delete it and launch the study again") from None


def extend_plan(path: Path, new: list[PlannedRun]) -> list[PlannedRun]:
    """Add runs to the plan and return all of it.

    A study may be launched in several parts, so the plan is their union. The same arm and seed
    with another key means that the configuration was edited: the new run replaces the old one.
    """
    with exclusive_lock(path.with_suffix(".lock"), wait=True):
        runs = {(run.arm, run.seed): run for run in read_plan(path)}
        runs |= {(run.arm, run.seed): run for run in new}
        planned = list(runs.values())
        write_json(path, {"runs": [vars(run) for run in planned]})
    return planned
