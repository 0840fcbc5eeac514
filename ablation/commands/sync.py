"""`ablation sync`: copy runs' folders into MLflow after the fact."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ablation.errors import UsageError
from ablation.study.plan_file import refuse_renamed_folders
from ablation.tracking.experiment import publish_plan
from ablation.tracking.mirror import Mirror
from ablation.tracking.run_folder import RunFolder
from ablation.tracking.store import Store
from ablation.tracking.study_folder import read_plan


def replay(out: Path, store: Store) -> int:
    """Log every run below `out`, and every study's plan; idempotent. Returns the number of runs.

    Raises:
        UsageError: there is no run there, or the folder of a study was renamed; nothing is written.
        StoreError: the store cannot be used.
    """
    folders = sorted(path.parent for path in out.glob("*/*/*/run.json"))
    if not folders:
        raise UsageError(
            f"out={out}: no run's folder there (expected {out}/<study>/<arm>/seed<k>-<key>/run.json)"
        )
    refuse_renamed_folders(out)
    store.prepare()
    studies: dict[str, tuple[str, Path]] = {}
    for path in folders:
        folder = RunFolder(path)
        mirror = Mirror(store, folder, strict=True)
        mirror.finish(folder.artifacts())
        identity = folder.read_json("run.json")
        studies[identity["study"]] = (identity.get("description", ""), path.parent.parent / "plan.json")
    for study, (description, plan_path) in studies.items():
        plan = read_plan(plan_path)
        publish_plan(store, study, replace(plan, description=description))
    return len(folders)
