"""A study read from its runs' folders alone, without a tracking store."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ablation.records import STATES, PlannedRun, RunRecord, StudyRecord
from ablation.tracking.run_folder import RunFolder
from ablation.tracking.study_folder import read_plan, study_folder


def folder_of(out: Path, study: str, run: PlannedRun) -> RunFolder:
    """Where a planned run is, or will be, written."""
    return RunFolder.of(out, study, run.arm, run.seed, run.key)


def study_of_folders(out: Path, study: str) -> StudyRecord:
    """The study as its plan and its runs' folders tell it; runs that have not begun are not in it.

    The histories are empty: the verdict needs the last values only.

    Raises:
        StoreError: a file is damaged.
    """
    plan = read_plan(study_folder(out, study) / "plan.json")
    return StudyRecord(
        study, list(_runs(out, study, plan.runs)), list(plan.runs), plan.description, tuple(plan.declared)
    )


def _runs(out: Path, study: str, planned: list[PlannedRun]) -> Iterator[RunRecord]:
    for run in planned:
        folder = folder_of(out, study, run)
        state = folder.state
        if state not in STATES:
            continue
        metrics: dict[str, float] = {}
        for line in folder.metrics():
            metrics |= line["metrics"]
        identity = folder.read_json("run.json")
        yield RunRecord(
            run_id=run.key,
            study=study,
            arm=run.arm,
            seed=run.seed,
            key=run.key,
            state=state,
            params=identity.get("params", run.params),
            metrics=metrics,
            folder=str(folder.path),
            reason=folder.reason,
            fingerprint=str(identity.get("fingerprint", "")),
        )
