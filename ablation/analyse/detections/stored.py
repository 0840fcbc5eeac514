"""Which runs lost the detections that they stored."""

from __future__ import annotations

from ablation.analyse.detections.run_files import DETECTIONS, GROUND_TRUTH, RunArtifacts
from ablation.records import RunRecord, StudyRecord


def lost_detections(study: StudyRecord, artifacts: RunArtifacts) -> list[str]:
    """A line for each finished run whose detections are gone.

    Every run that was trained here stored some; imported runs may have none. Runs that are named in
    StudyRecord.missing already are left out.
    """
    lines = []
    for run in study.runs:
        name = f"{run.arm} seed {run.seed} ({run.key[:8]})"
        named = any(name in line for line in study.missing)
        has_all = all(artifacts.has(file, run.run_id) for file in (DETECTIONS, GROUND_TRUTH))
        if run.state == "FINISHED" and not named and not has_all and _trained_here(run, artifacts):
            lines.append(f"the detections of {name} are neither in its folder nor in the tracking store")
    return lines


def _trained_here(run: RunRecord, artifacts: RunArtifacts) -> bool:
    description = artifacts.json("run.json", run.run_id)
    return isinstance(description, dict) and "_target_" in (description.get("data") or {})
