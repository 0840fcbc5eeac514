"""From a study's name to its tables: the way in for an analysis of one's own."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

    from ablation.analyse.figures import StudyView


def load_view(study: str, *, metric: str | None = None, uri: str | None = None) -> StudyView:
    """Everything that the report's figures look at: `view.runs`, `view.arms`, `view.artifacts`, ...

    Args:
        study: its name.
        metric: what is compared; None: what the study declared, else val/AP.
        uri: of the MLflow store; None: mlflow.db in this folder.

    Raises:
        UsageError: no such store or study; the message names the studies that there are.
    """
    from dataclasses import replace

    from ablation.analyse.detections.run_files import RunArtifacts
    from ablation.analyse.figures import study_view
    from ablation.records import metric_and_level
    from ablation.tracking.store import Store, fetch_artifact, load_study

    store = Store.of(uri, None)
    record = load_study(store, study)
    declared_metric, level = metric_and_level(record.declared)
    view = study_view(record, metric or declared_metric, level)
    artifacts = RunArtifacts(record, lambda run_id, path: fetch_artifact(store, run_id, path))
    return replace(view, artifacts=artifacts)


def load_runs(study: str, *, uri: str | None = None) -> pd.DataFrame:
    """One row per planned or recorded run: columns as in table.runs_table. Arguments as in load_view.

    Only rows with `valid` are data: the others failed, diverged, are missing or were replaced.
    """
    return load_view(study, uri=uri).runs
